"""Forgetting a person. Deleting the profile is the anonymisation: the ledger holds a surrogate id and nothing else."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from audit import trail
from audit.models import Action
from delivery import caps, ledger
from delivery.ledger import Tally
from delivery.models import Batch, InboxMessage, OutboxMessage, State
from schedules.models import Device, Recipient
from schedules.recipients import NoSuchRecipient, RecipientChanged


@dataclass(frozen=True)
class Forgotten:
    """``pending`` counts deliveries that were still to come and are ``erased`` now; the others what was deleted."""

    pending: int
    devices: int
    inbox: int
    outbox: int


@transaction.atomic
def forget(*, recipient_id: int, by: str, now: datetime, expected_version: int | None = None) -> Forgotten:
    """Delete a profile with its devices, inbox and outbox, and every delivery still pending for it.

    A call already started ends and is recorded as what it was; no other starts: a claim that finds no profile
    settles the row as ``erased``. Raises ``NoSuchRecipient``, and ``RecipientChanged`` where somebody has changed the
    profile since ``expected_version``.
    """
    _refuse_changed(Recipient.objects.filter(pk=recipient_id).first(), expected_version)
    tally = Tally(is_holder=False)
    pending = 0
    # Rows first, then the profile: the order in which a claim that writes in its own transaction locks them.
    for batch in Batch.objects.filter(pk__in=_open_batches(recipient_id)).order_by("id"):
        pending += ledger.settle_batch(
            batch.pk,
            day=batch.day,
            source=State.PENDING,
            target=State.ERASED,
            reason="profile_gone",
            now=now,
            tally=tally,
            condition="d.recipient_id = %(recipient)s",
            parameters={"recipient": recipient_id},
        )
    tally.flush()
    # Devices, then the profile: the order of everybody who changes both.
    list(Device.objects.filter(recipient_id=recipient_id).order_by("id").select_for_update())
    # Whoever is laying a message into the inbox holds the profile: wait, so that this message is deleted too.
    held = Recipient.objects.select_for_update().filter(pk=recipient_id).first()
    _, deleted = _refuse_changed(held, expected_version).delete()
    transaction.on_commit(lambda: caps.forget(recipient_id))
    trail.record(action=Action.RECIPIENT_ERASE, by=by, now=now, changes={"pending": pending})
    devices, inbox, outbox = (deleted.get(model._meta.label, 0) for model in (Device, InboxMessage, OutboxMessage))
    return Forgotten(pending, devices, inbox, outbox)


def _refuse_changed(recipient: Recipient | None, expected_version: int | None) -> Recipient:
    if recipient is None:
        raise NoSuchRecipient
    if expected_version is not None and expected_version != recipient.version:
        raise RecipientChanged(recipient)
    return recipient


def _open_batches(recipient_id: int) -> list[int]:
    """Batches with a pending row of the person, in occurrences that are open."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT d.batch_id FROM delivery_delivery d
            WHERE d.recipient_id = %(recipient)s AND d.state = %(pending)s AND d.day >= (
                SELECT COALESCE(min(day), 'infinity') FROM delivery_batch WHERE pending > 0
            )
            """,
            {"recipient": recipient_id, "pending": int(State.PENDING)},
        )
        return [batch_id for (batch_id,) in cursor.fetchall()]

"""Forgetting a person. Deleting the profile is the anonymisation: the ledger holds a surrogate id and nothing else."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from audit import trail
from audit.models import Action
from delivery import caps, ledger
from delivery.ledger import Tally
from delivery.models import Batch, State
from schedules.models import Recipient


@dataclass(frozen=True)
class Forgotten:
    """``pending`` counts deliveries that were still to come and are ``erased`` now."""

    pending: int


@transaction.atomic
def forget(*, recipient_id: int, by: str, now: datetime) -> Forgotten:
    """Delete a profile with its devices, inbox and outbox, and every delivery still pending for it.

    A call already started ends and is recorded as what it was; no other starts: a claim that finds no profile
    settles the row as ``erased``. Raises ``Recipient.DoesNotExist``.
    """
    Recipient.objects.get(pk=recipient_id)
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
    # Whoever is laying a message into the inbox holds the profile: wait, so that this message is deleted too.
    Recipient.objects.select_for_update().get(pk=recipient_id).delete()
    transaction.on_commit(lambda: caps.forget(recipient_id))
    trail.record(action=Action.RECIPIENT_ERASE, by=by, now=now, changes={"pending": pending})
    return Forgotten(pending)


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

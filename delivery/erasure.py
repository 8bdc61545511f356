"""Forgetting a person. Deleting the profile is the anonymisation: the ledger holds a surrogate id and nothing else."""

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.db.models import Q

from audit import trail
from audit.models import Action, AuditEvent
from delivery import caps, ledger
from delivery.ledger import LEASE_S, Tally
from delivery.models import Batch, InboxMessage, OutboxMessage, State, TestSend, sent_to
from delivery.receipts import Receipt, Remainder
from schedules import fingerprints, mentions, suppressions
from schedules.fields import legible
from schedules.imports.naming import discard_naming
from schedules.models import Device, MirroredPerson, Recipient, Suppression
from schedules.recipients import NoSuchRecipient, RecipientChanged


@transaction.atomic
def forget(
    *,
    recipient_id: int,
    by: str,
    now: datetime,
    expected_version: int | None = None,
    elsewhere: Mapping[str, int] | None = None,
) -> Receipt:
    """Delete a profile with its devices, inbox and outbox, and every delivery still pending for it.

    Audiences that name the person name nobody any more, and uploaded files in which the person stands are thrown away.
    A call already started ends and is recorded as what it was; no other starts: a claim that finds no profile
    settles the row as ``erased``. ``elsewhere`` counts what the caller has deleted in this same transaction, for the
    receipt. Raises ``NoSuchRecipient``, and ``RecipientChanged`` where somebody has changed the profile since
    ``expected_version``.
    """
    known = _refuse_changed(Recipient.objects.filter(pk=recipient_id).first(), expected_version)
    # Schedules before rows: the order of edits.
    named = mentions.forget(external_id=known.external_id, recipient_id=recipient_id)
    tally = Tally(is_holder=False)
    pending: Counter[int] = Counter()
    # Rows first, then the profile: the order in which a claim that writes in its own transaction locks them.
    open_batches = Batch.objects.filter(pk__in=_open_batches(recipient_id)).select_related("occurrence")
    for batch in open_batches.order_by("id"):
        pending[batch.occurrence.schedule_id] += ledger.settle_batch(
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
    # What the user service told, since who listens to it has that row first. Then devices, then the profile: the order
    # of everybody who changes both.
    MirroredPerson.objects.filter(recipient_id=recipient_id).delete()
    devices = list(Device.objects.filter(recipient_id=recipient_id).order_by("id").select_for_update())
    # Whoever is laying a message into the inbox holds the profile: wait, so that this message is deleted too.
    held = _refuse_changed(Recipient.objects.select_for_update().filter(pk=recipient_id).first(), expected_version)
    if held.external_id != known.external_id:  # changed meanwhile: seldom, hence out of the order above
        named = named.and_also(mentions.forget(external_id=held.external_id, recipient_id=recipient_id))
    # What can't be read is nowhere to be looked for: it goes by its index, and by whose it is.
    words = {known.external_id, held.external_id, *legible([held.email, *(device.token for device in devices)])}
    tests = _forget_tests(held)
    copies = OutboxMessage.objects.filter(sent_to(held)).delete()[0]
    prints = fingerprints.keep(
        external_ids={known.external_id, held.external_id}, address="".join(legible([held.email])), now=now
    )
    bounces = suppressions.forget_bounces(held)
    suppression = suppressions.of_person(held)
    _, deleted = held.delete()
    # An import in progress locks profiles, then its own row.
    files = discard_naming(words=words, now=now)
    transaction.on_commit(lambda: caps.forget(recipient_id))
    gone = {model: deleted.get(model._meta.label, 0) for model in (Device, InboxMessage, OutboxMessage)}
    receipt = Receipt(
        recipient_id,
        now,
        schedules={schedule_id: count for schedule_id, count in pending.items() if count},
        gone={
            "devices": gone[Device],
            "inboxMessages": gone[InboxMessage],
            "outboxMessages": gone[OutboxMessage] + copies,
            "testSends": tests,
            "softBounces": bounces,
            "definitions": named.definitions,
            "uploadedFiles": files,
            **(elsewhere or {}),
        },
        remains=tuple(
            _remains(
                recipient_id,
                {known.external_id, held.external_id},
                named.schedule_ids,
                prints,
                suppression=suppression,
                now=now,
            )
        ),
    )
    changes = {"recipient": recipient_id, "pending": receipt.pending, "receipt": receipt.to_json()}
    trail.record(action=Action.RECIPIENT_ERASE, by=by, now=now, changes=changes)
    return receipt


def receipt_of(*, recipient_id: int) -> AuditEvent | None:
    """The event that tells of the erasure of whoever had this number; its ``payload_diff`` has the ``receipt``."""
    erasures = AuditEvent.objects.filter(action=Action.RECIPIENT_ERASE, payload_diff__recipient=recipient_id)
    return erasures.first()


def _refuse_changed(recipient: Recipient | None, expected_version: int | None) -> Recipient:
    if recipient is None:
        raise NoSuchRecipient
    if expected_version is not None and expected_version != recipient.version:
        raise RecipientChanged(recipient)
    return recipient


def _forget_tests(person: Recipient) -> int:
    """Tests that were sent to the person, or as somebody else's to the person's address."""
    return TestSend.objects.filter(Q(recipient_id=person.pk) | sent_to(person)).delete()[0]


def _remains(
    recipient_id: int,
    external_ids: Collection[str],
    schedule_ids: tuple[int, ...],
    prints: int,
    *,
    suppression: Suppression | None,
    now: datetime,
) -> list[Remainder]:
    counts = _rows_by_state(recipient_id)
    remains = [
        Remainder(
            "ledger",
            "The books of past runs have to close: the rows hold this number, which leads to no profile, and no name.",
            counts.total(),
            now + timedelta(days=settings.LEDGER_RETENTION_DAYS),
        )
    ]
    if counts[State.SENDING]:
        why = "A call that had begun can't be taken back: it ends, and is recorded as what it was."
        remains.append(Remainder("callsInFlight", why, counts[State.SENDING], now + timedelta(seconds=LEASE_S)))
    if schedule_ids and (events := _events_naming(external_ids, schedule_ids)):
        why = "The audit is never changed: audiences that named the person stand in it with the external id alone."
        remains.append(Remainder("audit", why, events))
    why = "So that no import brings the person back: keyed fingerprints of id and address, which nobody can read."
    remains.append(Remainder("fingerprints", why, prints))
    if suppression:
        why = "So that nobody writes to the address again: a keyed fingerprint of it, which nobody can read."
        remains.append(Remainder("suppression", why, 1))
    if get_user_model()._default_manager.filter(username__in=external_ids).exists():
        why = "The account by which the person signs in to the inbox has a life of its own: delete it under Users."
        remains.append(Remainder("account", why, 1))
    copies = "Backups and logs are kept by whoever runs the service. Logs hold this number and no name."
    remains.append(Remainder("backups", copies))
    return remains


def _rows_by_state(recipient_id: int) -> Counter[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT state, count(*) FROM delivery_delivery WHERE recipient_id = %s GROUP BY state", [recipient_id]
        )
        return Counter(dict(cursor.fetchall()))


def _events_naming(external_ids: Collection[str], schedule_ids: tuple[int, ...]) -> int:
    events = AuditEvent.objects.filter(schedule_id__in=schedule_ids)
    return sum(_mentions(event.payload_diff, external_ids) for event in events.iterator())


def _mentions(data: object, external_ids: Collection[str]) -> bool:
    if isinstance(data, dict):
        return any(_mentions(each, external_ids) for each in data.values())
    if isinstance(data, list):
        return any(_mentions(each, external_ids) for each in data)
    return isinstance(data, str) and data in external_ids


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

"""Everything that is held of a person, as JSON: what the person may ask to be shown (GDPR, article 15)."""

from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Model, Q

from audit import trail
from audit.models import Action, AuditEvent
from delivery import feedback
from delivery.models import (
    Delivery,
    FailedAttempt,
    Feedback,
    InboxMessage,
    News,
    OutboxMessage,
    State,
    TestSend,
    sent_to,
)
from schedules import mentions, suppressions
from schedules.fields import BlindIndexField
from schedules.models import Device, MirroredPerson, Recipient
from schedules.recipients import NoSuchRecipient


@transaction.atomic
def export(*, recipient_id: int, by: str, now: datetime) -> dict[str, Any]:
    """Every row that belongs to the person, addresses and tokens in clear; the audit keeps that it was taken.

    Instants are texts in UTC. Raises ``NoSuchRecipient``.
    """
    person = Recipient.objects.filter(pk=recipient_id).first()
    if person is None:
        raise NoSuchRecipient
    theirs = {"recipient_id": recipient_id}
    deliveries = [
        {**_fields(each), "state": State(each.state).label}
        for each in Delivery.objects.filter(**theirs).order_by("day", "occurrence_id")
    ]
    tests = Q(**theirs) | sent_to(person)
    held = {
        "exportedAt": _readable(now),
        "profile": _fields(person),
        "mirrored": [_fields(each) for each in MirroredPerson.objects.filter(**theirs)],
        "devices": [_fields(each) for each in Device.objects.filter(**theirs).order_by("id")],
        "inbox": [_fields(each) for each in InboxMessage.objects.filter(**theirs).order_by("id")],
        "outbox": [_fields(each) for each in OutboxMessage.objects.filter(**theirs).order_by("id")],
        "deliveries": deliveries,
        "feedback": [{**_fields(each), "news": News(each.news).label} for each in _feedback(recipient_id)],
        "suppression": _suppression(person),
        "softBounces": suppressions.soft_bounces(person, now=now),
        "failedAttempts": [_fields(each) for each in FailedAttempt.objects.filter(**theirs).order_by("day", "at")],
        "testSends": [_fields(each) for each in TestSend.objects.filter(tests).order_by("id")],
        "audiencesThatNameThePerson": mentions.schedules_naming(external_id=person.external_id),
        "auditEvents": [
            _fields(each)
            for each in AuditEvent.objects.filter(
                action=Action.RECIPIENT_SAVE, payload_diff__recipient=recipient_id
            ).order_by("id")
        ],
    }
    trail.record(action=Action.EXPORT_FILE, by=by, now=now, changes={"file": f"person-{recipient_id}"})
    return held


def _feedback(recipient_id: int) -> list[Feedback]:
    """By the keys of the person's deliveries: their table has no index on people."""
    keys = Delivery.objects.filter(recipient_id=recipient_id).values_list("day", "occurrence_id", "recipient_id")
    return [row for _, row in sorted(feedback.of_deliveries(keys).items())]


def _suppression(person: Recipient) -> dict[str, Any] | None:
    found = suppressions.of_person(person)
    return {key: value for key, value in _fields(found).items() if key != "fingerprint"} if found else None


# Columns by which the service works; they say nothing of a person.
_OURS = frozenset({"claim_token", "kinds", "kinds_before", "written_in"})


def _fields(row: Model) -> dict[str, Any]:
    return {
        _camel(field.attname): _readable(getattr(row, field.attname))
        for field in row._meta.concrete_fields
        if field.attname not in _OURS and not isinstance(field, BlindIndexField)
    }


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(each.capitalize() for each in rest)


def _readable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value if isinstance(value, str | int | float | bool | dict | list | None) else str(value)

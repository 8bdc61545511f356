"""Amazon SES's event records, as JSON in a notification of SNS or a message of SQS, to events.

Shapes are those of "Contents of event data that Amazon SES publishes to Amazon SNS" in its developer guide, and of the
older notifications about an identity's feedback, which have ``notificationType`` and no tags. SES may add fields at any
time, so what isn't needed is not looked at.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from django.utils.dateparse import parse_datetime

from delivery.events.base import Kind, ProviderEvent
from delivery.providers.base import scrub
from schedules import storable

TAG: Final = (
    "delivery"  # delivery.providers.ses.TAG; importing that would import boto3, which a web server does not need
)
RUN_TAG: Final = "run"  # the other one
# What SES publishes once when a topic is chosen for its events, in words and not in JSON.
_GREETING: Final = "Successfully validated SNS topic"
# Nothing that the ledger tells. A subscription is SES's own list management.
_BESIDE: Final = frozenset({"Open", "Click", "Subscription"})
# Reports to the sender that are no complaint of the person (RFC 6591, RFC 5965 and its registry).
_NO_COMPLAINT: Final = ("not-spam", "auth-failure")
_KEY: Final = re.compile(r"[0-9]{8}-[0-9]{1,18}-[0-9]{1,18}", re.ASCII)
_RUN: Final = re.compile(r"[0-9]{1,18}-[0-9]{1,18}", re.ASCII)
_ID: Final = re.compile(r"[!-~]{1,200}")
_CODE: Final = re.compile(r"[A-Za-z0-9 ._-]{1,60}")
_ADDRESSES: Final = 50  # that a message can have, says SES
_LONGEST_ADDRESS: Final = 320


class Unreadable(ValueError):
    """No such record; the text says what was expected, and quotes nothing."""

    names_nobody = True  # as logs ask


def read(document: str) -> ProviderEvent | None:
    """The event of one record; None for one of which the ledger tells nothing. Raises ``Unreadable``."""
    if document.startswith(_GREETING):
        return None
    try:
        record = json.loads(document)
    except (ValueError, RecursionError):
        raise Unreadable("Send one JSON object, a record as Amazon SES publishes it.") from None
    if not isinstance(record, dict):
        raise Unreadable("The record is no JSON object.")
    name = record.get("eventType", record.get("notificationType"))
    if not isinstance(name, str):
        raise Unreadable("The record has no eventType.")
    if name in _BESIDE:
        return None
    if (of_kind := _KINDS.get(name)) is None:
        raise Unreadable("The record's eventType is none of Amazon SES's.")
    return of_kind(record, _object(record, "mail"))


def _send(record: Mapping[str, Any], mail: Mapping[str, Any]) -> ProviderEvent:
    return _event(Kind.SEND, mail)


def _delivery(record: Mapping[str, Any], mail: Mapping[str, Any]) -> ProviderEvent:
    told = _object(record, "delivery")
    return _event(Kind.DELIVERY, mail, at=_instant(told, "delivery"), listed=told.get("recipients"))


def _bounce(record: Mapping[str, Any], mail: Mapping[str, Any]) -> ProviderEvent:
    told = _object(record, "bounce")
    kind = Kind.BOUNCE_HARD if told.get("bounceType") == "Permanent" else Kind.BOUNCE_SOFT
    bounced = told.get("bouncedRecipients")
    return _event(
        kind,
        mail,
        at=_instant(told, "bounce"),
        event_id=_id(told, "feedbackId", "bounce"),
        detail=_detail(_codes(told, "bounceType", "bounceSubType"), _status(bounced)),
        listed=bounced,
    )


def _complaint(record: Mapping[str, Any], mail: Mapping[str, Any]) -> ProviderEvent | None:
    told = _object(record, "complaint")
    if told.get("complaintFeedbackType") in _NO_COMPLAINT:
        return None
    return _event(
        Kind.COMPLAINT,
        mail,
        at=_instant(told, "complaint"),
        event_id=_id(told, "feedbackId", "complaint"),
        detail=_codes(told, "complaintFeedbackType", "complaintSubType"),
        listed=told.get("complainedRecipients"),
    )


def _delay(record: Mapping[str, Any], mail: Mapping[str, Any]) -> ProviderEvent:
    told = _object(record, "deliveryDelay")
    delayed = told.get("delayedRecipients")
    detail = _detail(_codes(told, "delayType"), _status(delayed))
    return _event(Kind.DELAY, mail, at=_instant(told, "deliveryDelay"), detail=detail, listed=delayed)


def _reject(record: Mapping[str, Any], mail: Mapping[str, Any]) -> ProviderEvent:
    return _event(Kind.REJECT, mail, detail=_codes(_object(record, "reject"), "reason"))


def _failure(record: Mapping[str, Any], mail: Mapping[str, Any]) -> ProviderEvent:
    words = _object(record, "failure").get("errorMessage")
    return _event(Kind.RENDERING_FAILURE, mail, detail=scrub(words) if isinstance(words, str) else "")


_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], ProviderEvent | None]]] = {
    "Send": _send,
    "Delivery": _delivery,
    "Bounce": _bounce,
    "Complaint": _complaint,
    "DeliveryDelay": _delay,
    "Reject": _reject,
    "Rendering Failure": _failure,
}


def _event(
    kind: Kind,
    mail: Mapping[str, Any],
    *,
    at: datetime | None = None,
    event_id: str = "",
    detail: str = "",
    listed: object = None,
) -> ProviderEvent:
    """``at`` None: the record has no time of its own, and happened when the message was taken."""
    provider_id = _id(mail, "messageId", "mail")
    sent_at = _instant(mail, "mail")
    at = at or sent_at
    # Without an id of its own, an event of a message is told apart by what and when.
    event_id = event_id or f"{provider_id} {kind} {at:%Y%m%dT%H%M%S.%fZ}"
    run = _tag(mail, RUN_TAG, _RUN)
    return ProviderEvent(kind, _key(mail), provider_id, at, sent_at, event_id, detail, _addresses(mail, listed), run)


def _key(mail: Mapping[str, Any]) -> str:
    """Empty where the message is not ours, or its tags don't come along."""
    value = _tag(mail, TAG, _KEY)
    try:
        datetime.strptime(value[:8], "%Y%m%d")  # noqa: DTZ007 - a day, as the ledger counts them
    except ValueError:
        return ""
    return value


def _tag(mail: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    tags = mail.get("tags")
    values = tags.get(name) if isinstance(tags, dict) else None
    value = values[0] if isinstance(values, list) and values else ""
    return value if isinstance(value, str) and form.fullmatch(value) else ""


def _addresses(mail: Mapping[str, Any], listed: object) -> tuple[str, ...]:
    """Of a message to one person, whom it was sent to: a bounce names the last address it was forwarded to."""
    sent_to = _texts(mail.get("destination"))
    return sent_to if len(sent_to) == 1 else _texts(listed) or sent_to


def _texts(listed: object) -> tuple[str, ...]:
    if not isinstance(listed, list):
        return ()
    named = (each.get("emailAddress") if isinstance(each, dict) else each for each in listed[:_ADDRESSES])
    return tuple(each for each in named if _is_address(each))


def _is_address(given: object) -> TypeGuard[str]:
    return isinstance(given, str) and 0 < len(given) <= _LONGEST_ADDRESS and not storable.text_fault(given)


def _status(listed: object) -> str:
    """The enhanced status code (RFC 3463) of the first recipient, where the answering server gave one."""
    first = listed[0] if isinstance(listed, list) and listed else None
    return _codes(first, "status") if isinstance(first, dict) else ""


def _codes(told: Mapping[str, Any], *names: str) -> str:
    """Those that are there, ``Permanent/General``: words of SES's own making alone, since the ledger keeps them."""
    found = (told.get(name) for name in names)
    return "/".join(each for each in found if isinstance(each, str) and _CODE.fullmatch(each))


def _detail(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _object(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = record.get(name)
    if not isinstance(found, dict):
        raise Unreadable(f"The record has no object {name}.")
    return found


def _id(told: Mapping[str, Any], name: str, of: str) -> str:
    found = told.get(name)
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise Unreadable(f"{of}.{name} is a text of 1 to 200 ASCII characters without spaces.")
    return found


def _instant(told: Mapping[str, Any], of: str) -> datetime:
    given = told.get("timestamp")
    try:
        at = parse_datetime(given) if isinstance(given, str) else None
        if at is not None and at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):  # a 30th of February, or the year 1 in a zone ahead of UTC
        pass
    raise Unreadable(f"{of}.timestamp is an instant with its offset, such as 2026-11-22T10:00:00.000Z.")

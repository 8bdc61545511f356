"""What Amazon SES tells of a message it has taken: records as it publishes them, and when which of them happens.

A record has the members of "Contents of event data that Amazon SES publishes to Amazon SNS" in its developer guide.
What happens to a message is told by rules, the first that concerns it deciding; without one it is delivered:

    {"event": "bounce", "match": {"to": "*@gone.example"}, "rate": 0.5}

`event`   bounce, soft_bounce, complaint (after a delivery), delay (and a delivery after it), reject, delivery, or none,
          of which nothing is told
`match`   `to` is a glob for the message's address (default: all)
`rate`    the share of those messages, 0 to 1 (default 1)

Which ones a rate hits hangs on the address alone: a full mailbox is full for the next message too.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from stubs.log import Accepted
from stubs.sns import written

TAG, RUN_TAG = "delivery", "run"
FATES = ("bounce", "soft_bounce", "complaint", "delay", "reject", "delivery", "none")
_ACCOUNT = "123456789012"


class BadEvent(ValueError):
    """A rule that can't be meant; the text names the member."""


class Happening(NamedTuple):
    """A record that is to be published ``after_s`` seconds after the message was taken, by the real clock.

    What the message says of its time may be a demo's, hours ahead; Amazon's clock is the real one.
    """

    after_s: float
    kind: str
    message: Accepted
    taken_at: datetime


@dataclass(frozen=True, kw_only=True)
class EventRule:
    event: str
    to: str = "*"
    rate: float = 1.0

    @classmethod
    def of(cls, given: Any) -> EventRule:
        """Raises BadEvent."""
        if not isinstance(given, dict) or given.keys() - {"event", "match", "rate"}:
            raise BadEvent("rules of events: objects with event, match and rate")
        event, match, rate = given.get("event"), given.get("match", {}), given.get("rate", 1.0)
        if event not in FATES:
            raise BadEvent(f"event: {event!r} is none of {', '.join(FATES)}")
        if not isinstance(match, dict) or match.keys() - {"to"} or not isinstance(match.get("to", "*"), str):
            raise BadEvent("match: an object with the member to")
        if not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise BadEvent("rate: a number from 0 to 1")
        return cls(event=event, to=match.get("to", "*"), rate=float(rate))


class Fates:
    """What happens to messages. ``pace`` stretches or shortens the seconds in which it does."""

    def __init__(self, rules: Sequence[Any] = (), *, pace: float = 1.0, with_send: bool = True) -> None:
        self.rules = [EventRule.of(rule) for rule in rules]
        self._pace = pace
        self._with_send = with_send

    def of(self, message: Accepted) -> list[Happening]:
        """In the order in which they happen."""
        taken_at = datetime.now(UTC)
        chance = random.Random(message.to)  # noqa: S311 - chance that repeats is wanted
        told: list[tuple[float, str]] = [(0.0, "Send")] if self._with_send else []
        if message.failure:  # found while it was filled in, so that it was never sent
            return [Happening(self._pace, "Rendering Failure", message, taken_at)]
        event = self._event(message, chance)
        soon, later = chance.uniform(1, 4), chance.uniform(10, 20)
        if event == "none":
            return []
        told += {
            "bounce": [(soon, "Bounce")],
            "soft_bounce": [(later, "SoftBounce")],
            "complaint": [(soon, "Delivery"), (later, "Complaint")],
            "delay": [(soon, "DeliveryDelay"), (later, "Delivery")],
            "reject": [(soon, "Reject")],
            "delivery": [(soon, "Delivery")],
        }[event]
        return [Happening(after * self._pace, kind, message, taken_at) for after, kind in told]

    def _event(self, message: Accepted, chance: random.Random) -> str:
        for rule in self.rules:
            if fnmatchcase(message.to, rule.to) and chance.random() < rule.rate:
                return rule.event
        return "delivery"


def record(
    kind: str, message: Accepted, *, at: datetime | None = None, sent_at: datetime | None = None, **changes: Any
) -> dict[str, Any]:
    """``kind`` as SES names it, and SoftBounce; ``at``: of the event. ``changes`` go into the event's own object."""
    sent_at = sent_at or datetime.fromisoformat(message.at)
    told = _TOLD[kind](message.to, written(at or sent_at + timedelta(seconds=1)), message)
    name = "Bounce" if kind == "SoftBounce" else kind
    member = _MEMBERS.get(name, name.lower())
    return {"eventType": name, "mail": _mail(message, sent_at), member: {**told, **changes}}


def _mail(message: Accepted, sent_at: datetime) -> dict[str, Any]:
    return {
        "timestamp": written(sent_at),
        "source": "sender@example.com",
        "sourceArn": f"arn:aws:ses:eu-central-1:{_ACCOUNT}:identity/sender@example.com",
        "sendingAccountId": _ACCOUNT,
        "messageId": message.message_id,
        "destination": [message.to],
        "headersTruncated": False,
        "headers": [{"name": "To", "value": message.to}, {"name": "MIME-Version", "value": "1.0"}],
        "commonHeaders": {"to": [message.to], "messageId": message.message_id, "subject": message.subject},
        "tags": {
            "ses:configuration-set": ["stub"],
            "ses:from-domain": ["example.com"],
            **({TAG: [message.delivery]} if message.delivery else {}),
            **({RUN_TAG: [message.run]} if message.run else {}),
        },
    }


def _bounce(kind: str, subtype: str, status: str, words: str) -> Any:
    def told(to: str, at: str, message: Accepted) -> dict[str, Any]:
        recipient = {"emailAddress": to, "action": "failed", "status": status, "diagnosticCode": f"smtp; {words}"}
        return {
            "bounceType": kind,
            "bounceSubType": subtype,
            "bouncedRecipients": [recipient],
            "timestamp": at,
            "feedbackId": f"{message.message_id}-bounce",
            "reportingMTA": "dns; stub.example.com",
        }

    return told


def _complaint(to: str, at: str, message: Accepted) -> dict[str, Any]:
    return {
        "complainedRecipients": [{"emailAddress": to}],
        "timestamp": at,
        "feedbackId": f"{message.message_id}-complaint",
        "complaintSubType": None,
        "userAgent": "Stub-Feedback-Loop/1.0",
        "complaintFeedbackType": "abuse",
        "arrivalDate": at,
    }


def _delivery(to: str, at: str, message: Accepted) -> dict[str, Any]:
    return {
        "timestamp": at,
        "processingTimeMillis": 1000,
        "recipients": [to],
        "smtpResponse": "250 2.6.0 Message received",
        "reportingMTA": "stub.example.com",
    }


def _delay(to: str, at: str, message: Accepted) -> dict[str, Any]:
    words = "smtp; 421 4.4.1 Unable to connect to remote host"
    return {
        "timestamp": at,
        "delayType": "TransientCommunicationFailure",
        "expirationTime": at,
        "delayedRecipients": [{"emailAddress": to, "status": "4.4.1", "diagnosticCode": words}],
    }


_TOLD: Mapping[str, Any] = {
    "Send": lambda to, at, message: {},
    "Delivery": _delivery,
    "Bounce": _bounce("Permanent", "General", "5.1.1", "550 5.1.1 user unknown"),
    "SoftBounce": _bounce("Transient", "MailboxFull", "4.2.2", "452 4.2.2 mailbox full"),
    "Complaint": _complaint,
    "DeliveryDelay": _delay,
    "Reject": lambda to, at, message: {"reason": "Bad content"},
    "Rendering Failure": lambda to, at, message: {"errorMessage": message.failure, "templateName": "inline"},
}
_MEMBERS: Mapping[str, str] = {"DeliveryDelay": "deliveryDelay", "Rendering Failure": "failure"}

"""The port to whatever carries messages out of the house: one call, one answer per message.

A provider overrides `_call` (and `_refuse`, where it can tell beforehand that a message is hopeless);
the template method `Provider.send` does what is the same for all. Two kinds fit:

- a *network* provider (`transactional = False`) speaks to a server. It is called with no transaction open.
- a *transactional* provider (`transactional = True`) writes rows. It is called inside the transaction that
  also records the outcomes, so that message and outcome are committed together or not at all. It lets
  database errors through: the rollback takes the message back.
"""

from __future__ import annotations

import abc
import enum
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, NamedTuple, Self

from django.core.exceptions import ImproperlyConfigured

# Seconds that a provider takes to connect and to be answered, unless it is made with others. Together with the permit
# they stay well below a claim's lease.
CONNECT_S, READ_S = 3.0, 10.0
DETAIL_LENGTH = 200
MAX_RETRY_AFTER = 86_400.0  # seconds: a provider's slip must not put a delivery off for years
_READ = 10 * DETAIL_LENGTH  # characters of a provider's words that are looked at
_LAST_WORD = re.compile(r"(?<=\s)\S+\Z")
_ADDRESS = re.compile(r"[^\s<>\"'(),:;]+@[^\s<>\"'(),:;]+")


class Verdict(enum.Enum):
    """What the provider's answer means for the delivery; `delivery.retry` decides what follows from it."""

    SENT = "sent"
    TRANSIENT = "transient"  # definitely not accepted, may be tried again; uses up an attempt
    PERMANENT = "permanent"  # will be refused as often as it is tried
    THROTTLED = "throttled"  # slow down: deferred, not an attempt
    MISCONFIGURED = "misconfigured"  # the account's fault, not the message's: keep the rows, raise the alarm
    UNKNOWN = "unknown"  # may have been accepted: never blindly again
    NOT_STARTED = "not_started"  # not a byte was written: hand the rows back


class Target(NamedTuple):
    """A device of the recipient's that push still has to reach."""

    device_id: int
    platform: str  # android, ios, web
    token: str


def run_of(schedule_id: int, occurrence_at: datetime) -> str:
    """An occurrence's name that a restored database gives it again, as its id is not: `17-1795341600000000`."""
    return f"{schedule_id}-{round(occurrence_at.timestamp() * 1_000_000)}"


class Message(NamedTuple):
    """One rendered message for one recipient; a part that the template lacks is the empty string."""

    key: str  # the delivery's id, day-occurrence-recipient: "20261121-17-4711"
    recipient_id: int
    to: str  # the channel's address; empty where the recipient's id is the address, or where it is `targets`
    subject: str
    text: str
    html: str = ""
    data: Mapping[str, Any] | None = None
    targets: tuple[Target, ...] = ()  # of push
    # Where one POST ends what an e-mail belongs to (RFC 8058); empty where nobody can unsubscribe from it.
    unsubscribe_url: str = ""
    # What the occurrence is known by in whichever database: `run_of` of its schedule and instant.
    run: str = ""

    @property
    def occurrence_id(self) -> int:
        return int(self.key.split("-")[1])


class Answer(NamedTuple):
    """What became of the message with the same key."""

    key: str
    verdict: Verdict
    reason: str = ""  # a slug, empty when sent
    provider_id: str = ""
    detail: str = ""  # the provider's own words; `Provider.send` masks the addresses in them
    retry_after: float | None = None  # seconds, where the provider named them
    reached: tuple[int, ...] = ()  # devices that have the message, whatever became of the others
    gone: tuple[int, ...] = ()  # devices that the provider does not know any more
    asked: bool = True  # false where nothing left the house: it says nothing about the provider
    may_have_arrived: bool = False  # an error after which the message may have been delivered all the same


class ProviderError(Exception):
    """One verdict for all messages of a call."""

    def __init__(
        self,
        verdict: Verdict,
        reason: str,
        *,
        detail: str = "",
        retry_after: float | None = None,
        asked: bool = True,
    ) -> None:
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after
        self.asked = asked

    def answer(self, message: Message) -> Answer:
        return Answer(message.key, self.verdict, self.reason, "", self.detail, self.retry_after, asked=self.asked)


class NotStarted(ProviderError):
    """The permit had run out before anything was written."""

    def __init__(self) -> None:
        super().__init__(Verdict.NOT_STARTED, "permit_expired", asked=False)


class Permit:
    """Leave to *start* a provider call, until an instant of `time.monotonic()`.

    It carries the promise that no call starts later than a few seconds after a pause has committed: the state
    was read at the claim, so the time between claim and first byte is bounded.
    """

    __slots__ = ("deadline",)

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline

    @classmethod
    def lasting(cls, seconds: float) -> Permit:
        return cls(time.monotonic() + seconds)

    def is_valid(self) -> bool:
        return time.monotonic() < self.deadline

    def left(self) -> float:
        """Seconds; none or fewer when it has run out."""
        return self.deadline - time.monotonic()

    def check(self) -> None:
        """Raise NotStarted when the permit has run out; called right before the first byte is written."""
        if not self.is_valid():
            raise NotStarted


class Quota(NamedTuple):
    """What a provider's account lets through: people a second, and in any 24 hours, of whom so many are ``used``.

    None: as many as one likes.
    """

    per_s: float | None = None
    per_day: int | None = None
    used: int = 0


class Provider(abc.ABC):
    """A way out. Instances are shared by the threads of a process: `_call` keeps no state on self."""

    name: ClassVar[str]
    channels: ClassVar[frozenset[str]]
    max_per_call: ClassVar[int]
    transactional: ClassVar[bool] = False
    # Whether a call of unknown outcome may be made again, since a repeat replaces the first message or undoes nothing.
    repeats_unknown: ClassVar[bool] = False
    # Whether its account allows so much and no more, which `quota` tells.
    has_quota: ClassVar[bool] = False

    @classmethod
    def from_settings(cls) -> Self:
        """Made from Django's settings; raises ImproperlyConfigured. Connecting waits for the first call."""
        return cls()

    def _require(self, is_met: bool, fault: str, meaning: str) -> None:
        """Raise ImproperlyConfigured over a setting: ``EMAIL_FROM is empty``, and what it has to be."""
        if not is_met:
            raise ImproperlyConfigured(f"{fault}. The {self.name} provider needs it: {meaning}.")

    def send(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        """Send in one provider call; one answer per message, in the order of the messages.

        A call refused as a whole, for good, is halved until the message that spoils it stands alone. Whatever the
        provider says or fails to say is an answer, made fit for the ledger here, so that no provider can forget it.
        Raises only ValueError for more messages than `max_per_call`, what a bug raises, and, from a transactional
        provider, database errors.
        """
        if len(messages) > self.max_per_call:
            raise ValueError(f"{len(messages)} messages in one call of {self.name}: at most {self.max_per_call}")
        refused = {m.key: refusal._replace(asked=False) for m in messages if (refusal := self._refuse(m)) is not None}
        sendable = [m for m in messages if m.key not in refused] if refused else messages
        answers = self._answers(sendable, permit) if sendable else []
        answers = answers if not refused else _in_order(messages, [*answers, *refused.values()])
        return [_fit(answer) for answer in answers]

    def _answers(self, messages: Sequence[Message], permit: Permit) -> list[Answer]:
        try:
            permit.check()
            answers = self._call(messages, permit=permit)
        except ProviderError as error:
            if error.verdict is Verdict.PERMANENT and len(messages) > 1:  # one of them spoils it for the others
                middle = len(messages) // 2
                return [*self._answers(messages[:middle], permit), *self._answers(messages[middle:], permit)]
            return [error.answer(m) for m in messages]
        return _in_order(messages, answers)

    def _refuse(self, message: Message) -> Answer | None:
        """An answer for a message that must not take part in the call, e.g. one without an address."""
        return None

    def quota(self) -> Quota:
        """What the account allows, asked of the provider where it can be asked. Raises ProviderError."""
        return Quota()

    def kind(self, message: Message) -> str:
        """Messages of different kinds can't share a call; which they are is the provider's business."""
        return ""

    @abc.abstractmethod
    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        """One provider call. Checks the permit right before the first byte is written.

        Returns an answer for each message whose fate is known; those left out are unknown. Raises
        ProviderError where the same holds for all.
        """


def _in_order(messages: Sequence[Message], answers: Sequence[Answer]) -> list[Answer]:
    by_key = {a.key: a for a in answers}
    return [by_key.get(m.key) or Answer(m.key, Verdict.UNKNOWN, "no_answer") for m in messages]


def by_status(status: int) -> tuple[Verdict, str]:
    """The verdict and its reason that an HTTP status alone tells, where it is none of success."""
    if status == 429:
        return Verdict.THROTTLED, "throttled"
    if status in (401, 403):
        return Verdict.MISCONFIGURED, "access_denied"
    if status == 413:
        return Verdict.PERMANENT, "too_large"
    if status == 400:
        return Verdict.PERMANENT, "bad_request"
    if status >= 500 or status == 408:
        return Verdict.TRANSIENT, "provider_error"
    return Verdict.MISCONFIGURED, "unexpected_status"  # a redirect, a page: not the provider at all


def _fit(answer: Answer) -> Answer:
    """The answer as the ledger can hold it: one text that PostgreSQL refuses would cost the whole call its outcomes."""
    if answer.reason == answer.detail == "" and answer.retry_after is None and _is_plain(answer.provider_id):
        return answer  # nearly all of them
    return answer._replace(
        reason=_storable(answer.reason)[:DETAIL_LENGTH],
        provider_id=_storable(answer.provider_id)[:DETAIL_LENGTH],
        detail=scrub(answer.detail),
        retry_after=_bounded(answer.retry_after),
    )


def _is_plain(text: str) -> bool:
    return isinstance(text, str) and text.isascii() and text.isprintable() and len(text) <= DETAIL_LENGTH


def _storable(text: str | None) -> str:
    """What comes from outside need not be a text, nor one that PostgreSQL takes: no NUL, no half surrogate pairs."""
    given = "" if text is None else str(text)
    return given.replace("\x00", "").encode(errors="replace").decode()


def _bounded(seconds: float | None) -> float | None:
    if not isinstance(seconds, int | float):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER)  # NaN becomes 0


def scrub(text: str) -> str:
    """A provider's own words, fit for the ledger: addresses masked, one line, cut to DETAIL_LENGTH."""
    text = _storable(text)
    if len(text) > _READ:  # without the last word, which may be half an address
        text = _LAST_WORD.sub("", text[:_READ])
    return " ".join(_ADDRESS.sub("<address>", text).split())[:DETAIL_LENGTH]


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3), at most MAX_RETRY_AFTER; None where absent or unreadable.

    A date is measured against the answer's own Date header, so that no clock of ours takes part.
    Header names are expected in lower case.
    """
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(0.0, wait.total_seconds()), MAX_RETRY_AFTER)

"""Who is expected when: a reference of its own, which shares no code with the service and asks it nothing.

From a plain description of what was scheduled and of what was done to it, from the stubs' logs and from the ledger's
rows it says who is

lost      expected, and neither accepted by a provider nor accounted for by an outcome whose reason holds
doubled   accepted more than once; for push, under more than one collapse id
ghost     accepted and not expected: not meant, too early, over a cap, or later than five seconds after a pause,
          a cancellation, a deletion or an erasure; or sent while the ledger denies it
stuck     without an outcome when everything has drained; or accepted later than must be

Instants are aware datetimes. Zone data is the pinned package's.
"""

from __future__ import annotations

import hashlib
import zoneinfo
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

zoneinfo.reset_tzpath(to=())

# No provider call starts later than that after a pause, a cancel, a delete or an erasure has committed.
LAST_CALL = timedelta(seconds=5)
# Clocks of one machine agree to less than that; nothing may come earlier than its instant.
CLOCK = timedelta(milliseconds=50)
# Outcomes without which nobody has been accounted for.
OPEN = frozenset({"pending", "sending", "unknown"})
UNCLEAR = "outcome_unknown"
# Whether it sends from then on.
_SENDS = {"pause": False, "stop": False, "cancel": False, "delete": False, "resume": True, "go": True}
_AFTER_CHANGE, _AFTER_ERASURE = "s after the next change", "erased before"


@dataclass(frozen=True)
class Person:
    """``zone`` as in the profile, valid or not; ``refuses``: channels opted out of."""

    name: str
    groups: frozenset[str]
    zone: str = ""
    email: str = ""
    tokens: tuple[str, ...] = ()
    refuses: frozenset[str] = frozenset()

    def is_reachable(self, channel: str) -> bool:
        has_address = {"email": bool(self.email), "push": bool(self.tokens), "in_app": True}[channel]
        return has_address and channel not in self.refuses


@dataclass(frozen=True)
class Span:
    """What holds of a schedule from one change to the next.

    The change was asked for at ``begun`` and committed by ``done``. ``at`` is the instant, or in local mode the time on
    everyone's wall, written as if in UTC. ``words`` begin the message and are no other schedule's.
    """

    begun: datetime
    done: datetime
    group: str
    at: datetime
    words: str
    sends: bool = True


@dataclass
class Schedule:
    name: str
    channel: str
    spans: list[Span]
    local: bool = False
    zone: str = "UTC"
    on_past: str = "skip"
    per_day: int | None = None
    per_week: int | None = None
    counts: bool = True
    # How much longer ago than it was the ledger was told that it had been sent.
    aged: timedelta = timedelta(0)
    # How late a message may be accepted, where that is shown.
    within: timedelta | None = None
    # People whom the provider was told to refuse for ever.
    refused: frozenset[str] = frozenset()
    # What was done to it, by name: pause, resume, stop, go, edit, cancel, delete.
    done: set[str] = field(default_factory=set)

    def change(self, kind: str, *, begun: datetime, done: datetime, **what: Any) -> None:
        sends = _SENDS.get(kind, self.spans[-1].sends)
        self.spans.append(replace(self.spans[-1], begun=begun, done=done, sends=sends, **what))
        self.done.add(kind)

    @property
    def is_ended(self) -> bool:
        return bool(self.done & {"cancel", "delete"})

    def due(self, span: Span, person: Person) -> datetime:
        """A gap moves on by its length, an overlap is taken the first time: what ``fold=0`` means (PEP 495)."""
        if not self.local:
            return span.at
        zone = _zone(person.zone) or _zone(self.zone)
        assert zone is not None
        return span.at.replace(tzinfo=zone, fold=0).astimezone(UTC)

    def is_past(self, span: Span, person: Person) -> bool:
        """The hour had passed where the person is, when the schedule was made."""
        return self.local and self.due(span, person) < span.begun


@dataclass
class Plan:
    """What was scheduled. ``unclear``: how many people may end as unclear, by calls that were cut off.

    ``doubtful`` are people who may do so besides: their provider was told not to answer for them. ``latency``: the
    longest that a stub was told to think before it accepts. ``barred``: from when on somebody's address is written to
    no more, since it has given something back.
    """

    people: dict[str, Person] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    erased: dict[str, datetime] = field(default_factory=dict)
    unclear: int = 0
    doubtful: set[str] = field(default_factory=set)
    latency: timedelta = timedelta(0)
    barred: dict[str, datetime] = field(default_factory=dict)


class Accepted(NamedTuple):
    """A message that a provider took. ``to``: address, token or, in the app, the person; ``digest`` of its text."""

    at: datetime
    channel: str
    to: str
    words: str
    collapse: str = ""
    digest: str = ""


class Row(NamedTuple):
    """What the ledger says of a person in a schedule."""

    schedule: str
    person: str
    state: str
    reason: str


@dataclass
class Verdict:
    """Each with whom and why. ``repeated``: push repeats under the same collapse id, which is within the promise."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    ghost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    repeated: int = 0
    # Of the ghosts those that came too late after a pause, a stop, a cancellation, a deletion, an edit or an erasure.
    late: int = 0
    unclear: int = 0
    expected: int = 0
    accepted: int = 0

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.ghost or self.stuck)


def text_of(words: str, name: str) -> str:
    """The text that a message must have, so that one with another's content is noticed."""
    return f"{words} for {name}"


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def judge(plan: Plan, accepted: Iterable[Accepted], rows: Iterable[Row], *, unsettled: Sequence[str] = ()) -> Verdict:
    """``unsettled``: occurrences that are not closed, books that don't close, in words."""
    verdict = Verdict(stuck=list(unsettled))
    received = _received(plan, accepted, verdict)
    ledger = {(row.schedule, row.person): row for row in rows}
    used: dict[str, list[timedelta]] = defaultdict(list)
    for (schedule, person), messages in received.items():
        if plan.schedules[schedule].counts:
            used[person] += [plan.schedules[schedule].aged for _ in messages]
        _judge_copies(schedule, person, messages, verdict)
    unclear = Counter(row.person for row in ledger.values() if row.reason == UNCLEAR)
    for schedule in plan.schedules.values():
        for person in plan.people.values():
            messages = received.get((schedule.name, person.name), [])
            row = ledger.pop((schedule.name, person.name), None)
            is_expected = _is_expected(plan, schedule, person)
            verdict.expected += is_expected
            in_doubt = unclear[person.name] - bool(row and row.reason == UNCLEAR)
            taken = [*used[person.name], *[timedelta(0)] * in_doubt]
            why = _judge_row(plan, schedule, person, row, messages, taken=taken)
            kind, _, words = why.partition(": ")
            if why and (is_expected or kind != "lost" or (row and row.state == "sent")):
                getattr(verdict, kind).append(f"{schedule.name} to {person.name}: {words}")
    verdict.ghost += [f"{name} has a row for {person}, who is not of it" for name, person in ledger]
    _judge_unclear(plan, unclear, verdict)
    _judge_caps(plan, received, verdict)
    return verdict


def _received(plan: Plan, accepted: Iterable[Accepted], verdict: Verdict) -> dict[tuple[str, str], list[Accepted]]:
    """Messages by schedule and person; those that may not be are ghosts."""
    by_words = {span.words: schedule for schedule in plan.schedules.values() for span in schedule.spans}
    by_address = {
        address: person
        for person in plan.people.values()
        for address in (person.name, person.email, *person.tokens)
        if address
    }
    received: dict[tuple[str, str], list[Accepted]] = defaultdict(list)
    for message in accepted:
        schedule, person = by_words.get(message.words), by_address.get(message.to)
        if schedule is None or person is None:
            if schedule or person:
                verdict.ghost.append(f"{message.words!r} to {message.to}: nobody scheduled that")
            continue
        verdict.accepted += 1
        received[schedule.name, person.name].append(message)
        if why := _why_not(plan, schedule, person, message):
            verdict.ghost.append(f"{schedule.name} to {person.name} at {message.at:%H:%M:%S.%f}: {why}")
            verdict.late += _AFTER_CHANGE in why or why == _AFTER_ERASURE
        late = message.at - schedule.due(schedule.spans[-1], person)
        if schedule.within is not None and late > schedule.within:
            verdict.stuck.append(f"{schedule.name} to {person.name}: {late.total_seconds():.1f} s late")
    return received


def _why_not(plan: Plan, schedule: Schedule, person: Person, message: Accepted) -> str:
    """Why the message must not have been accepted; empty where all is well."""
    if message.channel != schedule.channel or not person.is_reachable(schedule.channel):
        return f"by {message.channel}, where the person is not to be reached"
    if message.digest and message.digest != digest_of(text_of(message.words, person.name)):
        return "another text than this person's"
    last_call = LAST_CALL + plan.latency
    if why := _is_over(plan, person, message):
        return why
    follow = [*(span.done for span in schedule.spans[1:]), None]
    reasons = []
    for span, ended in zip(schedule.spans, follow, strict=True):
        if span.words != message.words:
            continue
        if not span.sends:
            reasons.append("the schedule did not run")
        elif person.name not in plan.people or span.group not in person.groups:
            reasons.append(f"not in {span.group}")
        elif message.at < span.begun:
            reasons.append("before it was asked for")
        elif ended and message.at > ended + last_call:
            reasons.append(f"{(message.at - ended).total_seconds():.1f} {_AFTER_CHANGE}")
        elif message.at < schedule.due(span, person) - CLOCK:
            reasons.append(f"before {schedule.due(span, person):%H:%M:%S.%f}")
        elif schedule.is_past(span, person) and schedule.on_past == "skip":
            reasons.append("the hour had passed where the person is")
        else:
            return ""
    return "; ".join(reasons)


def _is_over(plan: Plan, person: Person, message: Accepted) -> str:
    """Why nothing goes to the person any more by then, whatever it is."""
    if person.name in plan.erased and message.at > plan.erased[person.name] + LAST_CALL + plan.latency:
        return _AFTER_ERASURE
    if message.channel == "email" and person.name in plan.barred and message.at > plan.barred[person.name]:
        return "the address had given something back"
    return ""


def _judge_copies(schedule: str, person: str, messages: Sequence[Accepted], verdict: Verdict) -> None:
    """A person may have several devices; the same message to one of them counts as a copy."""
    for address, copies in Counter(message.to for message in messages).items():
        collapse = {message.collapse for message in messages if message.to == address}
        if copies == 1:
            continue
        if messages[0].channel == "push" and len(collapse) == 1 and collapse != {""}:
            verdict.repeated += copies - 1
        else:
            verdict.doubled.append(f"{schedule} to {person}: {copies} times to {address}")


def _is_expected(plan: Plan, schedule: Schedule, person: Person) -> bool:
    last = schedule.spans[-1]
    return (
        last.sends
        and last.group in person.groups
        and person.is_reachable(schedule.channel)
        and person.name not in plan.erased
        and not (schedule.is_past(last, person) and schedule.on_past == "skip")
    )


def _judge_row(
    plan: Plan,
    schedule: Schedule,
    person: Person,
    row: Row | None,
    messages: Sequence[Accepted],
    *,
    taken: Sequence[timedelta],
) -> str:
    """Empty where row and messages agree with what was planned, else ``kind: why``.

    ``taken``: of each message that counts toward the person's caps, how much longer ago it was than the run.
    """
    if row is None:
        return "ghost: accepted, and the ledger has no row" if messages else "lost: no row"
    if row.state in OPEN:
        return f"stuck: {row.state} {row.reason}"
    if messages:
        is_told = row.state == "sent" or row.reason == UNCLEAR
        return "" if is_told else f"ghost: accepted, but the ledger says {row.state} {row.reason}"
    if row.state == "sent":
        return "lost: sent by the ledger, accepted by nobody"
    if not row.reason:
        return f"lost: {row.state} without a reason"
    holds = {
        "failed": row.reason == UNCLEAR or person.name in schedule.refused,
        "rate_limited": _is_used_up(schedule, taken),
        "suppressed": schedule.channel in person.refuses
        or (schedule.channel == "email" and person.name in plan.barred),
        "unaddressable": not person.is_reachable(schedule.channel),
        "cancelled": schedule.is_ended or ("edit" in schedule.done and schedule.spans[-1].group not in person.groups),
        "erased": person.name in plan.erased,
        "expired": schedule.is_past(schedule.spans[-1], person) and schedule.on_past == "skip",
    }
    return "" if holds[row.state] else f"lost: {row.state} {row.reason}, which does not hold"


_WINDOWS = (("per_day", timedelta(days=1)), ("per_week", timedelta(days=7)))


def _is_used_up(schedule: Schedule, taken: Sequence[timedelta]) -> bool:
    """Messages accepted or in doubt reach one of the limits; all of a run lie within an hour."""
    return any(
        limit is not None and sum(age < window for age in taken) >= limit
        for limit, window in ((getattr(schedule, name), window) for name, window in _WINDOWS)
    )


def _judge_unclear(plan: Plan, unclear: Mapping[str, int], verdict: Verdict) -> None:
    verdict.unclear = sum(unclear.values())
    cut_off = sum(count for person, count in unclear.items() if person not in plan.doubtful)
    if cut_off > plan.unclear:
        verdict.lost.append(f"{cut_off} people are unclear by calls that were cut off, {plan.unclear} may be")


def _judge_caps(plan: Plan, received: dict[tuple[str, str], list[Accepted]], verdict: Verdict) -> None:
    """Rolling windows, counted by what the providers took. A copy of a message counts once: it used one place."""
    counted: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for (name, person), messages in received.items():
        if plan.schedules[name].counts:
            counted[person].append((messages[0].at - plan.schedules[name].aged, name))
    for person, taken in counted.items():
        for limit_name, window in _WINDOWS:
            limits = [limit for _, name in taken if (limit := getattr(plan.schedules[name], limit_name)) is not None]
            most = max((sum(at - window < other <= at for other, _ in taken) for at, _ in taken), default=0)
            # All schedules to one person have the same limit: which of two messages was first claimed can't be seen.
            if limits and most > max(limits):
                verdict.ghost.append(f"{person}: {most} messages {limit_name.replace('_', ' ')}, {max(limits)} allowed")


@cache
def _zone(name: str) -> zoneinfo.ZoneInfo | None:
    try:
        return zoneinfo.ZoneInfo(name) if name else None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None

"""A timing told to people: one sentence, and notes on firings that a clock change touches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from schedules.problems import say
from schedules.recurrence.crons import Cron, parse, sentence
from schedules.recurrence.timing import Firing, Timing
from schedules.recurrence.zones import ZONE_NAMES, due_instant, offset_after, offset_at, offset_before, zone

OWN_CLOCK = "on each recipient's own clock"

NoteKind = Literal["moved", "merged", "first_of_two", "second_of_two", "skipped"]


@dataclass(frozen=True, slots=True)
class Note:
    """What a clock change does to one firing.

    moved          its wall time falls into a gap, so it fires later by the gap's length
    merged         as moved, and it meets another firing: the two are one
    first_of_two   its wall time occurs twice and it fires at the first
    second_of_two  its wall time occurs twice, it is an elapsed cron, and this is the second
    skipped        wall times of an elapsed cron that a gap swallows before this firing

    `zones` are those concerned: the timing's own, or in user-local mode all whose people are touched.
    """

    occurrence_at: datetime
    kind: NoteKind
    zones: tuple[str, ...]
    message: str


def describe(timing: Timing) -> str:
    """The timing as an English sentence without full stop: "At 09:00 on Monday, Europe/Berlin".

    Raises `InvalidTiming` for a cron or a zone that cannot be read, `ValueError` for a one-off without
    `run_at`.
    """
    if timing.schedule_type == "once":
        if timing.run_at is None:
            raise ValueError("a one-off without run_at can't be described")
        return f"Once, on {_moment(timing.run_at, timing, joint=' at ')}"
    where = OWN_CLOCK if timing.mode == "user_local" else zone(timing.time_zone).key
    return "".join([f"{sentence(timing.cron)}, {where}", *_limits(timing)])


def notes(timing: Timing, firings: Sequence[Firing]) -> list[Note]:
    """What clock changes do to `firings`, which are consecutive and of this timing; in their order.

    A one-off in fixed mode is an instant, so nothing moves it.
    """
    if timing.mode == "user_local":
        return [note for firing in firings for note in _user_local_notes(firing)]
    if timing.schedule_type == "once":
        return []
    cron, place = parse(timing.cron), zone(timing.time_zone)
    if not cron.elapsed:
        return [note for firing in firings for note in _fixed_notes(cron, place, firing)]
    earlier: Iterable[Firing | None] = [None, *firings]
    return [
        note
        for before, firing in zip(earlier, firings, strict=False)
        for note in _elapsed_notes(cron, place, before, firing)
    ]


def _limits(timing: Timing) -> Iterator[str]:
    if timing.starts_at is not None:
        yield f", from {_moment(timing.starts_at, timing)}"
    if timing.ends_at is not None:
        yield f", until {_moment(timing.ends_at, timing)}"
    if timing.max_runs is not None:
        yield ", once only" if timing.max_runs == 1 else f", {timing.max_runs} times at most"


def _moment(moment: datetime, timing: Timing, *, joint: str = " ") -> str:
    """A date and time with zone and offset, or with the words that stand for them in user-local mode."""
    if timing.mode == "user_local":
        return f"{_reading(moment.astimezone(UTC), joint=joint)} {OWN_CLOCK}"
    local = moment.astimezone(zone(timing.time_zone))
    place = "" if timing.time_zone == "UTC" else f"{timing.time_zone}, "
    return f"{_reading(local, joint=joint)} ({place}{_offset(local)})"


def _reading(local: datetime, *, joint: str = " ") -> str:
    seconds = ":%S" if local.second else ""
    return local.strftime(f"%Y-%m-%d{joint}%H:%M{seconds}")


def _offset(local: datetime) -> str:
    return "UTC" + local.isoformat(timespec="microseconds")[26:]


def _fixed_notes(cron: Cron, place: ZoneInfo, firing: Firing) -> Iterator[Note]:
    local = firing.occurrence_at.astimezone(place)
    reading = local.replace(tzinfo=None, fold=0)
    meant = _moved_from(firing.occurrence_at, place)
    if meant is not None and cron.matches(meant):
        met = cron.matches(reading)
        outcome = (
            say("is the firing of that time too")
            if met
            else say("fires at %(reading)s instead", reading=f"{reading:%H:%M}")
        )
        message = say(
            "The clock skips %(reading)s: it %(outcome)s (%(offset)s).",
            reading=_reading(meant),
            outcome=outcome,
            offset=_offset(local),
        )
        yield _note(firing, "merged" if met else "moved", place, message)
    if offset_before(reading, place) > offset_after(reading, place):
        message = say(
            "The clock shows %(reading)s twice: it fires at the first (%(offset)s).",
            reading=_reading(reading),
            offset=_offset(local),
        )
        yield _note(firing, "first_of_two", place, message)


def _moved_from(instant: datetime, place: ZoneInfo) -> datetime | None:
    """The wall time in a gap that maps to `instant`, if there is one."""
    change = offset_at(instant, place) - offset_at(instant - timedelta(days=1), place)
    if change <= timedelta(0):
        return None
    wall = instant.astimezone(place).replace(tzinfo=None, fold=0) - change
    in_gap = offset_before(wall, place) < offset_after(wall, place)
    return wall if in_gap and due_instant(wall, place.key) == instant else None


def _elapsed_notes(cron: Cron, place: ZoneInfo, before: Firing | None, firing: Firing) -> Iterator[Note]:
    local = firing.occurrence_at.astimezone(place)
    reading = local.replace(tzinfo=None, fold=0)
    if before is not None:
        yield from _skipped(cron, place, before, firing)
    if offset_before(reading, place) > offset_after(reading, place):
        kind: NoteKind = "second_of_two" if local.fold else "first_of_two"
        shown = {"reading": _reading(reading), "offset": _offset(local)}
        if local.fold:
            message = say("The clock shows %(reading)s twice: this is the second (%(offset)s).", **shown)
        else:
            message = say("The clock shows %(reading)s twice: this is the first (%(offset)s).", **shown)
        yield _note(firing, kind, place, message)


def _skipped(cron: Cron, place: ZoneInfo, before: Firing, firing: Firing) -> Iterator[Note]:
    start = before.occurrence_at.astimezone(place).replace(tzinfo=None, fold=0)
    end = firing.occurrence_at.astimezone(place).replace(tzinfo=None, fold=0)
    walls: list[datetime] = []
    for wall in cron.walls(after=start):
        if wall >= end:
            break
        if offset_before(wall, place) < offset_after(wall, place):
            walls.append(wall)
    if walls:
        times = (
            _reading(walls[0])
            if len(walls) == 1
            else say("%(first)s to %(last)s", first=_reading(walls[0]), last=f"{walls[-1]:%H:%M}")
        )
        yield _note(firing, "skipped", place, say("The clock skips %(times)s: nothing fires then.", times=times))


def _user_local_notes(firing: Firing) -> Iterator[Note]:
    wall = firing.occurrence_at.replace(tzinfo=None)
    moved, doubled = [], []
    for name in sorted(ZONE_NAMES):
        before, behind = offset_before(wall, zone(name)), offset_after(wall, zone(name))
        if before < behind:
            moved.append(name)
        elif before > behind:
            doubled.append(name)
    if moved:
        message = say(
            "The clock skips %(reading)s in %(zones)s: people there get it that much later.",
            reading=_reading(wall),
            zones=_some(moved),
        )
        yield Note(firing.occurrence_at, "moved", tuple(moved), message)
    if doubled:
        message = say(
            "The clock shows %(reading)s twice in %(zones)s: people there get it at the first.",
            reading=_reading(wall),
            zones=_some(doubled),
        )
        yield Note(firing.occurrence_at, "first_of_two", tuple(doubled), message)


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else say("%(number)s zones such as %(name)s", number=len(names), name=names[0])


def _note(firing: Firing, kind: NoteKind, place: ZoneInfo, message: str) -> Note:
    return Note(firing.occurrence_at, kind, (place.key,), message)

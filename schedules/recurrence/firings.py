"""Which firings a timing has, in order. Pure: whoever asks brings the instant.

docs/adr/0004-time-rules.md gives the rules and what was measured.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from schedules.recurrence.crons import Cron, parse
from schedules.recurrence.misfire import MISFIRE_GRACE
from schedules.recurrence.timing import YEARS, Firing, Timing, firing_at
from schedules.recurrence.zones import offset_after, offset_at, offset_before, zone

_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)


def next_firing(timing: Timing, *, after: datetime | None, runs: int = 0) -> Firing | None:
    """The first firing whose `occurrence_at` is strictly past `after`, itself an `occurrence_at`.

    `after=None` means from the beginning, which only a one-off and a cron with `starts_at` have; any other
    cron raises `ValueError` (ask `first_firing`). `runs` is how many firings were opened already. None when
    none is left: the one-off was opened, `ends_at` or `max_runs` is reached, or the cron (or the calendar,
    `YEARS`) ends.
    Raises `InvalidTiming` for a cron or zone that cannot be read.
    """
    if timing.schedule_type == "once":
        return _only_firing(timing, after=after, runs=runs)
    if timing.max_runs is not None and runs >= timing.max_runs:
        return None
    occurrence_at = _next_occurrence_at(timing, _later(after, timing.starts_at))
    if occurrence_at is None or (timing.ends_at is not None and occurrence_at > timing.ends_at):
        return None
    return firing_at(occurrence_at, timing.mode)


def first_firing(
    timing: Timing,
    *,
    now: datetime,
    runs: int = 0,
    grace: timedelta = MISFIRE_GRACE,
    after: datetime | None = None,
) -> Firing | None:
    """The first firing that may still be opened at `now`: for creation, edit and resume.

    A cron's firing counts while its last wave is ahead (`closes_at > now`), so nothing is replayed; in
    user-local mode the one under way counts, for the zones that still lie ahead. A one-off is no replay:
    it counts until `closes_at + grace`. Pass the last opened `occurrence_at` as `after`, or a user-local
    firing that is open already is given again.
    """
    if timing.schedule_type == "once":
        firing = next_firing(timing, after=after, runs=runs)
        return firing if firing is not None and now <= firing.closes_at + grace else None
    # closes_at lies a constant away from occurrence_at, so the bound on one is a bound on the other.
    probe = firing_at(now, timing.mode)
    past = now - (probe.closes_at - probe.occurrence_at)
    return next_firing(timing, after=past if after is None else max(after, past), runs=runs)


def next_runs(
    timing: Timing, *, now: datetime, count: int, runs: int = 0, after: datetime | None = None
) -> list[Firing]:
    """Up to `count` firings that lie ahead of `now`, in order: `first_firing` and those that follow it."""
    firings: list[Firing] = []
    firing = first_firing(timing, now=now, runs=runs, grace=timedelta(0), after=after)
    while firing is not None and len(firings) < count:
        firings.append(firing)
        firing = next_firing(timing, after=firing.occurrence_at, runs=runs + len(firings))
    return firings


def _only_firing(timing: Timing, *, after: datetime | None, runs: int) -> Firing | None:
    if timing.run_at is None or runs > 0 or (after is not None and timing.run_at <= after):
        return None
    return firing_at(timing.run_at, timing.mode)


def _later(after: datetime | None, starts_at: datetime | None) -> datetime:
    if starts_at is None:
        if after is None:
            raise ValueError("a cron without starts_at has no beginning: pass after, or ask first_firing")
        return after
    beginning = starts_at - _TICK  # starts_at is inclusive, after is not
    return beginning if after is None else max(after, beginning)


def _next_occurrence_at(timing: Timing, after: datetime) -> datetime | None:
    if after.year not in YEARS:
        return None
    cron = parse(timing.cron)
    if timing.mode == "fixed":
        return _next_instant(cron, zone(timing.time_zone), after)
    wall = next(cron.walls(after=after.astimezone(UTC).replace(tzinfo=None)), None)
    return None if wall is None else wall.replace(tzinfo=UTC)


def _next_instant(cron: Cron, place: ZoneInfo, after: datetime) -> datetime | None:
    """The least instant past `after` that one of the cron's wall times maps to.

    Around a change of the clock wall times and instants don't run in the same order: a wall time that was
    moved out of a gap lies after others that follow it on the clock. So the search starts early enough
    and goes on until no later wall time can come before the best instant so far.
    """
    start = after.astimezone(place).replace(tzinfo=None) - _rewind(after, place)
    best: datetime | None = None
    for wall in cron.walls(after=start):
        before, behind = offset_before(wall, place), offset_after(wall, place)
        first = (wall - before).replace(tzinfo=UTC)
        for instant in _instants(cron, wall, before, behind):
            if instant > after and (best is None or instant < best):
                best = instant
        in_gap = before < behind
        if best is not None and not in_gap and first >= best:
            break
    return best


def _instants(cron: Cron, wall: datetime, before: timedelta, behind: timedelta) -> tuple[datetime, ...]:
    first = (wall - before).replace(tzinfo=UTC)
    if not cron.elapsed or before == behind:
        return (first,)
    if before < behind:  # the clock never shows it, and an elapsed cron has nothing to make up for
        return ()
    return (first, (wall - behind).replace(tzinfo=UTC))


def _rewind(after: datetime, place: ZoneInfo) -> timedelta:
    """How far wall times at or before the reading of `after` can map to instants past it.

    That is the length of a change of the clock that `after` is within the reach of: just past a gap, whose
    moved wall times may be due yet, or in the first pass of an overlap, which will be repeated.
    """
    here = offset_at(after, place)
    change = max(here - offset_at(after - _DAY, place), here - offset_at(after + _DAY, place))
    if change <= timedelta(0):
        return timedelta(0)
    within = offset_at(after - change, place) != here or offset_at(after + change, place) != here
    return change if within else timedelta(0)

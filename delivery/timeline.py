"""The last hour, day, week and month in stretches as a clock on the wall cuts them, and the figures of each.

Hours and days are those of a zone: where its clocks change, a day has 23 or 25 hours, and an hour that comes twice is
two stretches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from delivery import figures
from delivery.figures import Figures, Late, Sum, Why, step_ends_s
from schedules.recurrence import zone


class Window(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True)
class Stretch:
    """From ``begins`` up to ``ends``; the last of a window has not ended yet."""

    begins: datetime
    ends: datetime


@dataclass(frozen=True)
class Percentiles:
    """Seconds by which first calls were late, as good as the steps of ``figures`` allow: within a tenth or so."""

    channel: str
    people: int
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Timeline:
    """What was settled in the window, by stretch; equal to the ledger's rows, but for ``behind`` batches."""

    stretches: Sequence[Stretch]
    sums: Sequence[Sum]
    reasons: Sequence[Why]
    lateness: Sequence[Percentiles]
    behind: int


def read(window: Window, *, zone_name: str, now: datetime) -> Timeline:
    """What was settled from the beginning of ``window`` until now."""
    cut = stretches(window, zone_name=zone_name, now=now)
    found: Figures = figures.read(starts=[each.begins for each in cut], until=cut[-1].ends)
    return Timeline(cut, found.sums, found.reasons, percentiles(found.lateness), found.behind)


# How many stretches, the grain at which they begin everywhere, and what the instants of one have in common on the
# zone's clock.
_CUTS: Mapping[Window, tuple[int, timedelta, Callable[[datetime], Any]]] = {
    Window.HOUR: (12, figures.SLOT, lambda local: local.timestamp()),
    Window.DAY: (24, figures.QUARTER, lambda local: (local.date(), local.hour, local.utcoffset())),
    Window.WEEK: (7, figures.QUARTER, lambda local: local.date()),
    Window.MONTH: (30, figures.QUARTER, lambda local: local.date()),
}


def stretches(window: Window, *, zone_name: str, now: datetime) -> list[Stretch]:
    """The stretch that ``now`` lies in, and those before it; the earliest first."""
    count, step, key_of = _CUTS[window]
    clock = zone(zone_name)

    def key(at: datetime) -> Any:
        return key_of(at.astimezone(clock))

    at = end = now - (now - _EPOCH) % step
    while key(end) == key(at):
        end += step
    starts: list[datetime] = []
    here = key(at)
    while len(starts) < count:
        before = key(at - step)
        if before != here:
            starts.append(at)
        at, here = at - step, before
    starts.reverse()
    return [Stretch(begins, ends) for begins, ends in zip(starts, [*starts[1:], end], strict=True)]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def percentiles(lateness: Sequence[Late]) -> list[Percentiles]:
    """By channel, those of whom nobody was timed left out."""
    found = []
    for channel in dict.fromkeys(each.channel for each in lateness):
        steps = sorted((each.step, each.people) for each in lateness if each.channel == channel)
        people = sum(count for _step, count in steps)
        found.append(Percentiles(channel, people, *(_at(share, steps, people) for share in (0.5, 0.95, 0.99))))
    return found


def _at(share: float, steps: Sequence[tuple[int, int]], people: int) -> float:
    """The seconds below which ``share`` of the people lie, taken to be spread evenly over their step."""
    wanted, below = share * people, 0
    for step, count in steps:
        if below + count >= wanted:
            begins, ends = step_ends_s(step - 1), step_ends_s(step)
            return begins + (ends - begins) * (wanted - below) / count
        below += count
    return step_ends_s(steps[-1][0])


def by_stretch(timeline: Timeline, channel: str) -> Iterator[tuple[Stretch, Mapping[int, int]]]:
    """Each stretch with its people by state, of one channel; of all where ``channel`` is empty."""
    counted: list[dict[int, int]] = [{} for _ in timeline.stretches]
    for each in timeline.sums:
        if channel in ("", each.channel):
            counted[each.stretch][each.state] = counted[each.stretch].get(each.state, 0) + each.people
    yield from zip(timeline.stretches, counted, strict=True)

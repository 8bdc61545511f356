"""What was sent and what will be, by day: runs that stand in the database, and those that schedules still have ahead.

Bounded whatever the number of schedules: of each stretch of time only so many rows are read, by the indexes on
``next_run_at`` and ``occurrence_at``, and where there were more, the answer says so. A one-off that was given another
time stands at the day it was first meant for.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

from django.db import connection

from schedules.models import ScheduleType, TimeZoneMode
from schedules.recurrence import Firing, InvalidTiming, Timing, firing_at, next_firing, zone
from schedules.recurrence.zones import EASTERNMOST, WESTERNMOST

_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)
# A cron that fires more often in a day is told once for it.
OFTEN = 4
# Firings worked out for one answer; a cron costs some 50 us for each.
_MOST_FIRINGS = 2_000
# Stretches of the time between now and the first day that is asked for.
_STRETCHES = 20

ZoneOf = Callable[[str], str]


@dataclass(frozen=True)
class Entry:
    """A run, or with ``occurrence_id`` None a firing ahead. ``at`` is when the first person is due.

    ``local`` is what the clock shows, in the zone asked for; with ``own_clock`` on each person's own. ``is_often``: it
    stands for ``OFTEN`` of that schedule's and more that day, the first at ``local``; ``times`` of them where they are
    counted. ``people`` of the run or runs; of a firing ahead those of the schedule's last run, None before the first.
    ``is_spread``: these are due at hours of their own, by their clock or by a window.
    """

    schedule_id: int
    name: str
    channel: str
    at: datetime
    local: datetime
    own_clock: bool
    occurrence_id: int | None = None
    state: str = ""
    people: int | None = None
    is_often: bool = False
    is_spread: bool = False
    times: int | None = None


@dataclass
class Day:
    """``entries`` by the clock; ``more`` are not told, and with ``is_cut`` there are more still."""

    date: date
    entries: list[Entry] = field(default_factory=list)
    more: int = 0
    is_cut: bool = False


class _Planned(NamedTuple):
    """An active schedule, as the calendar needs it."""

    schedule_id: int
    name: str
    channel: str
    schedule_type: str
    cron: str
    time_zone: str
    mode: str
    start_at: datetime | None
    end_at: datetime | None
    max_runs: int | None
    runs: int
    next_run_at: datetime
    next_occurrence_at: datetime
    has_window: bool

    @property
    def timing(self) -> Timing:
        return Timing(
            schedule_type="cron",
            mode=self.mode,  # type: ignore[arg-type]
            cron=self.cron,
            time_zone=self.time_zone,
            starts_at=self.start_at,
            ends_at=self.end_at,
            max_runs=self.max_runs,
        )


def days(*, first: date, count: int, shown: int, read: int, zone_of: ZoneOf, now: datetime) -> list[Day]:
    """``count`` days from ``first`` on, of each at most ``shown`` entries.

    ``zone_of`` gives the zone in which something of a schedule's zone is shown. Of each day at most ``read`` rows are
    read. Three statements.
    """
    start = datetime.combine(first, time.min, UTC) - _DAY
    end = start + (count + 2) * _DAY
    found = {first + timedelta(days=index): Day(first + timedelta(days=index)) for index in range(count)}
    runs, cut_runs = _runs(start, end, read=read, zone_of=zone_of)
    ahead, cut_ahead = _ahead(max(start, now), end, read=read, zone_of=zone_of, now=now)
    for entry in [*runs, *ahead]:
        if day := found.get(entry.local.date()):
            day.entries.append(entry)
    for day in found.values():
        entries = sorted(_summed_up(day.entries), key=lambda entry: (entry.local.time(), entry.name, entry.at))
        day.entries, day.more = entries[:shown], max(len(entries) - shown, 0)
        day.is_cut = any(begin.date() <= day.date <= (stop - _TICK).date() for begin, stop in [*cut_runs, *cut_ahead])
    last = _last_runs({entry.schedule_id for day in found.values() for entry in day.entries if not entry.state})
    for day in found.values():
        day.entries = [entry if entry.state else _expected(entry, last) for entry in day.entries]
    return list(found.values())


def _summed_up(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The runs of a schedule that has had many that day as one."""
    runs = Counter(entry.schedule_id for entry in entries if entry.state)
    many: dict[int, list[Entry]] = {pk: [] for pk, times in runs.items() if times >= OFTEN}
    for entry in entries:
        if entry.state and entry.schedule_id in many:
            many[entry.schedule_id].append(entry)
        else:
            yield entry
    for alike in many.values():
        people = sum(entry.people or 0 for entry in alike)
        first = min(alike, key=lambda entry: entry.at)
        yield replace(first, occurrence_id=None, people=people, is_often=True, times=len(alike))


def _expected(entry: Entry, last: dict[int, tuple[int, int]]) -> Entry:
    return replace(entry, people=last[entry.schedule_id][1]) if entry.schedule_id in last else entry


_Stretch = tuple[datetime, datetime]


_RUNS = """
SELECT s.number, o.id, o.state, o.targeted, o.at_once, o.occurrence_at, o.opens_at, c.id, c.name, c.channel,
       c.time_zone, c.time_zone_mode, c.send_window IS NOT NULL
FROM unnest(%(begins)s::timestamptz[], %(ends)s::timestamptz[]) WITH ORDINALITY AS s (begins, ends, number)
CROSS JOIN LATERAL (
    SELECT * FROM schedules_occurrence o WHERE o.occurrence_at >= s.begins AND o.occurrence_at < s.ends
    ORDER BY o.occurrence_at LIMIT %(limit)s
) o JOIN schedules_schedule c ON c.id = o.schedule_id
WHERE o.state <> 'waiting' AND NOT (o.state = 'cancelled' AND o.reason = 'edited' AND o.begun_at IS NULL)
"""


def _runs(start: datetime, end: datetime, *, read: int, zone_of: ZoneOf) -> tuple[list[Entry], list[_Stretch]]:
    stretches = _by_day(start, end)
    rows = _rows(_RUNS, stretches, limit=read + 1)
    found = []
    for _number, pk, state, targeted, at_once, occurrence_at, opens_at, *schedule in rows:
        schedule_id, name, channel, own_zone, mode, has_window = schedule
        own_clock = mode == TimeZoneMode.USER_LOCAL and not at_once
        local = _local(occurrence_at if own_clock else opens_at, own_clock, zone_of(own_zone))
        found.append(
            Entry(
                schedule_id,
                name,
                channel,
                opens_at,
                local,
                own_clock,
                pk,
                state,
                targeted,
                is_spread=own_clock or has_window,
            )
        )
    return found, _cut(stretches, [row[0] for row in rows], read)


_AHEAD = """
SELECT s.number, c.id, c.name, c.channel, c.schedule_type, c.cron, c.time_zone, c.time_zone_mode, c.start_at, c.end_at,
       c.max_runs, c.runs, c.next_run_at, c.next_occurrence_at, c.send_window IS NOT NULL
FROM unnest(%(begins)s::timestamptz[], %(ends)s::timestamptz[]) WITH ORDINALITY AS s (begins, ends, number)
CROSS JOIN LATERAL (
    SELECT * FROM schedules_schedule c
    WHERE c.status = 'active' AND c.next_run_at >= s.begins AND c.next_run_at < s.ends
    ORDER BY c.next_run_at LIMIT %(limit)s
) c
"""


def _ahead(
    start: datetime, end: datetime, *, read: int, zone_of: ZoneOf, now: datetime, often: int = OFTEN
) -> tuple[list[Entry], list[_Stretch]]:
    """A cron whose next run lies before ``start`` fires within the days all the same, so it is read from now on."""
    if end <= now:
        return [], []
    stretches = [*_until(min(start, end), now=now), *_by_day(start, end)]
    rows = _rows(_AHEAD, stretches, limit=read + 1)
    budget = _Budget(_MOST_FIRINGS, often)
    found = [entry for _number, *row in rows for entry in _told(_Planned(*row), start, end, zone_of, budget)]
    cut = _cut(stretches, [row[0] for row in rows], read)
    if budget.is_spent or any(begin < start for begin, _stop in cut):
        cut = [(start, end)]
    return found, cut


def _until(start: datetime, *, now: datetime) -> list[_Stretch]:
    """What is overdue by a tick or two belongs to now."""
    overdue = now - 7 * _DAY
    if start - now < _DAY:
        return [(overdue, start)]
    step = (start - now) / _STRETCHES
    return [(overdue, now), *((now + index * step, now + (index + 1) * step) for index in range(_STRETCHES))]


def _by_day(start: datetime, end: datetime) -> list[_Stretch]:
    found = []
    while start < end:
        stop = min(datetime.combine(start.date() + _DAY, time.min, UTC), end)
        found.append((start, stop))
        start = stop
    return found


def _rows(sql: str, stretches: Sequence[_Stretch], *, limit: int) -> list[tuple]:  # type: ignore[type-arg]
    begins, ends = zip(*stretches, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(sql, {"begins": list(begins), "ends": list(ends), "limit": limit})
        return list(cursor.fetchall())


def _cut(stretches: Sequence[_Stretch], numbers: Sequence[int], read: int) -> list[_Stretch]:
    """The stretches of which not every row was read."""
    return [stretches[number - 1] for number, rows in Counter(numbers).items() if rows > read]


@dataclass
class _Budget:
    """Firings that may still be worked out; ``often`` of a cron in a day are told as one."""

    left: int
    often: int

    @property
    def is_spent(self) -> bool:
        return self.left <= 0


def _told(planned: _Planned, start: datetime, end: datetime, zone_of: ZoneOf, budget: _Budget) -> Iterator[Entry]:
    own_clock = planned.mode == TimeZoneMode.USER_LOCAL
    name = zone_of(planned.time_zone)
    for firing, is_often in _firings(planned, start, end, budget):
        at = firing.occurrence_at
        yield Entry(
            planned.schedule_id,
            planned.name,
            planned.channel,
            firing.opens_at,
            _local(at if own_clock else firing.opens_at, own_clock, name),
            own_clock,
            is_often=is_often,
            is_spread=own_clock or planned.has_window,
        )


def _firings(planned: _Planned, start: datetime, end: datetime, budget: _Budget) -> Iterator[tuple[Firing, bool]]:
    """The firings that lie within, and whether each stands for a day of many."""
    first = Firing(planned.next_occurrence_at, planned.next_run_at, planned.next_run_at)
    if planned.schedule_type == ScheduleType.ONCE:
        if start - EASTERNMOST <= first.opens_at < end:
            yield first, False
        return
    timing, mode = planned.timing, planned.mode
    firing: Firing | None = firing_at(planned.next_occurrence_at, mode)  # type: ignore[arg-type]
    runs = planned.runs
    if firing and firing.occurrence_at < start and planned.max_runs is None:
        firing = _next(timing, start - _TICK, runs, budget)
    place = zone(planned.time_zone) if mode == TimeZoneMode.FIXED else UTC
    of_day: list[Firing] = []
    while firing and firing.occurrence_at < end and not budget.is_spent:
        day = firing.occurrence_at.astimezone(place).date()
        if of_day and of_day[0].occurrence_at.astimezone(place).date() != day:
            yield from ((each, False) for each in of_day)
            of_day = []
        of_day.append(firing)
        runs += 1
        if len(of_day) < budget.often:
            firing = _next(timing, firing.occurrence_at, runs, budget)
            continue
        yield of_day[0], True
        of_day = []
        tomorrow = datetime.combine(day + _DAY, time.min, place).astimezone(UTC)
        firing = _next(timing, max(tomorrow - _TICK, firing.occurrence_at), runs, budget)
    yield from ((each, False) for each in of_day)


def _next(timing: Timing, after: datetime, runs: int, budget: _Budget) -> Firing | None:
    budget.left -= 1
    try:
        return next_firing(timing, after=after, runs=runs)
    except (InvalidTiming, ValueError):  # the tick marks it broken when its time comes
        return None


def _local(at: datetime, own_clock: bool, zone_name: str) -> datetime:
    return at.astimezone(UTC if own_clock else zone(zone_name))


# --- The load of a day ------------------------------------------------------------------------------------------------


@dataclass
class Hour:
    """People due from ``at`` on for an hour: in runs that stand, and expected by the last run of what is ahead."""

    at: datetime
    people: int = 0
    expected: int = 0


@dataclass(frozen=True)
class Load:
    """``unknown``: schedules that run that day for the first time, so that nobody knows for how many."""

    hours: Sequence[Hour]
    unknown: int
    is_cut: bool


def load(*, day: date, zone_name: str, read: int, now: datetime) -> Load:
    """Of each hour of ``day`` in a zone: 23 to 25 of them. At most five statements."""
    place = zone(zone_name)
    start = datetime.combine(day, time.min, place).astimezone(UTC)
    end = datetime.combine(day + _DAY, time.min, place).astimezone(UTC)
    hours = [Hour(start + timedelta(hours=index)) for index in range(int((end - start).total_seconds() // 3600))]
    # What each person gets on his own clock is known by the wall time read as UTC, and lasts for 26 hours around it.
    early, late = start - EASTERNMOST + WESTERNMOST, end + EASTERNMOST
    runs, cut_runs = _runs(early, late, read=read, zone_of=lambda _own: zone_name)
    ahead, cut_ahead = _ahead(
        max(early, now), late, read=read, zone_of=lambda _own: zone_name, now=now, often=_MOST_FIRINGS
    )
    last = _last_runs({entry.schedule_id for entry in ahead})
    spread = _waves({entry.occurrence_id for entry in runs if entry.occurrence_id and entry.is_spread})
    spread |= _waves({last[entry.schedule_id][0] for entry in ahead if entry.is_spread and entry.schedule_id in last})
    for entry in runs:
        parts = spread.get(entry.occurrence_id or 0) if entry.is_spread else [(timedelta(0), entry.people or 0)]
        for later, people in parts or []:
            if hour := _hour(hours, entry.at + later):
                hour.people += people
    unknown = set()
    for entry in ahead:
        if entry.schedule_id not in last:
            if (early if entry.own_clock else start) <= entry.at < end:
                unknown.add(entry.schedule_id)
            continue
        run_id, targeted = last[entry.schedule_id]
        parts = spread.get(run_id, []) if entry.is_spread else [(timedelta(0), targeted)]
        for later, people in parts:
            if hour := _hour(hours, entry.at + later):
                hour.expected += people
    return Load(hours, len(unknown), bool(cut_runs or cut_ahead))


def _hour(hours: Sequence[Hour], at: datetime) -> Hour | None:
    index = int((at - hours[0].at).total_seconds() // 3600)
    return hours[index] if 0 <= index < len(hours) else None


def _last_runs(schedule_ids: set[int]) -> dict[int, tuple[int, int]]:
    """By schedule its last run that found people: (id, people)."""
    if not schedule_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT s.id, o.id, o.targeted FROM unnest(%s::bigint[]) AS s (id) CROSS JOIN LATERAL (
                SELECT o.id, o.targeted FROM schedules_occurrence o
                WHERE o.schedule_id = s.id AND o.materialised_at IS NOT NULL
                ORDER BY o.occurrence_at DESC LIMIT 1
            ) o
            """,
            [list(schedule_ids)],
        )
        return {schedule_id: (run_id, targeted) for schedule_id, run_id, targeted in cursor.fetchall()}


# Waves of few people share batches: of the largest of these the rows are read.
_WAVES = """
WITH b AS MATERIALIZED (
    SELECT b.id, b.day, b.size, b.wave_at, COALESCE(b.next_due_at, b.started_at, o.opens_at) AS about, o.id AS run,
           o.opens_at
    FROM schedules_occurrence o JOIN delivery_batch b ON b.occurrence_id = o.id WHERE o.id = ANY(%(runs)s)
), mixed AS (
    SELECT * FROM b WHERE wave_at IS NULL ORDER BY size DESC, id LIMIT %(mixed)s
)
SELECT run, COALESCE(wave_at, about) - opens_at, sum(size)::bigint FROM b
WHERE id NOT IN (SELECT id FROM mixed) GROUP BY 1, 2
UNION ALL
SELECT m.run, d.wave_at - m.opens_at, count(*) FROM mixed m
JOIN delivery_delivery d ON d.batch_id = m.id AND d.day = m.day GROUP BY 1, 2
"""
_MIXED_READ = 40


def _waves(run_ids: set[int]) -> dict[int, list[tuple[timedelta, int]]]:
    """By run how many people are due how long after it opens."""
    if not run_ids:
        return {}
    found: dict[int, list[tuple[timedelta, int]]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_WAVES, {"runs": list(run_ids), "mixed": _MIXED_READ})
        for run_id, later, people in cursor.fetchall():
            found.setdefault(run_id, []).append((max(later, timedelta(0)), people))
    return found

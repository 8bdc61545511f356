# ruff: noqa: DTZ001, DTZ901 - wall times are naive
"""Properties of recurrence, for any zone, cron and instant; the instants lean towards clock changes.

The oracle below asks zoneinfo only what a clock shows at an instant, and never what an instant a wall
time is, so it shares no reasoning with the code: no fold, no gap, no overlap.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schedules.problems import Problem
from schedules.recurrence import (
    ZONE_NAMES,
    InvalidTiming,
    Timing,
    check,
    describe,
    due_by_zone,
    due_instant,
    firing_at,
    first_firing,
    next_firing,
    next_runs,
    notes,
    zone,
)
from schedules.recurrence.crons import Cron, parse

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
CHANGING = [
    "America/New_York",
    "Europe/Berlin",
    "Europe/London",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Africa/Cairo",
    "America/Havana",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Asia/Beirut",
    "America/Santiago",
]

# The machine may be busy; what a call costs is measured elsewhere.
unhurried = settings(deadline=None, max_examples=60)


def reading(instant: datetime, zone_name: str) -> datetime:
    return instant.astimezone(zone(zone_name)).replace(tzinfo=None, fold=0)


@cache
def clock_changes(zone_name: str) -> tuple[datetime, ...]:
    """Instants of the changes of 2025 to 2027, to the minute."""
    found = []
    earlier = datetime(2025, 1, 1, tzinfo=UTC)
    while earlier.year < 2028:
        later = earlier + DAY
        if reading(later, zone_name) - reading(earlier, zone_name) != DAY:
            found.append(_first_minute(earlier, later, zone_name))
        earlier = later
    return tuple(found)


def _first_minute(earlier: datetime, later: datetime, zone_name: str) -> datetime:
    start = earlier
    while later - earlier > MINUTE:
        middle = earlier + (later - earlier) // (2 * MINUTE) * MINUTE
        if reading(middle, zone_name) - reading(start, zone_name) == middle - start:
            earlier = middle
        else:
            later = middle
    return later


def brute_due(wall: datetime, zone_name: str) -> datetime:
    """The first instant at which the clock shows `wall`; else by the offset shown a day and a bit before."""
    around = [wall.replace(tzinfo=UTC) + timedelta(hours=h) for h in (-40, 40)]
    offsets = [reading(instant, zone_name) - instant.replace(tzinfo=None) for instant in around]
    possible = [(wall - offset).replace(tzinfo=UTC) for offset in offsets]
    shown = [instant for instant in possible if reading(instant, zone_name) == wall]
    return min(shown) if shown else possible[0]


@dataclass(frozen=True)
class Times:
    """A cron whose meaning the tests know without reading it."""

    minutes: frozenset[int]
    hours: frozenset[int]
    weekdays: frozenset[int]  # Sunday is 0
    elapsed: bool

    def __str__(self) -> str:
        minutes, hours = _list(self.minutes), _list(self.hours)
        if self.elapsed:  # the step makes it so; 5-6/2 is 5
            minutes = ",".join(f"{minute}-{minute + 1}/2" for minute in sorted(self.minutes))
        return f"{minutes} {hours} * * {_list(self.weekdays)}"

    def holds(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours and wall.isoweekday() % 7 in self.weekdays


def _list(values: frozenset[int]) -> str:
    return ",".join(str(value) for value in sorted(values))


minutes = st.frozensets(st.sampled_from(range(0, 60, 5)), min_size=1, max_size=4)
hours = st.frozensets(st.integers(0, 4) | st.integers(0, 23), min_size=1, max_size=5)
weekdays = st.frozensets(st.integers(0, 6), min_size=1) | st.just(frozenset(range(7)))
named_times = st.builds(Times, minutes, hours, weekdays, st.just(False))
elapsed_times = st.builds(Times, minutes, hours | st.just(frozenset(range(24))), weekdays, st.just(True))
zone_names = st.sampled_from(CHANGING) | st.sampled_from(sorted(ZONE_NAMES))
whole_minutes = st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1)).map(
    lambda moment: moment.replace(second=0, microsecond=0)
)


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, datetime]:
    zone_name = draw(st.sampled_from(CHANGING))
    return zone_name, draw(st.sampled_from(clock_changes(zone_name)))


@st.composite
def places_and_instants(draw: st.DrawFn) -> tuple[str, datetime]:
    """A zone, and an instant that is often within hours of a change of its clock."""
    if draw(st.booleans()):
        zone_name, change = draw(changes())
        return zone_name, change + timedelta(minutes=draw(st.integers(-300, 300)))
    return draw(zone_names), draw(whole_minutes).replace(tzinfo=UTC)


def fixed(expression: object, zone_name: str) -> Timing:
    return Timing(schedule_type="cron", mode="fixed", cron=str(expression), time_zone=zone_name)


def brute_firings(times: Times, zone_name: str, after: datetime, until: datetime) -> list[datetime]:
    """All firings in (after, until], minute by minute."""
    if times.elapsed:
        span = [after + MINUTE * step for step in range(1, (until - after) // MINUTE + 1)]
        return [instant for instant in span if times.holds(reading(instant, zone_name))]
    start = reading(after, zone_name) - 3 * HOUR  # farther than any clock is set forward or back
    walls = [start + MINUTE * step for step in range((until - after + 6 * HOUR) // MINUTE)]
    due = {brute_due(wall, zone_name) for wall in walls if times.holds(wall)}
    return sorted(instant for instant in due if after < instant <= until)


@unhurried
@given(named_times | elapsed_times, places_and_instants())
def test_firings_are_those_found_minute_by_minute(times, place_and_instant):
    zone_name, after = place_and_instant
    until = after + 2 * DAY
    timing = fixed(times, zone_name)
    expected = brute_firings(times, zone_name, after, until)
    runs = [run.occurrence_at for run in next_runs(timing, now=after, count=len(expected) + 1)]
    assert [run for run in runs if run <= until] == expected


@settings(deadline=None, max_examples=300)
@given(
    st.builds(
        Times,
        st.frozensets(st.sampled_from([0, 15, 30, 45]), min_size=1),
        st.frozensets(st.sampled_from([0, 1, 2, 3, 23]), min_size=2),
        st.just(frozenset(range(7))),
        st.booleans(),
    ),
    changes(),
    st.integers(-70, 130),
)
def test_firings_within_an_hour_of_a_clock_change_are_those_found_minute_by_minute(times, change, minutes_past):
    zone_name, instant = change
    after = instant + timedelta(minutes=minutes_past)
    expected = brute_firings(times, zone_name, after, after + 3 * HOUR)
    runs = [run.occurrence_at for run in next_runs(fixed(times, zone_name), now=after, count=len(expected) + 1)]
    assert [run for run in runs if run <= after + 3 * HOUR] == expected


@unhurried
@given(places_and_instants())
def test_a_wall_time_is_due_when_its_clock_first_shows_it_or_a_gap_later(place_and_instant):
    zone_name, instant = place_and_instant
    wall = instant.replace(tzinfo=None)
    assert due_instant(wall, zone_name) == brute_due(wall, zone_name)
    shown = reading(instant, zone_name)
    assert due_instant(shown, zone_name) == brute_due(shown, zone_name)


@unhurried
@given(places_and_instants())
def test_a_wall_time_in_a_gap_is_shown_later_by_the_length_of_the_gap(place_and_instant):
    zone_name, instant = place_and_instant
    wall = reading(instant, zone_name) + timedelta(hours=1)
    due = due_instant(wall, zone_name)
    shown = reading(due, zone_name)
    grown = reading(due + 2 * DAY, zone_name) - reading(due - 2 * DAY, zone_name) - 4 * DAY
    assert shown in (wall, wall + grown)


@unhurried
@given(named_times | elapsed_times, places_and_instants())
def test_firings_strictly_increase_and_never_share_an_instant(times, place_and_instant):
    zone_name, now = place_and_instant
    runs = [run.occurrence_at for run in next_runs(fixed(times, zone_name), now=now, count=12)]
    assert runs[0] > now
    assert all(earlier < later for earlier, later in pairwise(runs))


@unhurried
@given(named_times | elapsed_times, places_and_instants())
def test_a_firing_shows_a_time_of_the_cron_unless_a_note_says_that_a_gap_moved_it(times, place_and_instant):
    zone_name, now = place_and_instant
    timing = fixed(times, zone_name)
    runs = next_runs(timing, now=now, count=8)
    moved = {note.occurrence_at for note in notes(timing, runs) if note.kind == "moved"}
    for run in runs:
        assert times.holds(reading(run.occurrence_at, zone_name)) != (run.occurrence_at in moved)


@unhurried
@given(named_times | elapsed_times, places_and_instants(), st.integers(0, 8))
def test_fewer_next_runs_are_the_beginning_of_more(times, place_and_instant, count):
    zone_name, now = place_and_instant
    timing = fixed(times, zone_name)
    fewer = next_runs(timing, now=now, count=count)
    assert fewer == next_runs(timing, now=now, count=count + 1)[:count]


@unhurried
@given(named_times | elapsed_times, places_and_instants(), st.integers(0, 600))
def test_asking_from_any_moment_before_a_firing_gives_that_firing(times, place_and_instant, minutes_before):
    zone_name, now = place_and_instant
    timing = fixed(times, zone_name)
    earlier, later = (run.occurrence_at for run in next_runs(timing, now=now, count=2))
    moment = max(earlier, later - timedelta(minutes=minutes_before, microseconds=1))
    resumed = next_firing(timing, after=moment)
    assert resumed is not None
    assert resumed.occurrence_at == later


@unhurried
@given(st.frozensets(st.sampled_from([0, 6, 12, 18]), min_size=1), weekdays, whole_minutes)
def test_user_local_firings_span_26_hours_and_every_zone_is_due_within(chosen_hours, chosen_weekdays, moment):
    expression = f"30 {_list(chosen_hours)} * * {_list(chosen_weekdays)}"
    timing = Timing(schedule_type="cron", mode="user_local", cron=expression)
    now = moment.replace(tzinfo=UTC)
    assert check(timing, now=now) == []
    for run in next_runs(timing, now=now, count=2):
        assert run.closes_at - run.opens_at == timedelta(hours=26)
        due = due_by_zone(run.occurrence_at.replace(tzinfo=None)).values()
        assert run.opens_at <= min(due)
        assert max(due) <= run.closes_at


@unhurried
@given(zone_names, whole_minutes)
def test_the_table_of_all_zones_holds_every_name_and_agrees_with_each(zone_name, wall):
    table = due_by_zone(wall)
    assert table.keys() == ZONE_NAMES
    assert table[zone_name] == due_instant(wall, zone_name)


@unhurried
@given(named_times, places_and_instants(), st.integers(1, 5))
def test_a_number_of_runs_ends_the_sequence_there(times, place_and_instant, max_runs):
    zone_name, now = place_and_instant
    endless = fixed(times, zone_name)
    limited = Timing(schedule_type="cron", mode="fixed", cron=str(times), time_zone=zone_name, max_runs=max_runs)
    assert next_runs(limited, now=now, count=9) == next_runs(endless, now=now, count=max_runs)
    assert first_firing(limited, now=now, runs=max_runs) is None


@unhurried
@given(named_times | elapsed_times, places_and_instants())
def test_the_bounds_hold_both_ends_in(times, place_and_instant):
    zone_name, now = place_and_instant
    runs = next_runs(fixed(times, zone_name), now=now, count=5)
    bounded = Timing(
        schedule_type="cron",
        mode="fixed",
        cron=str(times),
        time_zone=zone_name,
        starts_at=runs[1].occurrence_at,
        ends_at=runs[3].occurrence_at,
    )
    assert next_runs(bounded, now=now, count=5) == runs[1:4]
    assert next_firing(bounded, after=None) == runs[1]


TERMS = (
    "* */2 */7 0 1 5 7 23 28 31 59 1-5 2-4/2 3/2 L LW 5L MON#2 MON JAN JAN-MAR SUN,WED 60 5-1 */0 15W ? 1# #2 - / 1,,2"
)
terms = st.sampled_from(TERMS.split())
near_crons = st.lists(st.lists(terms, min_size=1, max_size=2).map(",".join), min_size=4, max_size=6).map(" ".join)


def read_or_refuse(text: str) -> Cron | Problem:
    try:
        return parse(text)
    except InvalidTiming as error:
        return error.problem


@unhurried
@given(st.text(max_size=30) | near_crons)
@example("0 0 * * 1#")
@example("0 0 L/2 * *")
@example("*/5,L * * * *")
@example("0 0 * * ²L")
@example("0 0 * * ſun")
def test_a_cron_is_either_told_in_words_and_enumerated_or_refused_by_name(text):
    answer = read_or_refuse(text)
    if isinstance(answer, Problem):
        assert answer.field == "cron"
        assert len(answer.message) > 20
    else:
        assert describe(fixed(text, "UTC")).endswith(", UTC")
        moment = datetime(2026, 1, 1)
        assert next(answer.walls(after=moment), datetime.max) > moment


@unhurried
@given(whole_minutes, st.sampled_from(["fixed", "user_local"]))
def test_a_firing_is_built_from_its_identity_alone(moment, mode):
    run = firing_at(moment.replace(tzinfo=UTC), mode)
    assert run.occurrence_at == moment.replace(tzinfo=UTC)
    assert run.opens_at <= run.occurrence_at <= run.closes_at


@unhurried
@given(st.integers(0, 59), st.integers(0, 23), weekdays, whole_minutes)
def test_a_user_local_firing_shows_its_time_in_every_zone_that_has_it(minute, hour, chosen_weekdays, moment):
    times = Times(frozenset({minute}), frozenset({hour}), chosen_weekdays, elapsed=False)
    timing = Timing(schedule_type="cron", mode="user_local", cron=str(times))
    run = first_firing(timing, now=moment.replace(tzinfo=UTC))
    assert run is not None
    wall = run.occurrence_at.replace(tzinfo=None)
    assert times.holds(wall)
    touched = {name for note in notes(timing, [run]) if note.kind == "moved" for name in note.zones}
    for name, due in due_by_zone(wall).items():
        assert (reading(due, name) == wall) != (name in touched)


def test_the_clock_changes_that_these_tests_lean_on_are_found():
    assert datetime(2026, 3, 29, 1, tzinfo=UTC) in clock_changes("Europe/Berlin")
    assert datetime(2026, 10, 3, 15, 30, tzinfo=UTC) in clock_changes("Australia/Lord_Howe")

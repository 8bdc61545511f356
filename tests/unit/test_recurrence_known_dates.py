"""Known dates: instants worked out by hand from the published rules, never by running the code.

Each group names its rule. Offsets are written as the law gives them; the instant is the wall time minus
the offset in force before the change, which is what "a gap moves forward, an overlap takes the first" means.
"""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from schedules.recurrence import Timing, due_by_zone, due_instant, next_runs, zone


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def wall(text: str) -> datetime:
    return datetime.fromisoformat(text)


def cron(expression: str, zone_name: str) -> Timing:
    return Timing(schedule_type="cron", mode="fixed", cron=expression, time_zone=zone_name)


def instants(expression: str, zone_name: str, *, after: str, count: int) -> list[datetime]:
    return [run.occurrence_at for run in next_runs(cron(expression, zone_name), now=at(after), count=count)]


PLAIN = [
    # United States, Energy Policy Act of 2005: second Sunday of March to first Sunday of November, at 2:00.
    # In 2026: 8 March and 1 November. Eastern is UTC-5, summer UTC-4; Pacific UTC-8 and UTC-7.
    ("America/New_York", "2026-01-15T09:00", "2026-01-15T14:00"),
    ("America/New_York", "2026-07-15T09:00", "2026-07-15T13:00"),
    ("America/Los_Angeles", "2026-01-15T09:00", "2026-01-15T17:00"),
    ("America/Los_Angeles", "2026-07-15T09:00", "2026-07-15T16:00"),
    # European Union, Directive 2000/84/EC: last Sunday of March to last Sunday of October, at 1:00 UTC.
    # In 2026: 29 March and 25 October. Berlin UTC+1 and +2; London UTC+0 and +1 (same dates in UK law).
    ("Europe/Berlin", "2026-01-15T09:00", "2026-01-15T08:00"),
    ("Europe/Berlin", "2026-07-15T09:00", "2026-07-15T07:00"),
    ("Europe/London", "2026-01-15T09:00", "2026-01-15T09:00"),
    ("Europe/London", "2026-07-15T09:00", "2026-07-15T08:00"),
    # Lord Howe Island: UTC+10:30, summer (southern) UTC+11.
    ("Australia/Lord_Howe", "2026-01-15T09:00", "2026-01-14T22:00"),
    ("Australia/Lord_Howe", "2026-07-15T09:00", "2026-07-14T22:30"),
    # Chatham Islands: UTC+12:45, summer (southern) UTC+13:45.
    ("Pacific/Chatham", "2026-01-15T09:00", "2026-01-14T19:15"),
    ("Pacific/Chatham", "2026-07-15T09:00", "2026-07-14T20:15"),
    # No clock changes: Nepal UTC+5:45 since 1986; Tonga UTC+13 (summer time dropped in 2017); Line Islands
    # UTC+14; Samoa UTC+13 (summer time dropped in 2021); American Samoa UTC-11.
    ("Asia/Kathmandu", "2026-07-15T09:00", "2026-07-15T03:15"),
    ("Pacific/Tongatapu", "2026-01-15T09:00", "2026-01-14T20:00"),
    ("Pacific/Tongatapu", "2026-07-15T09:00", "2026-07-14T20:00"),
    ("Pacific/Kiritimati", "2026-07-15T09:00", "2026-07-14T19:00"),
    ("Pacific/Apia", "2020-01-15T09:00", "2020-01-14T19:00"),  # still summer time then: UTC+14
    ("Pacific/Apia", "2026-01-15T09:00", "2026-01-14T20:00"),
    ("Pacific/Apia", "2026-07-15T09:00", "2026-07-14T20:00"),
    ("Pacific/Pago_Pago", "2026-07-15T09:00", "2026-07-15T20:00"),
    # Egypt, law 24 of 2023: UTC+2, UTC+3 from the last Friday of April to the last Thursday of October.
    ("Africa/Cairo", "2026-01-15T09:00", "2026-01-15T07:00"),
    ("Africa/Cairo", "2026-07-15T09:00", "2026-07-15T06:00"),
    # Cuba: UTC-5, summer UTC-4.
    ("America/Havana", "2026-01-15T09:00", "2026-01-15T14:00"),
    ("America/Havana", "2026-07-15T09:00", "2026-07-15T13:00"),
    # Morocco, decree 2.18.855: UTC+1, and UTC+0 around Ramadan (in 2026: 15 February to 22 March).
    ("Africa/Casablanca", "2026-01-15T09:00", "2026-01-15T08:00"),
    ("Africa/Casablanca", "2026-03-01T09:00", "2026-03-01T09:00"),
    # Troll station, Antarctica: UTC+0, and UTC+2 in the European summer.
    ("Antarctica/Troll", "2026-01-15T09:00", "2026-01-15T09:00"),
    ("Antarctica/Troll", "2026-07-15T09:00", "2026-07-15T07:00"),
    # British Columbia keeps UTC-7 from 2026 on. Data older than that say UTC-8.
    ("America/Vancouver", "2026-12-01T09:00", "2026-12-01T16:00"),
]

GAPS = [
    # 8 March 2026, 2:00 to 3:00: 2:30 is meant at UTC-5 (-8), and shown as 3:30.
    ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:30", "03:30"),
    ("America/Los_Angeles", "2026-03-08T02:30", "2026-03-08T10:30", "03:30"),
    # 29 March 2026, 1:00 UTC.
    ("Europe/Berlin", "2026-03-29T02:30", "2026-03-29T01:30", "03:30"),
    ("Europe/Berlin", "2026-03-29T02:00", "2026-03-29T01:00", "03:00"),
    ("Europe/London", "2026-03-29T01:30", "2026-03-29T01:30", "02:30"),
    # Troll: the same instant, two hours at once, 1:00 to 3:00.
    ("Antarctica/Troll", "2026-03-29T01:30", "2026-03-29T01:30", "03:30"),
    ("Antarctica/Troll", "2026-03-29T02:30", "2026-03-29T02:30", "04:30"),
    # Lord Howe: first Sunday of October (the 4th), 2:00 to 2:30.
    ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:45", "02:45"),
    # Chatham, with New Zealand: last Sunday of September (the 27th), 2:45 to 3:45.
    ("Pacific/Chatham", "2026-09-27T03:00", "2026-09-26T14:15", "04:00"),
    # Egypt: the last Friday of April (the 24th), 0:00 to 1:00.
    ("Africa/Cairo", "2026-04-24T00:00", "2026-04-23T22:00", "01:00"),
    ("Africa/Cairo", "2026-04-24T00:30", "2026-04-23T22:30", "01:30"),
    # Cuba: second Sunday of March (the 8th), 0:00 to 1:00.
    ("America/Havana", "2026-03-08T00:30", "2026-03-08T05:30", "01:30"),
    # Lebanon: last Sunday of March (the 29th), 0:00 to 1:00, from UTC+2.
    ("Asia/Beirut", "2026-03-29T00:30", "2026-03-28T22:30", "01:30"),
    # Chile: first Sunday of September from the 2nd on (the 6th), 0:00 to 1:00, from UTC-4.
    ("America/Santiago", "2026-09-06T00:30", "2026-09-06T04:30", "01:30"),
    # Morocco: 22 March 2026, 2:00 to 3:00, from UTC+0.
    ("Africa/Casablanca", "2026-03-22T02:30", "2026-03-22T02:30", "03:30"),
    # Samoa left out 30 December 2011 altogether when it crossed the date line (from UTC-10 to UTC+14).
    ("Pacific/Apia", "2011-12-30T09:00", "2011-12-30T19:00", "09:00"),
]

OVERLAPS = [
    # 1 November 2026, 2:00 to 1:00: the first 1:30 is at UTC-4 (-7).
    ("America/New_York", "2026-11-01T01:30", "2026-11-01T05:30"),
    ("America/Los_Angeles", "2026-11-01T01:30", "2026-11-01T08:30"),
    # 25 October 2026, 1:00 UTC: the first of each at summer time.
    ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30"),
    ("Europe/London", "2026-10-25T01:30", "2026-10-25T00:30"),
    # Troll: 3:00 to 1:00, so both 1:30 and 2:30 come twice, first at UTC+2.
    ("Antarctica/Troll", "2026-10-25T01:30", "2026-10-24T23:30"),
    ("Antarctica/Troll", "2026-10-25T02:30", "2026-10-25T00:30"),
    # Lord Howe: first Sunday of April (the 5th), 2:00 to 1:30, from UTC+11.
    ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45"),
    # Chatham: first Sunday of April (the 5th), 3:45 to 2:45, from UTC+13:45.
    ("Pacific/Chatham", "2026-04-05T03:00", "2026-04-04T13:15"),
    # Egypt: the last Thursday of October (the 29th), 24:00 to 23:00, from UTC+3.
    ("Africa/Cairo", "2026-10-29T23:30", "2026-10-29T20:30"),
    # Cuba: first Sunday of November (2025: the 2nd), 1:00 to 0:00, from UTC-4.
    ("America/Havana", "2025-11-02T00:30", "2025-11-02T04:30"),
    # Morocco: 15 February 2026, 3:00 to 2:00, from UTC+1.
    ("Africa/Casablanca", "2026-02-15T02:30", "2026-02-15T01:30"),
]


@pytest.mark.parametrize(("zone_name", "shown", "instant"), PLAIN)
def test_a_wall_time_becomes_the_instant_its_law_gives(zone_name, shown, instant):
    assert due_instant(wall(shown), zone_name) == at(instant)


@pytest.mark.parametrize(("zone_name", "missing", "instant", "shown"), GAPS)
def test_a_wall_time_in_a_gap_moves_forward_by_the_length_of_the_gap(zone_name, missing, instant, shown):
    due = due_instant(wall(missing), zone_name)
    assert due == at(instant)
    assert due.astimezone(zone(zone_name)).strftime("%H:%M") == shown


@pytest.mark.parametrize(("zone_name", "repeated", "instant"), OVERLAPS)
def test_a_wall_time_in_an_overlap_is_the_first_of_the_two(zone_name, repeated, instant):
    due = due_instant(wall(repeated), zone_name)
    assert due == at(instant)
    assert due.astimezone(zone(zone_name)).replace(tzinfo=None) == wall(repeated)


@pytest.mark.parametrize(("zone_name", "shown", "instant"), [*PLAIN, *[row[:3] for row in GAPS], *OVERLAPS])
def test_the_table_of_all_zones_says_the_same_as_one_zone_asked_alone(zone_name, shown, instant):
    assert due_by_zone(wall(shown))[zone_name] == at(instant)


CRONS = [
    # Daily at 2:30 through the gap of 29 March and the overlap of 25 October 2026.
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00", ["03-28T01:30", "03-29T01:30", "03-30T00:30"]),
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00", ["10-24T00:30", "10-25T00:30", "10-26T01:30"]),
    ("30 2 * * *", "America/New_York", "2026-03-07T00:00", ["03-07T07:30", "03-08T07:30", "03-09T06:30"]),
    ("30 1 * * *", "America/New_York", "2026-10-31T00:00", ["10-31T05:30", "11-01T05:30", "11-02T06:30"]),
    ("30 2 * * *", "America/Los_Angeles", "2026-03-08T00:00", ["03-08T10:30", "03-09T09:30"]),
    ("30 1 * * *", "Europe/London", "2026-10-24T12:00", ["10-25T00:30", "10-26T01:30"]),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T20:00", ["10-03T15:45", "10-04T15:15"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00", ["04-04T14:45", "04-05T15:15"]),
    ("0 3 * * *", "Pacific/Chatham", "2026-09-26T00:00", ["09-26T14:15", "09-27T13:15"]),
    ("0 3 * * *", "Pacific/Chatham", "2026-04-04T00:00", ["04-04T13:15", "04-05T14:15"]),
    ("30 2 * * *", "Antarctica/Troll", "2026-03-28T12:00", ["03-29T02:30", "03-30T00:30"]),
    ("30 2 * * *", "Antarctica/Troll", "2026-10-24T12:00", ["10-25T00:30", "10-26T02:30"]),
    ("30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00", ["02-15T01:30", "02-16T02:30"]),
    ("30 2 * * *", "Africa/Casablanca", "2026-03-21T12:00", ["03-22T02:30", "03-23T01:30"]),
    # No changes of the clock.
    ("30 2 * * *", "Asia/Kathmandu", "2026-03-28T00:00", ["03-28T20:45", "03-29T20:45"]),
    ("30 2 * * *", "Pacific/Tongatapu", "2026-03-28T00:00", ["03-28T13:30", "03-29T13:30"]),
    ("30 2 * * *", "Pacific/Kiritimati", "2026-03-28T00:00", ["03-28T12:30", "03-29T12:30"]),
    ("30 2 * * *", "Pacific/Apia", "2026-09-26T00:00", ["09-26T13:30", "09-27T13:30"]),
    ("30 2 * * *", "Pacific/Pago_Pago", "2026-03-28T00:00", ["03-28T13:30", "03-29T13:30"]),
    # Midnight that doesn't exist: 24 April in Cairo, 8 March in Havana. The day keeps its firing.
    ("0 0 * * *", "Africa/Cairo", "2026-04-22T22:30", ["04-23T22:00", "04-24T21:00"]),
    ("0 0 * * *", "America/Havana", "2026-03-07T12:00", ["03-08T05:00", "03-09T04:00"]),
    ("0 0 * * 0", "America/Havana", "2026-03-07T12:00", ["03-08T05:00", "03-15T04:00"]),
    # Midnight that comes twice: Havana, 2 November 2025.
    ("0 0 * * *", "America/Havana", "2025-11-01T12:00", ["11-02T04:00", "11-03T05:00"]),
    ("30 23 * * *", "Africa/Cairo", "2026-10-29T00:00", ["10-29T20:30", "10-30T21:30"]),
    # Two wall times, one instant, one firing: 2:30 is moved to 3:30, where the other one is.
    ("30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", ["03-29T01:30", "03-30T00:30", "03-30T01:30"]),
    ("30 2,3 * * *", "America/New_York", "2026-03-07T12:00", ["03-08T07:30", "03-09T06:30", "03-09T07:30"]),
    # Wall times 2:00, 2:30, 3:00, 3:30 are the instants 1:00, 1:30, 1:00, 1:30: two, and in order.
    ("0,30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", ["03-29T01:00", "03-29T01:30", "03-30T00:00"]),
    # Lord Howe's half hour: 2:15 is moved to 2:45, past 2:30, which is moved nowhere.
    (
        "15,30 2 * * *",
        "Australia/Lord_Howe",
        "2026-10-03T00:00",
        ["10-03T15:30", "10-03T15:45", "10-04T15:15"],
    ),
    # Elapsed: hourly runs each real hour, in the gap's night (no 2:00) and the overlap's (2:00 twice).
    ("0 * * * *", "Europe/Berlin", "2026-03-28T23:30", ["03-29T00:00", "03-29T01:00", "03-29T02:00"]),
    ("0 * * * *", "Europe/Berlin", "2026-10-24T23:30", ["10-25T00:00", "10-25T01:00", "10-25T02:00"]),
    ("*/15 * * * *", "Europe/Berlin", "2026-03-29T00:40", ["03-29T00:45", "03-29T01:00", "03-29T01:15"]),
    ("*/15 * * * *", "Europe/Berlin", "2026-10-25T00:40", ["10-25T00:45", "10-25T01:00", "10-25T01:15"]),
    ("0/15 * * * *", "Europe/Berlin", "2026-10-25T00:40", ["10-25T00:45", "10-25T01:00", "10-25T01:15"]),
    (
        "*/15 * * * *",
        "Australia/Lord_Howe",
        "2026-04-04T14:50",
        ["04-04T15:00", "04-04T15:15", "04-04T15:30"],
    ),
    # Elapsed with a certain hour: nothing in the hour that isn't, each quarter of both that are (1:00-2:00).
    ("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", ["03-30T00:00", "03-30T00:30"]),
    ("*/30 1 * * *", "Europe/London", "2026-10-24T12:00", ["10-25T00:00", "10-25T00:30", "10-25T01:00"]),
    # The last day of the month, and the last working day (31 May 2026 is a Sunday).
    ("0 9 L * *", "UTC", "2026-01-31T10:00", ["02-28T09:00", "03-31T09:00", "04-30T09:00"]),
    ("0 9 LW * *", "UTC", "2026-05-01T00:00", ["05-29T09:00", "06-30T09:00"]),
    # The second Monday (9 March 2026) and the last Friday (27 March 2026).
    ("0 9 * * MON#2", "UTC", "2026-03-01T00:00", ["03-09T09:00", "04-13T09:00"]),
    ("0 9 * * 5L", "UTC", "2026-03-01T00:00", ["03-27T09:00", "04-24T09:00"]),
]


@pytest.mark.parametrize(("expression", "zone_name", "after", "expected"), CRONS)
def test_a_cron_fires_at_the_instants_worked_out_by_hand(expression, zone_name, after, expected):
    year = after[:4]
    assert instants(expression, zone_name, after=after, count=len(expected)) == [
        at(f"{year}-{instant}") for instant in expected
    ]


def test_a_leap_day_fires_in_leap_years_only_and_not_in_2100():
    # Gregorian calendar: 2100 is divisible by 100 and not by 400.
    runs = instants("0 0 29 2 *", "UTC", after="2089-01-01T00:00", count=3)
    assert runs == [at("2092-02-29T00:00"), at("2096-02-29T00:00"), at("2104-02-29T00:00")]


@pytest.mark.parametrize(
    ("expression", "day", "firings"),
    [
        ("0 * * * *", "2026-03-29", 23),
        ("0 * * * *", "2026-10-25", 25),
        ("*/15 * * * *", "2026-03-29", 92),
        ("*/15 * * * *", "2026-10-25", 100),
        # Hours named one by one are times of day: each once, and the one in the gap meets the next.
        ("0 0-23 * * *", "2026-03-29", 23),
        ("0 0-23 * * *", "2026-10-25", 24),
    ],
)
def test_a_day_of_23_or_25_hours_has_as_many_firings_as_the_cron_means(expression, day, firings):
    place = zone("Europe/Berlin")
    evening_before = (at(day) - timedelta(hours=4)).isoformat()[:16]
    runs = instants(expression, "Europe/Berlin", after=evening_before, count=120)
    assert len([run for run in runs if run.astimezone(place).date().isoformat() == day]) == firings


# What schedulers of this field got wrong.


def test_the_offset_of_the_date_is_used_and_not_the_offset_of_now():
    # Asked in July (UTC+2) for a date in December (UTC+1).
    runs = instants("0 9 1 12 *", "Europe/Berlin", after="2026-07-01T00:00", count=1)
    assert runs == [at("2026-12-01T08:00")]


def test_the_weekday_is_that_of_the_zone_and_not_that_of_utc():
    # Monday 9:00 in Kiritimati (UTC+14) is Sunday 19:00 UTC; Sunday 20:00 in Pago Pago is Monday 7:00 UTC.
    kiritimati = instants("0 9 * * MON", "Pacific/Kiritimati", after="2026-06-01T00:00", count=1)
    assert kiritimati == [at("2026-06-07T19:00")]
    pago_pago = instants("0 20 * * SUN", "Pacific/Pago_Pago", after="2026-06-01T08:00", count=1)
    assert pago_pago == [at("2026-06-08T07:00")]


def test_the_day_of_the_month_is_that_of_the_zone():
    # The 1st of July, 0:30 in Berlin, is the 30th of June in UTC.
    runs = instants("30 0 1 * *", "Europe/Berlin", after="2026-06-15T00:00", count=1)
    assert runs == [at("2026-06-30T22:30")]


def test_the_offset_is_taken_at_the_instant_and_not_at_the_wall_time_read_as_utc():
    # New York changes at 7:00 UTC of 8 March: 3:30 there is past it, 3:30 UTC is not.
    assert due_instant(wall("2026-03-08T03:30"), "America/New_York") == at("2026-03-08T07:30")
    assert due_instant(wall("2026-11-01T03:00"), "America/New_York") == at("2026-11-01T08:00")
    # In Auckland the change (2:00 of 27 September) is 14:00 UTC of the day before.
    assert due_instant(wall("2026-09-27T09:00"), "Pacific/Auckland") == at("2026-09-26T20:00")


def test_an_autumn_overlap_does_not_fire_a_daily_cron_twice():
    runs = instants("30 2 * * *", "Europe/Berlin", after="2026-10-25T00:30", count=1)
    assert runs == [at("2026-10-26T01:30")]


def test_a_spring_gap_neither_loses_a_daily_cron_nor_fires_it_at_three_o_clock():
    (run,) = instants("30 2 * * *", "Europe/Berlin", after="2026-03-28T12:00", count=1)
    assert run.astimezone(zone("Europe/Berlin")).strftime("%H:%M") == "03:30"


def test_the_pinned_zone_data_are_used_whatever_the_system_has():
    # A directory with a false Vancouver (the bytes of Tokyo) stands where zoneinfo looks first.
    script = (
        "import pathlib, sys, tempfile, zoneinfo, importlib.resources as r\n"
        "from datetime import datetime\n"
        "root = pathlib.Path(tempfile.mkdtemp()); (root / 'America').mkdir()\n"
        "data = r.files('tzdata').joinpath('zoneinfo', 'Asia', 'Tokyo').read_bytes()\n"
        "(root / 'America' / 'Vancouver').write_bytes(data)\n"
        "zoneinfo.reset_tzpath(to=[str(root)])\n"
        "false = zoneinfo.ZoneInfo('America/Vancouver').utcoffset(datetime(2026, 12, 1))\n"
        "assert false.total_seconds() == 9 * 3600\n"
        "from schedules.recurrence import due_instant\n"
        "print(due_instant(datetime(2026, 12, 1, 9), 'America/Vancouver').isoformat())\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert answer.stdout.strip() == "2026-12-01T16:00:00+00:00"

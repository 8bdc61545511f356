"""Send windows against an oracle that walks minute by minute, across changes of the clock."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedules.recurrence import due_instant, zone
from schedules.recurrence.windows import DAYS, Window, allowed_by_zone, latest, minute_of, read

MINUTE = timedelta(minutes=1)
# Zones with quarter hours, half-hour changes (Lord Howe), changes at midnight, no changes, and the ends of the world.
PLACES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Pacific/Chatham",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Santiago",
    "Pacific/Tongatapu",
    "Pacific/Kiritimati",
    "Etc/GMT+12",
]
# Within three days of a change somewhere in that list, and quiet days besides.
STARTS = [
    datetime(2026, 3, 27, 12, tzinfo=UTC),
    datetime(2026, 10, 23, 12, tzinfo=UTC),
    datetime(2026, 3, 6, 12, tzinfo=UTC),
    datetime(2026, 10, 31, 0, tzinfo=UTC),
    datetime(2026, 4, 4, 0, tzinfo=UTC),
    datetime(2026, 10, 3, 0, tzinfo=UTC),
    datetime(2026, 9, 5, 0, tzinfo=UTC),
    datetime(2026, 9, 25, 0, tzinfo=UTC),
    datetime(2026, 4, 23, 0, tzinfo=UTC),
    datetime(2026, 7, 1, 0, tzinfo=UTC),
]


def window(days: str, begins: str, ends: str) -> Window:
    return read({"days": days.split(), "from": begins, "to": ends})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def opened(given: Window, zone_name: str, around: datetime) -> list[tuple[datetime, datetime]]:
    """Every opening near an instant, by the words of the rule alone: both ends are wall times, made instants."""
    first = around.astimezone(zone(zone_name)).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    stretches = []
    for number in range(-3, 18):
        midnight = first + timedelta(days=number)
        if DAYS[midnight.weekday()] in {DAYS[day] for day in given.days}:
            begins, ends = (midnight + timedelta(minutes=each) for each in (given.opens, given.closes))
            stretches.append((due_instant(begins, zone_name), due_instant(ends, zone_name)))
    return stretches


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    zone_name=st.sampled_from(PLACES),
    start=st.sampled_from(STARTS),
    later=st.integers(0, 3 * 1440),
    days=st.sets(st.integers(0, 6), min_size=1),
    opens=st.integers(0, 1439),
    length=st.integers(1, 1440),
)
def test_the_next_instant_is_the_first_minute_on_which_the_window_is_open(
    zone_name: str, start: datetime, later: int, days: set[int], opens: int, length: int
) -> None:
    given = Window(frozenset(days), opens, opens + length)
    asked = start + timedelta(minutes=later)
    stretches = opened(given, zone_name, asked)
    minute = asked
    while not any(begins <= minute < ends for begins, ends in stretches):
        minute += MINUTE
    assert given.next_allowed(asked, zone_name) == minute
    assert given.next_allowed(minute, zone_name) == minute


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    zone_name=st.sampled_from(PLACES),
    later=st.integers(0, 7 * 1440),
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    begins=st.integers(0, 1439),
    ends=st.integers(0, 1440),
)
def test_where_no_clock_changes_the_window_is_what_the_clock_shows(
    zone_name: str, later: int, days: set[str], begins: int, ends: int
) -> None:
    words = {"days": sorted(days), "from": clock(begins), "to": clock(ends)}
    asked = datetime(2026, 6, 10, tzinfo=UTC) + timedelta(minutes=later)  # a fortnight without any change
    allowed = read(words).next_allowed(asked, zone_name)
    shown = allowed.astimezone(zone(zone_name))
    minute, day = shown.hour * 60 + shown.minute, DAYS[shown.weekday()]
    yesterday = DAYS[shown.weekday() - 1]
    if begins < ends:
        assert (day in days, begins <= minute < ends) == (True, True)
    else:
        assert (day in days and minute >= begins) or (yesterday in days and minute < ends)


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@pytest.mark.parametrize(
    ("asked", "zone_name", "given", "allowed"),
    [
        # In the window, before it, after it, at its two ends.
        ("2026-06-10T12:00Z", "UTC", window("wed", "09:00", "20:00"), "2026-06-10T12:00Z"),
        ("2026-06-10T08:59Z", "UTC", window("wed", "09:00", "20:00"), "2026-06-10T09:00Z"),
        ("2026-06-10T20:00Z", "UTC", window("wed thu", "09:00", "20:00"), "2026-06-11T09:00Z"),
        ("2026-06-10T19:59Z", "UTC", window("wed", "09:00", "20:00"), "2026-06-10T19:59Z"),
        ("2026-06-10T20:00Z", "UTC", window("wed", "09:00", "20:00"), "2026-06-17T09:00Z"),
        # Over midnight, on the morning after its day and on one that is none of its days.
        ("2026-06-11T05:00Z", "UTC", window("wed", "22:00", "06:00"), "2026-06-11T05:00Z"),
        ("2026-06-10T05:00Z", "UTC", window("wed", "22:00", "06:00"), "2026-06-10T22:00Z"),
        # The whole day.
        ("2026-06-10T00:00Z", "UTC", window("wed", "00:00", "24:00"), "2026-06-10T00:00Z"),
        ("2026-06-11T00:00Z", "UTC", window("wed", "00:00", "00:00"), "2026-06-17T00:00Z"),
        # The day is the person's: Sunday evening in UTC is Monday in Kathmandu.
        ("2026-06-14T18:30Z", "Asia/Kathmandu", window("mon", "00:00", "24:00"), "2026-06-14T18:30Z"),
        # Its opening lies in the gap (02:30 → 03:30); all of it does (02:15–02:45 → 03:15–03:45); its end comes first.
        ("2026-03-29T00:00Z", "Europe/Berlin", window("sun", "02:30", "09:00"), "2026-03-29T01:30Z"),
        ("2026-03-29T00:00Z", "Europe/Berlin", window("sun", "02:15", "02:45"), "2026-03-29T01:15Z"),
        ("2026-03-29T01:50Z", "Europe/Berlin", window("sun", "02:15", "02:45"), "2026-04-05T00:15Z"),
        ("2026-03-29T00:00Z", "Europe/Berlin", window("sun", "02:30", "03:10"), "2026-04-05T00:30Z"),
        # It opens at the first of two 02:30s and runs through the second; it closes at the first of two as well.
        ("2026-10-25T00:00Z", "Europe/Berlin", window("sun", "02:30", "04:00"), "2026-10-25T00:30Z"),
        ("2026-10-25T01:10Z", "Europe/Berlin", window("sun", "02:30", "04:00"), "2026-10-25T01:10Z"),
        ("2026-10-25T00:40Z", "Europe/Berlin", window("sun mon", "00:00", "02:30"), "2026-10-25T23:00Z"),
        # Midnight is in the gap.
        ("2026-04-23T21:30Z", "Africa/Cairo", window("fri", "00:00", "24:00"), "2026-04-23T22:00Z"),
    ],
)
def test_known_instants(asked: str, zone_name: str, given: Window, allowed: str) -> None:
    assert given.next_allowed(at(asked), zone_name) == at(allowed)


def test_whole_days_in_a_row_leave_no_minute_out() -> None:
    always = window(" ".join(DAYS), "00:00", "24:00")
    for start in STARTS:
        for zone_name in PLACES:
            for hours in range(0, 96, 1):
                asked = start + timedelta(hours=hours, minutes=hours % 60)
                assert always.next_allowed(asked, zone_name) == asked


def test_every_zone_at_once() -> None:
    given, asked = window("mon tue wed thu fri", "09:00", "20:00"), at("2026-03-27T21:00Z")
    found = allowed_by_zone(given, asked)
    assert found["Europe/Berlin"] == at("2026-03-30T07:00Z")  # summer time has begun meanwhile
    assert found["America/New_York"] == asked
    assert latest(given, asked) == max(found.values()) == at("2026-03-30T10:00Z")  # where Friday was over first


@pytest.mark.parametrize("text", ["", "9:00", "09:60", "24:01", "25:00", "09-00", "0900", "٠٩:00", "09:00 "])
def test_what_is_no_time_of_day(text: str) -> None:
    with pytest.raises(ValueError, match="no time of day"):
        minute_of(text)

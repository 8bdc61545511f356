"""Quiet hours: what they are, and the first instant at which they and a send window both let a message through."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delivery.windows import allowed_in
from schedules import quiet_hours
from schedules.definition import Definition
from schedules.recurrence import due_instant, zone
from schedules.recurrence.windows import DAYS, next_in_both, read
from tests.unit.test_windows import PLACES, STARTS

MINUTE = timedelta(minutes=1)
NIGHT = {"from": "22:00", "to": "07:00"}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def hours(begins: str, ends: str) -> dict[str, str]:
    return {"from": begins, "to": ends}


@pytest.mark.parametrize(
    ("zone_name", "said", "asked", "allowed"),
    [
        # The evening before, at the first quiet minute, in the night, at the last one, and the morning itself.
        ("Europe/Berlin", NIGHT, "2026-11-23T21:59:00+01:00", "2026-11-23T21:59:00+01:00"),
        ("Europe/Berlin", NIGHT, "2026-11-23T22:00:00+01:00", "2026-11-24T07:00:00+01:00"),
        ("Europe/Berlin", NIGHT, "2026-11-24T03:00:00+01:00", "2026-11-24T07:00:00+01:00"),
        ("Europe/Berlin", NIGHT, "2026-11-24T06:59:59+01:00", "2026-11-24T07:00:00+01:00"),
        ("Europe/Berlin", NIGHT, "2026-11-24T07:00:00+01:00", "2026-11-24T07:00:00+01:00"),
        # At noon; to midnight, and from it.
        ("UTC", hours("12:00", "14:30"), "2026-11-23T13:00:00Z", "2026-11-23T14:30:00Z"),
        ("UTC", hours("20:00", "00:00"), "2026-11-23T23:59:00Z", "2026-11-24T00:00:00Z"),
        ("UTC", hours("00:00", "06:00"), "2026-11-23T00:00:00Z", "2026-11-23T06:00:00Z"),
        # The same instant on many clocks: 23:45 of one is 05:45 of another.
        ("Asia/Kathmandu", NIGHT, "2026-11-23T18:00:00Z", "2026-11-24T01:15:00Z"),
        ("Asia/Kolkata", NIGHT, "2026-11-23T18:00:00Z", "2026-11-24T01:30:00Z"),
        ("Pacific/Tongatapu", NIGHT, "2026-11-23T18:00:00Z", "2026-11-23T18:00:00Z"),  # +13: seven in the morning
        ("Pacific/Tongatapu", NIGHT, "2026-11-23T17:59:00Z", "2026-11-23T18:00:00Z"),
        ("America/Los_Angeles", NIGHT, "2026-11-23T06:30:00Z", "2026-11-23T15:00:00Z"),
        # Spring forward in Berlin on 29 March at two: the night is an hour shorter, and an end in the gap lies later.
        ("Europe/Berlin", NIGHT, "2026-03-28T22:00:00+01:00", "2026-03-29T07:00:00+02:00"),
        ("Europe/Berlin", hours("22:00", "02:30"), "2026-03-29T00:00:00Z", "2026-03-29T03:30:00+02:00"),
        # Back on 25 October at three: an end that comes twice is the first of the two.
        ("Europe/Berlin", hours("22:00", "02:30"), "2026-10-24T23:00:00Z", "2026-10-25T02:30:00+02:00"),
        ("Europe/Berlin", hours("22:00", "02:30"), "2026-10-25T02:40:00+02:00", "2026-10-25T02:40:00+02:00"),
        ("Europe/Berlin", hours("02:30", "05:00"), "2026-10-25T02:30:00+01:00", "2026-10-25T05:00:00+01:00"),
        ("America/New_York", NIGHT, "2026-11-01T05:30:00Z", "2026-11-01T12:00:00Z"),
        ("America/New_York", NIGHT, "2026-03-08T05:30:00Z", "2026-03-08T11:00:00Z"),
        # Half an hour, in Lord Howe; midnight itself is in the gap, in Cairo.
        ("Australia/Lord_Howe", hours("22:00", "02:15"), "2026-10-03T15:00:00Z", "2026-10-04T02:45:00+11:00"),
        ("Africa/Cairo", hours("20:00", "00:30"), "2026-04-23T21:00:00Z", "2026-04-24T01:30:00+03:00"),
    ],
)
def test_a_message_waits_for_the_end_of_the_quiet_hours_on_the_persons_own_clock(
    zone_name: str, said: dict[str, str], asked: str, allowed: str
) -> None:
    awake = quiet_hours.awake(said)
    assert awake is not None
    assert awake.next_allowed(at(asked), zone_name) == at(allowed)


def quiet_stretches(said: dict[str, str], zone_name: str, around: datetime) -> list[tuple[datetime, datetime]]:
    """Near an instant, by the words of the rule alone: both ends are wall times, made instants."""
    first = around.astimezone(zone(zone_name)).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    begins, ends = (timedelta(hours=int(clock[:2]), minutes=int(clock[3:])) for clock in (said["from"], said["to"]))
    length = ends if ends > begins else ends + timedelta(days=1)
    return [
        (due_instant(day + begins, zone_name), due_instant(day + length, zone_name))
        for day in (first + timedelta(days=number) for number in range(-3, 18))
    ]


def openings(
    days: set[int], opens: int, length: int, zone_name: str, around: datetime
) -> list[tuple[datetime, datetime]]:
    first = around.astimezone(zone(zone_name)).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    found = []
    for number in range(-3, 18):
        day = first + timedelta(days=number)
        if day.weekday() in days:
            begins = day + timedelta(minutes=opens)
            found.append((due_instant(begins, zone_name), due_instant(begins + timedelta(minutes=length), zone_name)))
    return found


def clock_of(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    zone_name=st.sampled_from(PLACES),
    start=st.sampled_from(STARTS),
    later=st.integers(0, 3 * 1440),
    ends=st.lists(st.integers(0, 1439), min_size=2, max_size=2, unique=True),
    days=st.sets(st.integers(0, 6), min_size=1),
    opens=st.integers(0, 1439),
    length=st.integers(1, 1440),
)
def test_never_in_quiet_hours_nor_outside_of_the_window_and_never_later_than_the_first_minute_that_both_allow(
    zone_name: str, start: datetime, later: int, ends: list[int], days: set[int], opens: int, length: int
) -> None:
    said = hours(*map(clock_of, ends))
    window = {
        "days": [DAYS[day] for day in sorted(days)],
        "from": clock_of(opens),
        "to": clock_of((opens + length) % 1440),
    }
    definition = Definition("x", "email", None, "once", time_zone=zone_name, send_window=window)
    asked = start + timedelta(minutes=later)
    found = allowed_in(zone_name, asked, definition=definition, quiet=quiet_hours.awake(said))
    quiet = quiet_stretches(said, zone_name, asked)
    is_open = openings(days, opens, length, zone_name, asked)

    def allows(minute: datetime) -> bool:
        return any(begins <= minute < ends for begins, ends in is_open) and not any(
            begins <= minute < ends for begins, ends in quiet
        )

    # All that may change is at an end of one or the other: between these every minute is as the first.
    turns = sorted({asked, *(end for pair in (*quiet, *is_open) for end in pair if end > asked)})
    expected = next((minute for minute in turns if minute <= asked + timedelta(days=14) and allows(minute)), None)
    assert found == expected


def test_a_window_in_the_midst_of_quiet_hours_has_no_instant() -> None:
    night = read({"days": list(DAYS), "from": "23:00", "to": "05:00"})
    awake = quiet_hours.awake(NIGHT)
    assert awake is not None
    assert next_in_both(at("2026-11-23T23:30:00Z"), "Europe/Berlin", night, awake) is None
    rare = read({"days": ["mon"], "from": "06:00", "to": "07:01"})
    assert next_in_both(at("2026-11-23T07:02:00Z"), "UTC", rare, awake) == at("2026-11-30T07:00:00Z")


@pytest.mark.parametrize(
    ("channel", "purpose", "heeded"),
    [
        ("email", "marketing", True),
        ("push", "marketing", True),
        ("in_app", "marketing", False),
        ("email", "transactional", False),
        ("push", "transactional", False),
    ],
)
def test_what_is_ordered_comes_at_any_hour_and_so_does_what_waits_in_the_app(
    channel: str, purpose: str, heeded: bool
) -> None:
    definition = Definition("x", channel, None, "once", purpose=purpose)
    midnight = at("2026-11-23T00:00:00Z")
    found = allowed_in("UTC", midnight, definition=definition, quiet=quiet_hours.awake(NIGHT))
    assert found == (midnight + timedelta(hours=7) if heeded else midnight)


def test_without_a_zone_the_schedules_clock_counts() -> None:
    definition = Definition("x", "email", None, "once", time_zone="Asia/Tokyo")
    evening = at("2026-11-23T22:30:00+09:00")
    for unknown in ("", "Mars/Olympus"):
        found = allowed_in(unknown, evening, definition=definition, quiet=quiet_hours.awake(NIGHT))
        assert found == at("2026-11-24T07:00:00+09:00")


@pytest.mark.parametrize("kept", [None, NIGHT, hours("00:00", "23:59"), hours("13:05", "13:06")])
def test_what_can_be_kept_is_spelt_and_read_again(kept: dict[str, str] | None) -> None:
    assert quiet_hours.fault(kept) == ""
    assert quiet_hours.read_spelt(quiet_hours.spelt(kept)) == kept
    assert quiet_hours.read_spelt(" 22:00 – 07:00 ") == NIGHT


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (hours("22:00", "22:00"), "ends when it begins"),
        (hours("22:00", "24:00"), "no time of day"),
        (hours("7:00", "22:00"), "no time of day"),
        (hours("22:60", "07:00"), "no time of day"),
        (hours("22:00", "٠٧:00"), "no time of day"),
        ({"from": "22:00", "to": 7}, "no time of day"),
        ({"from": "22:00"}, "two times"),
        ({**NIGHT, "days": ["mon"]}, "two times"),
        ("22:00-07:00", "two times"),
        ([], "two times"),
        (False, "two times"),
        (quiet_hours.read_spelt("22:00"), "no time of day"),
        (quiet_hours.read_spelt("22:00-07:00-"), "no time of day"),
        (quiet_hours.read_spelt("-"), "no time of day"),
    ],
)
def test_what_are_no_quiet_hours_is_told_with_the_remedy(said: object, words: str) -> None:
    assert words in quiet_hours.fault(said)

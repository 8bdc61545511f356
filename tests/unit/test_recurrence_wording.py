"""The sentence that tells a timing, and the notes on clock changes."""

from datetime import UTC, datetime

import pytest

from schedules.recurrence import Timing, describe, next_runs, notes


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron(expression: str, **more) -> Timing:
    return Timing(**{"schedule_type": "cron", "mode": "fixed", "cron": expression, **more})


def once(run_at: str, **more) -> Timing:
    return Timing(**{"schedule_type": "once", "mode": "fixed", "run_at": at(run_at), **more})


BERLIN = {"time_zone": "Europe/Berlin"}
LOCAL = {"mode": "user_local"}


@pytest.mark.parametrize(
    ("timing", "sentence"),
    [
        (cron("0 9 * * MON", **BERLIN), "At 09:00 on Monday, Europe/Berlin"),
        (cron("0 9 * * 1", **LOCAL), "At 09:00 on Monday, on each recipient's own clock"),
        (cron("*/15 * * * *"), "Every 15th minute of every hour, UTC"),
        (cron("0 0 21 * *"), "At 00:00 on the 21st day of every month, UTC"),
        (cron("0 0 L * *"), "At 00:00 on the last day of every month, UTC"),
        (cron("0 9 * * *", max_runs=1), "At 09:00 every day, UTC, once only"),
        (
            cron("0 9 * * *", starts_at=at("2026-06-01T07:00"), ends_at=at("2026-12-01T08:00"), max_runs=5, **BERLIN),
            "At 09:00 every day, Europe/Berlin, from 2026-06-01 09:00 (Europe/Berlin, UTC+02:00), "
            "until 2026-12-01 09:00 (Europe/Berlin, UTC+01:00), 5 times at most",
        ),
        (
            cron("0 9 * * *", starts_at=at("2026-06-01T07:00"), **LOCAL),
            "At 09:00 every day, on each recipient's own clock, from 2026-06-01 07:00 on each recipient's own clock",
        ),
        (once("2026-12-01T09:00"), "Once, on 2026-12-01 at 09:00 (UTC+00:00)"),
        (once("2026-12-01T08:00:30", **BERLIN), "Once, on 2026-12-01 at 09:00:30 (Europe/Berlin, UTC+01:00)"),
        (once("2026-12-01T09:00", **LOCAL), "Once, on 2026-12-01 at 09:00 on each recipient's own clock"),
        (
            once("2026-12-01T16:00", time_zone="America/Vancouver"),
            "Once, on 2026-12-01 at 09:00 (America/Vancouver, UTC-07:00)",
        ),
    ],
)
def test_a_timing_is_told_with_its_zone_and_offset(timing, sentence):
    assert describe(timing) == sentence


def test_a_one_off_without_its_time_cannot_be_told():
    with pytest.raises(ValueError, match="run_at"):
        describe(Timing(schedule_type="once", mode="fixed"))


def told(timing: Timing, now: str, count: int = 3) -> list[tuple[str, str, str]]:
    firings = next_runs(timing, now=at(now), count=count)
    return [(f"{note.occurrence_at:%m-%dT%H:%M}", note.kind, note.message) for note in notes(timing, firings)]


def test_a_firing_that_a_gap_moves_is_noted_with_the_time_it_fires_instead():
    assert told(cron("30 2 * * *", **BERLIN), "2026-03-28T00:00") == [
        ("03-29T01:30", "moved", "The clock skips 2026-03-29 02:30: it fires at 03:30 instead (UTC+02:00).")
    ]


def test_two_wall_times_that_meet_are_noted_as_one():
    ((instant, kind, message),) = told(cron("30 2,3 * * *", **BERLIN), "2026-03-28T12:00")
    assert (instant, kind) == ("03-29T01:30", "merged")
    assert "02:30" in message


def test_a_firing_in_an_overlap_is_noted_as_the_first_of_two():
    assert told(cron("30 2 * * *", **BERLIN), "2026-10-24T12:00") == [
        ("10-25T00:30", "first_of_two", "The clock shows 2026-10-25 02:30 twice: it fires at the first (UTC+02:00).")
    ]


def test_an_elapsed_cron_says_which_of_the_two_each_firing_is():
    kinds = [note[:2] for note in told(cron("*/30 * * * *", **BERLIN), "2026-10-24T23:30", count=6)]
    assert kinds == [
        ("10-25T00:00", "first_of_two"),
        ("10-25T00:30", "first_of_two"),
        ("10-25T01:00", "second_of_two"),
        ("10-25T01:30", "second_of_two"),
    ]


def test_an_elapsed_cron_says_what_a_gap_swallows():
    assert told(cron("*/15 * * * *", **BERLIN), "2026-03-29T00:40") == [
        ("03-29T01:00", "skipped", "The clock skips 2026-03-29 02:00 to 02:45: nothing fires then.")
    ]


def test_a_midnight_that_does_not_exist_is_noted():
    ((instant, kind, message),) = told(cron("0 0 * * *", time_zone="Africa/Cairo"), "2026-04-22T22:30")
    assert (instant, kind) == ("04-23T22:00", "moved")
    assert "01:00" in message


@pytest.mark.parametrize(
    ("wall", "kind", "inside", "outside"),
    [
        ("2026-03-29T02:30", "moved", "Europe/Berlin", "America/New_York"),
        ("2026-10-25T02:30", "first_of_two", "Europe/Berlin", "Europe/London"),
    ],
)
def test_in_user_local_mode_a_note_names_the_zones_concerned(wall, kind, inside, outside):
    timing = once(wall, **LOCAL)
    (note,) = notes(timing, next_runs(timing, now=at("2026-01-01T00:00"), count=1))
    assert note.kind == kind
    assert inside in note.zones
    assert outside not in note.zones
    assert f"{len(note.zones)} zones" in note.message


def test_an_ordinary_day_needs_no_note():
    assert told(cron("30 2 * * *", **BERLIN), "2026-06-01T00:00") == []
    assert told(cron("*/15 * * * *", **BERLIN), "2026-06-01T00:00") == []
    assert told(cron("0 9 * * *", **LOCAL), "2026-06-10T00:00") == []


def test_the_instant_of_a_fixed_one_off_is_moved_by_nothing():
    assert told(once("2026-03-29T01:30", **BERLIN), "2026-01-01T00:00") == []

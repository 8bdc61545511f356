"""What is refused when a timing is saved, by field and code, and what the message tells to do."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from schedules.recurrence import Timing, check, next_runs

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron(expression: str = "0 9 * * *", **more) -> Timing:
    return Timing(**{"schedule_type": "cron", "mode": "fixed", "cron": expression, **more})


def once(run_at: datetime | None = NOW + HOUR, **more) -> Timing:
    return Timing(**{"schedule_type": "once", "mode": "fixed", "run_at": run_at, **more})


def codes(timing: Timing) -> list[tuple[str, str]]:
    return [(problem.field, problem.code) for problem in check(timing, now=NOW)]


ACCEPTED = [
    "0 9 * * *",
    "*/15 * * * *",
    "0 9 * * MON-FRI",
    "0 9 * JAN,JUL 7",
    "0 9 L * *",
    "0 9 LW * *",
    "0 9 * * 5L",
    "0 9 * * MON#2",
    "0 0 29 2 *",
    "0 0 31 2 MON",
    "0 0 * 2 MON#5",
    "59 23 31 12 *",
]

REFUSED = [
    ("* * * * * *", "field_count"),
    ("0 0 9 * * *", "field_count"),
    ("0 9 * *", "field_count"),
    ("@daily", "syntax"),
    ("daily", "field_count"),
    ("60 9 * * *", "syntax"),
    ("0 24 * * *", "syntax"),
    ("0 9 0 * *", "syntax"),
    ("0 9 * 13 *", "syntax"),
    ("0 9 * * 8", "syntax"),
    ("0 22-2 * * *", "syntax"),
    ("0 9 * * FRI-MON", "syntax"),
    ("0 9 15W * *", "syntax"),
    ("0 9 ? * *", "syntax"),
    ("0 9 * * MON#6", "syntax"),
    ("0 9 * * L", "syntax"),
    ("0 9 * * MOO", "syntax"),
    ("*/0 * * * *", "syntax"),
    ("*/90 * * * *", "syntax"),
    ("0 */24 * * *", "syntax"),
    ("0 9 * * ſun", "syntax"),
    ("0 9 * * *; DROP TABLE", "syntax"),
    ("0 9 * * *\n", "syntax"),
    ("0,0,0,0," * 100 + "0 9 * * *", "too_long"),
    ("0 0 30 2 *", "impossible"),
    ("0 0 31 2,4,6 *", "impossible"),
    ("0 0 */28 * 1#3", "never_fires"),
    ("", "required"),
    ("   ", "required"),
]


@pytest.mark.parametrize("expression", ACCEPTED)
def test_a_cron_of_five_fields_that_fires_is_accepted(expression):
    assert check(cron(expression), now=NOW) == []


@pytest.mark.parametrize(("expression", "code"), REFUSED)
def test_a_cron_that_cannot_be_meant_is_refused(expression, code):
    assert codes(cron(expression)) == [("cron", code)]


def test_the_message_names_the_field_of_the_cron_and_what_it_may_hold():
    (problem,) = check(cron("0 24 * * *"), now=NOW)
    assert "hour '24'" in problem.message
    assert "0 to 23" in problem.message


@pytest.mark.parametrize(
    "expression", ["0 0 */28 * 1#3", "* * */28 * 1#3", "0 0 29 2 */7", "0 0 * 2 MON#5", "9 " * 99, "1," * 9999]
)
@pytest.mark.parametrize("mode", ["fixed", "user_local"])
def test_no_cron_keeps_the_check_busy(expression, mode):
    start = time.process_time()
    check(cron(expression, mode=mode), now=NOW)
    assert time.process_time() - start < 1


class TestUserLocalCrons:
    @pytest.mark.parametrize(
        "expression", ["*/15 9 * * *", "0 * * * *", "0 */6 * * *", "0/30 9 * * *", "0 8-20/12 * * *"]
    )
    def test_a_star_or_step_in_minute_or_hour_is_refused(self, expression):
        assert codes(cron(expression, mode="user_local")) == [("cron", "elapsed_in_user_local")]

    @pytest.mark.parametrize(
        "expression",
        ["0,30 9 * * *", "0 9,14 * * *", "0 9-17 * * *", "0 1,23 * * *", "30 0,6,12,19 * * *", "0 0,19 28,1 * *"],
    )
    def test_two_firings_closer_than_six_hours_are_refused_also_around_midnight(self, expression):
        assert codes(cron(expression, mode="user_local")) == [("cron", "too_frequent")]

    @pytest.mark.parametrize("expression", ["0 0,6,12,18 * * *", "0 9,15 * * *", "0 1,23 * * MON", "0 9 */2 * *"])
    def test_six_hours_apart_is_enough(self, expression):
        assert codes(cron(expression, mode="user_local")) == []


class TestOneOffs:
    def test_a_later_instant_is_accepted(self):
        assert codes(once()) == []

    @pytest.mark.parametrize("run_at", [NOW, NOW - HOUR])
    def test_an_instant_that_has_come_is_past_in_fixed_mode(self, run_at):
        assert codes(once(run_at)) == [("runAt", "past")]

    def test_a_wall_time_is_past_in_user_local_mode_only_when_it_is_past_everywhere(self):
        # At UTC-12 it is midnight now.
        assert codes(once(at("2026-06-01T00:01"), mode="user_local")) == []
        assert codes(once(at("2026-06-01T00:00"), mode="user_local")) == [("runAt", "past")]

    def test_a_wall_time_must_be_written_in_utc(self):
        run_at = datetime.fromisoformat("2026-12-01T09:00:00+01:00")
        assert codes(once(run_at, mode="user_local")) == [("runAt", "not_utc")]
        assert codes(once(run_at)) == []

    def test_an_instant_without_offset_is_refused(self):
        assert codes(once(NOW.replace(tzinfo=None) + HOUR)) == [("runAt", "naive")]

    def test_run_at_is_required(self):
        assert codes(once(None)) == [("runAt", "required")]

    def test_the_fields_of_a_cron_are_refused(self):
        timing = once(cron="0 9 * * *", starts_at=NOW, ends_at=NOW + HOUR, max_runs=2)
        assert codes(timing) == [
            ("cron", "not_applicable"),
            ("startAt", "not_applicable"),
            ("endAt", "not_applicable"),
            ("maxRuns", "not_applicable"),
        ]

    @pytest.mark.parametrize("year", [1, 1969, 9000, 9999])
    @pytest.mark.parametrize("mode", ["fixed", "user_local"])
    def test_the_ends_of_the_calendar_are_refused(self, year, mode):
        assert codes(once(datetime(year, 12, 31, 23, tzinfo=UTC), mode=mode)) == [("runAt", "out_of_range")]


class TestBounds:
    def test_an_end_before_the_start_is_refused(self):
        assert codes(cron(starts_at=at("2026-07-02T00:00"), ends_at=at("2026-07-01T00:00"))) == [
            ("endAt", "before_start")
        ]

    def test_bounds_without_a_firing_between_them_are_refused(self):
        timing = cron(starts_at=at("2026-07-01T10:00"), ends_at=at("2026-07-02T08:00"))
        assert codes(timing) == [("endAt", "no_firing")]
        assert "startAt" in check(timing, now=NOW)[0].message

    def test_an_end_that_has_passed_is_refused(self):
        timing = cron(ends_at=NOW - HOUR)
        assert codes(timing) == [("endAt", "no_firing")]
        assert "now" in check(timing, now=NOW)[0].message

    def test_a_cron_that_never_fires_is_not_blamed_on_its_end(self):
        assert codes(cron("0 0 */28 * 1#3", ends_at=at("2027-01-01T00:00"))) == [("cron", "never_fires")]

    def test_bounds_around_a_single_firing_are_accepted(self):
        moment = at("2026-07-01T09:00")
        timing = cron(starts_at=moment, ends_at=moment)
        assert codes(timing) == []
        assert [run.occurrence_at for run in next_runs(timing, now=NOW, count=2)] == [moment]

    def test_a_start_that_has_passed_is_no_matter(self):
        assert codes(cron(starts_at=at("2020-01-01T00:00"))) == []

    def test_bounds_in_user_local_mode_must_be_written_in_utc(self):
        berlin = datetime.fromisoformat("2026-12-01T09:00:00+01:00")
        assert codes(cron(mode="user_local", starts_at=berlin)) == [("startAt", "not_utc")]

    @pytest.mark.parametrize("max_runs", [0, -1])
    def test_fewer_than_one_run_is_refused(self, max_runs):
        assert codes(cron(max_runs=max_runs)) == [("maxRuns", "too_small")]


class TestAll:
    def test_every_problem_is_found_at_once(self):
        timing = cron(
            "0 25 * * *",
            time_zone="Europe/Bonn",
            starts_at=at("2026-07-02T00:00"),
            ends_at=at("2026-07-01T00:00"),
            max_runs=0,
            run_at=NOW,
        )
        assert codes(timing) == [
            ("runAt", "not_applicable"),
            ("endAt", "before_start"),
            ("timeZone", "unknown_zone"),
            ("maxRuns", "too_small"),
            ("cron", "syntax"),
        ]

    def test_an_unknown_type_and_an_unknown_mode_are_named(self):
        assert codes(Timing(schedule_type="weekly", mode="moon")) == [
            ("scheduleType", "unknown"),
            ("timeZoneMode", "unknown"),
        ]

    def test_an_unknown_zone_is_refused_in_either_mode_and_for_one_offs(self):
        for timing in (cron(time_zone="CEST"), cron(time_zone="", mode="user_local"), once(time_zone="localtime")):
            assert codes(timing) == [("timeZone", "unknown_zone")]

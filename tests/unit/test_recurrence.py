"""Which firing comes next, which may still start, and how late is too late."""

from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest

from schedules.recurrence import (
    MISFIRE_GRACE,
    TZDATA_VERSION,
    ZONE_NAMES,
    InvalidTiming,
    Timing,
    UnknownZone,
    due_by_zone,
    due_instant,
    firing_at,
    first_firing,
    judge,
    lateness,
    next_firing,
    next_runs,
    zone,
)
from schedules.recurrence.crons import parse

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
NO_ZONES = (
    *("localtime", "posixrules", "Factory", "europe/berlin", "Europe/Berlin ", "Mars/Olympus", "Europe", ""),
    *("/etc/passwd", "../zones", "Europe/../UTC", "tzdata.zi", "zone.tab", None, 7),
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def wall(text: str) -> datetime:
    return datetime.fromisoformat(text)


def daily(**more) -> Timing:
    return Timing(**{"schedule_type": "cron", "mode": "fixed", "cron": "0 9 * * *", **more})


def once(**more) -> Timing:
    return Timing(**{"schedule_type": "once", "mode": "fixed", "run_at": at("2026-06-01T09:00"), **more})


def days(firings) -> list[int]:
    return [firing.occurrence_at.day for firing in firings]


class TestNextFiring:
    def test_a_firing_in_fixed_mode_opens_and_closes_at_its_instant(self):
        firing = next_firing(daily(time_zone="Europe/Berlin"), after=at("2026-06-01T00:00"))
        assert firing.occurrence_at == firing.opens_at == firing.closes_at == at("2026-06-01T07:00")

    def test_a_firing_in_user_local_mode_opens_at_utc_plus_14_and_closes_at_utc_minus_12(self):
        firing = next_firing(daily(mode="user_local"), after=at("2026-06-01T00:00"))
        assert firing.occurrence_at == at("2026-06-01T09:00")
        assert firing.opens_at == at("2026-05-31T19:00")
        assert firing.closes_at == at("2026-06-01T21:00")

    def test_the_zone_plays_no_part_in_user_local_mode(self):
        here = next_firing(daily(mode="user_local", time_zone="Pacific/Apia"), after=at("2026-06-01T00:00"))
        assert here == next_firing(daily(mode="user_local"), after=at("2026-06-01T00:00"))

    def test_the_firing_asked_after_is_not_given_again(self):
        assert next_firing(daily(), after=at("2026-06-01T09:00")) == firing_at(at("2026-06-02T09:00"), "fixed")

    def test_a_second_before_a_firing_gives_that_firing(self):
        firing = next_firing(daily(), after=at("2026-06-01T09:00") - SECOND)
        assert firing.occurrence_at == at("2026-06-01T09:00")

    def test_instants_are_given_in_utc_whatever_offset_they_came_with(self):
        run_at = datetime.fromisoformat("2026-06-01T09:00:00+02:00")
        firing = next_firing(once(run_at=run_at), after=None)
        assert firing.occurrence_at.tzinfo is UTC
        assert firing.occurrence_at == at("2026-06-01T07:00")

    def test_a_one_off_has_its_single_firing_and_no_other(self):
        assert next_firing(once(), after=None).occurrence_at == at("2026-06-01T09:00")
        assert next_firing(once(), after=at("2026-06-01T09:00")) is None
        assert next_firing(once(), after=None, runs=1) is None

    def test_a_cron_without_beginning_is_refused_rather_than_replayed_from_1970(self):
        with pytest.raises(ValueError, match="first_firing"):
            next_firing(daily(), after=None)

    def test_the_beginning_of_a_cron_is_its_start_inclusive(self):
        timing = daily(starts_at=at("2026-06-05T09:00"))
        assert next_firing(timing, after=None).occurrence_at == at("2026-06-05T09:00")
        assert next_firing(timing, after=at("2026-06-01T09:00")).occurrence_at == at("2026-06-05T09:00")

    def test_the_end_of_a_cron_is_inclusive(self):
        timing = daily(ends_at=at("2026-06-05T09:00"))
        assert next_firing(timing, after=at("2026-06-04T09:00")).occurrence_at == at("2026-06-05T09:00")
        assert next_firing(timing, after=at("2026-06-05T09:00")) is None

    def test_bounds_in_user_local_mode_are_readings_of_each_clock(self):
        timing = daily(mode="user_local", starts_at=at("2026-06-05T09:00"), ends_at=at("2026-06-06T08:59"))
        assert [run.occurrence_at for run in next_runs(timing, now=at("2026-06-01T00:00"), count=5)] == [
            at("2026-06-05T09:00")
        ]

    def test_the_number_of_runs_counts_those_opened_already(self):
        timing = daily(max_runs=3)
        assert next_firing(timing, after=at("2026-06-01T09:00"), runs=2) is not None
        assert next_firing(timing, after=at("2026-06-01T09:00"), runs=3) is None

    def test_a_cron_that_cannot_be_read_says_which_field_is_wrong(self):
        with pytest.raises(InvalidTiming, match="cron") as caught:
            next_firing(daily(cron="0 25 * * *"), after=at("2026-06-01T00:00"))
        assert (caught.value.field, caught.value.code) == ("cron", "syntax")
        with pytest.raises(UnknownZone) as unknown:
            next_firing(daily(time_zone="Europe/Bonn"), after=at("2026-06-01T00:00"))
        assert unknown.value.field == "timeZone"

    def test_the_end_of_the_calendar_is_the_end_of_a_cron(self):
        for mode in ("fixed", "user_local"):
            assert next_firing(daily(mode=mode), after=at("8999-12-31T10:00")) is not None
            assert next_firing(daily(mode=mode), after=at("9999-12-31T10:00")) is None


class TestFirstFiring:
    def test_a_cron_starts_with_what_lies_ahead_and_replays_nothing(self):
        assert first_firing(daily(), now=at("2026-06-03T09:01")).occurrence_at == at("2026-06-04T09:00")

    def test_a_firing_at_this_very_instant_has_passed(self):
        # Else an edit at the instant of a tick would point back at the occurrence it has just opened.
        assert first_firing(daily(), now=at("2026-06-03T09:00")).occurrence_at == at("2026-06-04T09:00")

    @pytest.mark.parametrize(
        ("now", "expected"),
        [
            ("2026-06-03T20:59", "2026-06-03T09:00"),  # UTC-12 has it a minute later
            ("2026-06-03T21:00", "2026-06-04T09:00"),
        ],
    )
    def test_a_user_local_firing_counts_while_its_last_wave_is_ahead(self, now, expected):
        assert first_firing(daily(mode="user_local"), now=at(now)).occurrence_at == at(expected)

    def test_a_user_local_firing_that_is_open_already_is_passed_over(self):
        timing = daily(mode="user_local")
        firing = first_firing(timing, now=at("2026-06-03T12:00"), after=at("2026-06-03T09:00"))
        assert firing.occurrence_at == at("2026-06-04T09:00")

    def test_an_earlier_occurrence_does_not_hold_back_what_lies_ahead(self):
        firing = first_firing(daily(), now=at("2026-06-10T12:00"), after=at("2026-06-03T09:00"))
        assert firing.occurrence_at == at("2026-06-11T09:00")

    @pytest.mark.parametrize(("mode", "last"), [("fixed", "2026-06-01T10:00"), ("user_local", "2026-06-01T22:00")])
    def test_a_one_off_may_start_until_the_grace_after_its_last_wave_is_over(self, mode, last):
        assert first_firing(once(mode=mode), now=at(last)) is not None
        assert first_firing(once(mode=mode), now=at(last) + SECOND) is None
        assert first_firing(once(mode=mode), now=at(last), grace=HOUR / 2) is None

    def test_a_one_off_that_was_opened_does_not_start_again(self):
        assert first_firing(once(), now=at("2026-05-01T00:00"), runs=1) is None


class TestNextRuns:
    def test_the_next_runs_follow_each_other(self):
        assert days(next_runs(daily(), now=at("2026-06-03T10:00"), count=3)) == [4, 5, 6]

    def test_none_are_asked_and_none_are_given(self):
        assert next_runs(daily(), now=at("2026-06-03T10:00"), count=0) == []

    def test_runs_opened_before_count_toward_the_number_of_runs(self):
        timing = daily(max_runs=5)
        assert days(next_runs(timing, now=at("2026-06-03T10:00"), count=9, runs=3)) == [4, 5]

    def test_a_one_off_is_shown_until_it_is_due_everywhere(self):
        assert len(next_runs(once(), now=at("2026-06-01T08:59"), count=5)) == 1
        assert next_runs(once(), now=at("2026-06-01T09:01"), count=5) == []


class TestMisfire:
    due = at("2026-06-01T09:00")

    @pytest.mark.parametrize(
        ("late", "started", "verdict"),
        [
            (timedelta(0), False, "run"),
            (MISFIRE_GRACE, False, "run"),
            (MISFIRE_GRACE + SECOND, False, "expired"),
            (MISFIRE_GRACE + SECOND, True, "run"),
            (-HOUR, False, "run"),
        ],
    )
    def test_a_wave_expires_when_it_has_not_started_within_the_grace(self, late, started, verdict):
        assert judge(self.due, now=self.due + late, grace=MISFIRE_GRACE, started=started) == verdict

    def test_a_grace_of_zero_still_lets_a_wave_start_at_its_instant(self):
        assert judge(self.due, now=self.due, grace=timedelta(0), started=False) == "run"
        assert judge(self.due, now=self.due + SECOND, grace=timedelta(0), started=False) == "expired"

    def test_lateness_is_never_negative(self):
        assert lateness(self.due, now=self.due + HOUR) == HOUR
        assert lateness(self.due, now=self.due - HOUR) == timedelta(0)


class TestZones:
    @pytest.mark.parametrize("name", NO_ZONES)
    def test_what_is_not_a_zone_of_the_pinned_data_is_refused(self, name):
        with pytest.raises(UnknownZone, match="Europe/Berlin"):
            zone(name)

    def test_every_listed_zone_can_be_loaded(self):
        assert len(ZONE_NAMES) > 590
        assert {zone(name).key for name in ZONE_NAMES} == ZONE_NAMES

    def test_every_listed_zone_stays_between_the_extremes_that_firings_span(self):
        moments = [datetime(year, month, 1, tzinfo=UTC) for year in range(1970, 2051) for month in (1, 4, 7, 10)]
        for name in ZONE_NAMES:
            offsets = {moment.astimezone(zone(name)).utcoffset() for moment in moments}
            assert timedelta(hours=-12) <= min(offsets), name
            assert max(offsets) <= timedelta(hours=14), name

    def test_the_version_of_the_zone_data_is_a_release_of_the_database(self):
        assert TZDATA_VERSION[:4].isdigit()
        assert TZDATA_VERSION >= "2026f"

    def test_an_aware_wall_time_is_a_mistake(self):
        with pytest.raises(ValueError, match="wall time"):
            due_instant(at("2026-06-01T09:00"), "UTC")

    def test_a_profile_with_an_invalid_zone_is_simply_absent_from_the_table_of_zones(self):
        table = due_by_zone(wall("2026-06-01T09:00"))
        assert table.get("Europe/Bonn", table["Europe/Berlin"]) == at("2026-06-01T07:00")

    def test_the_table_of_zones_cannot_be_changed_by_who_got_it(self):
        assert isinstance(due_by_zone(wall("2026-06-01T09:00")), MappingProxyType)


class TestCrons:
    @pytest.mark.parametrize(
        ("expression", "elapsed"),
        [
            ("0 9 * * *", False),
            ("0,30 9-17 * * *", False),
            ("*/15 9 * * *", True),
            ("0 * * * *", True),
            ("0/20 9 * * *", True),
            ("0 8-18/2 * * *", True),
            ("0 9 */2 * *", False),
        ],
    )
    def test_a_star_or_a_step_in_minute_or_hour_makes_a_cron_elapsed(self, expression, elapsed):
        assert parse(expression).elapsed is elapsed

    def test_case_and_spacing_do_not_matter(self):
        assert parse("0  9\t* * mon-Fri").expression == "0 9 * * MON-FRI"

    @pytest.mark.parametrize("sunday", ["0", "7", "SUN", "sun"])
    def test_sunday_has_three_names(self, sunday):
        assert next(parse(f"0 9 * * {sunday}").walls(after=wall("2026-06-01"))) == wall("2026-06-07T09:00")

    def test_day_of_month_and_weekday_both_given_mean_either(self):
        walls = parse("0 9 13 * FRI").walls(after=wall("2026-06-05T09:00"))
        assert [next(walls).day for _ in range(3)] == [12, 13, 19]

    def test_a_star_in_front_of_either_means_both(self):
        walls = parse("0 9 */2 * FRI").walls(after=wall("2026-06-01"))
        assert [next(walls).day for _ in range(2)] == [5, 19]

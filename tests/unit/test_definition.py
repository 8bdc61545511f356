"""A definition as one value: its keys on the wire, its timing, and what holds without a database."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schedules.definition import TIMING_FIELDS, WIRE, Definition, InvalidDefinition, check, check_changes, check_draft
from schedules.models import Channel, OnPast, Schedule, ScheduleType, TimeZoneMode
from schedules.problems import Problem

PLAIN = Definition(name="Offer", channel="email", template_id=None, schedule_type="once")

NAIVE = datetime.fromisoformat("2026-12-01T09:00:00")

instants = st.none() | st.datetimes(timezones=st.just(UTC))
limits = st.none() | st.integers(1, 1_000_000)
definitions = st.builds(
    Definition,
    name=st.text(max_size=20),
    channel=st.sampled_from(Channel.values),
    template_id=st.none() | st.integers(1, 10**9),
    schedule_type=st.sampled_from(ScheduleType.values),
    audience_query=st.just({"all": []}) | st.just({"field": "tags", "op": "contains", "value": "vip"}),
    run_at=instants,
    cron=st.sampled_from(["", "0 9 * * *"]),
    time_zone=st.sampled_from(["UTC", "Europe/Berlin"]),
    time_zone_mode=st.sampled_from(TimeZoneMode.values),
    start_at=instants,
    end_at=instants,
    max_runs=limits,
    max_per_user_per_day=limits,
    max_per_user_per_week=limits,
    counts_toward_caps=st.booleans(),
    max_per_minute=limits,
    send_window=st.none() | st.just({"days": ["mon", "sun"], "from": "22:00", "to": "06:00"}),
    expires_after_minutes=st.none() | st.integers(1, 10_080),
    misfire_grace_minutes=st.integers(0, 10_080),
    on_past=st.sampled_from(OnPast.values),
    recheck_audience=st.none() | st.booleans(),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(definitions)
def test_a_definition_comes_back_from_json_as_it_went(definition):
    assert Definition.from_json(definition.to_json()) == definition


def test_every_field_has_a_key_on_the_wire_and_a_column():
    names = {field.name for field in fields(Definition)}
    assert set(WIRE) == names
    assert set(PLAIN.to_json()) == set(WIRE.values())
    columns = {field.attname for field in Schedule._meta.concrete_fields}
    assert names <= columns


def test_instants_are_written_in_utc():
    vienna = timezone(timedelta(hours=1))
    written = replace(PLAIN, run_at=datetime(2026, 12, 1, 9, 0, tzinfo=vienna)).to_json()
    assert written["runAt"] == "2026-12-01T08:00:00Z"


@given(definitions)
def test_a_definition_is_what_its_schedule_holds(definition):
    schedule = Schedule(**{field.name: getattr(definition, field.name) for field in fields(definition)})
    assert Definition.of(schedule) == definition


@given(definitions, definitions)
def test_two_timings_differ_only_where_a_field_of_timing_does(one, other):
    differing = {name for name in WIRE if getattr(one, name) != getattr(other, name)}
    assert (one.timing() != other.timing()) == bool(differing & TIMING_FIELDS)


@pytest.mark.parametrize(
    ("mode", "asked", "rechecks"),
    [
        ("user_local", None, True),
        ("user_local", False, False),
        ("fixed", None, False),
        ("fixed", True, True),
    ],
)
def test_the_audience_is_asked_again_by_default_where_waves_lie_far_apart(mode, asked, rechecks):
    assert replace(PLAIN, time_zone_mode=mode, recheck_audience=asked).rechecks_audience is rechecks


def test_what_fits_is_a_draft():
    assert check_draft(PLAIN) == []
    assert check_draft(replace(PLAIN, audience_query={"field": "shoe_size"}, cron="at noon", time_zone="Mars")) == []


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"name": ""}, "name", "required"),
        ({"name": " "}, "name", "required"),
        ({"name": "x" * 201}, "name", "invalid"),
        ({"name": "a\nb"}, "name", "invalid"),
        ({"channel": "fax"}, "channel", "unknown"),
        ({"schedule_type": "daily"}, "scheduleType", "unknown"),
        ({"time_zone_mode": "lunar"}, "timeZoneMode", "unknown"),
        ({"on_past": "maybe"}, "onPast", "unknown"),
        ({"max_per_user_per_day": 0}, "maxPerUserPerDay", "out_of_range"),
        ({"max_per_user_per_day": 1_000_001}, "maxPerUserPerDay", "out_of_range"),
        ({"max_per_user_per_week": -3}, "maxPerUserPerWeek", "out_of_range"),
        ({"misfire_grace_minutes": -1}, "misfireGraceMinutes", "out_of_range"),
        ({"misfire_grace_minutes": 10_081}, "misfireGraceMinutes", "out_of_range"),
        ({"max_runs": 0}, "maxRuns", "out_of_range"),
        ({"max_runs": 2**31}, "maxRuns", "out_of_range"),
        ({"cron": "x" * 201}, "cron", "too_long"),
        ({"cron": "\0"}, "cron", "too_long"),
        ({"time_zone": "x" * 65}, "timeZone", "too_long"),
        ({"run_at": NAIVE.replace(year=9999, tzinfo=UTC)}, "runAt", "out_of_range"),
        ({"audience_query": {"value": "a\0"}}, "audienceQuery", "invalid"),
        ({"run_at": NAIVE}, "runAt", "naive"),
        ({"start_at": NAIVE.replace(tzinfo=UTC), "end_at": NAIVE.replace(tzinfo=UTC)}, "endAt", "before_start"),
    ],
)
def test_even_a_draft_is_refused_by_field_and_code(changes, field, code):
    problems = check_draft(replace(PLAIN, **changes))
    assert [(problem.field, problem.code) for problem in problems] == [(field, code)]
    assert problems[0].message


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": None}, "name"),
        ({"channel": ["email"]}, "channel"),
        ({"audience_query": None}, "audienceQuery"),
        ({"audience_query": [1]}, "audienceQuery"),
        ({"template_id": "x"}, "templateId"),
        ({"template_id": True}, "templateId"),
        ({"schedule_type": 1}, "scheduleType"),
        ({"run_at": "2026-12-01T09:00:00Z"}, "runAt"),
        ({"run_at": NAIVE.date()}, "runAt"),
        ({"cron": None}, "cron"),
        ({"time_zone": None}, "timeZone"),
        ({"time_zone_mode": {}}, "timeZoneMode"),
        ({"start_at": 0}, "startAt"),
        ({"end_at": "tomorrow"}, "endAt"),
        ({"max_runs": "3"}, "maxRuns"),
        ({"max_runs": 2.5}, "maxRuns"),
        ({"max_per_user_per_day": True}, "maxPerUserPerDay"),
        ({"max_per_user_per_week": 1.0}, "maxPerUserPerWeek"),
        ({"counts_toward_caps": None}, "countsTowardCaps"),
        ({"max_per_minute": 0.5}, "maxPerMinute"),
        ({"send_window": "mornings"}, "sendWindow"),
        ({"expires_after_minutes": 1.5}, "expiresAfterMinutes"),
        ({"misfire_grace_minutes": None}, "misfireGraceMinutes"),
        ({"on_past": None}, "onPast"),
        ({"recheck_audience": 3}, "recheckAudience"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_by_its_field_on_the_wire(changes, field):
    for problems in (
        check_changes(changes),
        check_draft(replace(PLAIN, **changes)),
        check(replace(PLAIN, **changes), now=NAIVE.replace(tzinfo=UTC)),
    ):
        assert [(problem.field, problem.code) for problem in problems] == [(field, "wrong_type")]
        assert problems[0].message.startswith("Use ")


def test_every_field_has_its_types():
    assert check_changes(vars(PLAIN)) == []
    assert {problem.field for problem in check_changes(dict.fromkeys(WIRE, object()))} == set(WIRE.values())


def test_a_field_that_does_not_exist_is_named():
    assert [(problem.field, problem.code) for problem in check_changes({"foo": 1})] == [("foo", "unknown")]


def nested(levels):
    query = {"all": []}
    for _ in range(levels):
        query = {"not": query}
    return query


@pytest.mark.parametrize(
    "query",
    [
        {"value": float("nan")},
        {"value": [float("-inf")]},
        {"value": 10**5000},
        {"value": "a\0"},
        {"a\0": 1},
        {"value": {"deep": ["\ud800"]}},
        {"value": {1, 2}},
        {1: "one"},
        nested(32),
        nested(100_000),
        {"all": [0] * 100_000},
    ],
    ids=["nan", "infinity", "huge", "nul", "nul key", "surrogate", "set", "key", "deep", "abyss", "many"],
)
def test_a_draft_s_audience_is_json_that_can_be_kept(query):
    problems = check_draft(replace(PLAIN, audience_query=query))
    assert [(problem.field, problem.code) for problem in problems] == [("audienceQuery", "invalid")]
    assert problems[0].message


def test_a_draft_s_audience_may_be_no_query_yet():
    query = {"all": [{"any": [None, True, 1.5, -3, "ä😀"]}], "note": nested(10)}
    assert check_draft(replace(PLAIN, audience_query=query)) == []


def test_the_error_tells_every_problem():
    error = InvalidDefinition([Problem("name", "required", "Give a name."), Problem("cron", "syntax", "Write one.")])
    assert str(error) == "name: Give a name.; cron: Write one."
    assert [problem.field for problem in error.problems] == ["name", "cron"]

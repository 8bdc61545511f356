"""What the operators mean, told on one profile at a time."""

import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedules.audience.instants import highest_text, lowest_text, read_instant, read_instant_or_date
from schedules.audience.matching import Profile, matches, reachable_channels, verdicts
from schedules.audience.parser import parse
from schedules.audience.tree import AllOf, AnyOf, Clause, Field, Node, Not, Operator

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

ADA = Profile(
    external_id="ada-1",
    locale="de-AT",
    time_zone="Europe/Vienna",
    created_at=NOW - timedelta(days=3),
    tags=["vip", "beta"],
    channels=frozenset({"email", "in_app"}),
    attributes={
        "plan": "pro",
        "age": 36,
        "score": 0.5,
        "active": True,
        "referrer": None,
        "interests": ["maths", 7, None, ["deep"]],
        "address_parts": {"city": "Graz"},
        "last_order": "2026-02-28T09:30:00+01:00",
        "birthday": "1990-12-10",
        "note": "50%_off\\",
        "year": "2026",
    },
)
NOBODY = Profile("n", "", "", NOW, [], frozenset(), {})


def holds(field, op, value, profile=ADA):
    return matches(parse({"field": field, "op": op, "value": value}), profile, now=NOW)


@pytest.mark.parametrize(
    ("name", "op", "value", "expected"),
    [
        ("plan", "eq", "pro", True),
        ("plan", "eq", "Pro", False),
        ("plan", "ne", "free", True),
        ("age", "eq", 36.0, True),
        ("age", "eq", "36", False),
        ("age", "gt", 35.9, True),
        ("age", "gt", 36, False),
        ("age", "gte", 36, True),
        ("age", "lt", 36, False),
        ("age", "lte", 36, True),
        ("active", "eq", True, True),
        ("active", "eq", 1, False),
        ("active", "gt", 0, False),
        ("year", "gt", 0, False),
        ("interests", "eq", "maths", False),
        ("interests", "contains", "maths", True),
        ("interests", "contains", 7.0, True),
        ("interests", "contains", "deep", False),
        ("interests", "contains", True, False),
        ("interests", "in", ["maths"], False),
        ("address_parts", "contains", "city", False),
        ("plan", "contains", "ro", True),
        ("plan", "contains", "RO", False),
        ("age", "contains", 3, False),
        ("age", "contains", "3", False),
        ("note", "contains", "%_", True),
        ("plan", "contains", "%", False),
        ("plan", "starts_with", "pr", True),
        ("plan", "starts_with", "p_", False),
        ("age", "starts_with", "3", False),
        ("plan", "in", ["free", "pro"], True),
        ("active", "in", [1, "true"], False),
        ("age", "in", [36.0], True),
        ("plan", "not_in", ["free"], True),
        ("plan", "exists", True, True),
        ("referrer", "exists", True, False),
        ("referrer", "exists", False, True),
        ("referrer", "eq", "x", False),
        ("last_order", "before", "2026-02-28T08:30:01Z", True),
        ("last_order", "before", "2026-02-28T08:30:00Z", False),
        ("last_order", "after", "2026-02-28T08:30:00Z", False),
        ("last_order", "within_last", "28h", True),
        ("last_order", "within_last", "27h", False),
        ("birthday", "before", "1990-12-10T00:00:01Z", True),
        ("birthday", "after", "1990-12-09T23:59:59Z", True),
        ("plan", "before", "2026-02-28T08:30:00Z", False),
        ("age", "after", "1990-12-09T23:59:59Z", False),
    ],
)
def test_attributes(name, op, value, expected):
    assert holds(f"attributes.{name}", op, value) is expected


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("eq", "x", False),
        ("ne", "x", True),
        ("in", ["x"], False),
        ("not_in", ["x"], True),
        ("gt", 0, False),
        ("lte", 0, False),
        ("contains", "x", False),
        ("starts_with", "x", False),
        ("exists", True, False),
        ("exists", False, True),
        ("before", "2026-01-01T00:00:00Z", False),
        ("after", "2026-01-01T00:00:00Z", False),
        ("within_last", "9d", False),
    ],
)
def test_an_absent_attribute_fails_all_but_the_opposites(op, value, expected):
    assert holds("attributes.none", op, value) is expected


@pytest.mark.parametrize(
    ("field", "op", "value", "expected"),
    [
        ("external_id", "eq", "ada-1", True),
        ("external_id", "starts_with", "ada", True),
        ("external_id", "in", ["x", "ada-1"], True),
        ("locale", "starts_with", "de", True),
        ("locale", "ne", "de", True),
        ("locale", "exists", True, True),
        ("time_zone", "contains", "/V", True),
        ("time_zone", "not_in", ["Europe/Vienna"], False),
        ("created_at", "within_last", "3d", True),
        ("created_at", "within_last", "71h", False),
        ("created_at", "before", "2026-03-01T12:00:00Z", True),
        ("created_at", "after", "2026-02-26T12:00:00Z", False),
        ("tags", "contains", "vip", True),
        ("tags", "contains", "vi", False),
        ("tags", "in", ["x", "beta"], True),
        ("tags", "not_in", ["x", "beta"], False),
        ("tags", "exists", True, True),
        ("channels", "contains", "push", False),
        ("channels", "in", ["push", "email"], True),
        ("channels", "not_in", ["push"], True),
    ],
)
def test_columns_tags_and_channels(field, op, value, expected):
    assert holds(field, op, value) is expected


def test_empty_is_absent():
    assert holds("locale", "exists", False, NOBODY)
    assert holds("time_zone", "ne", "UTC", NOBODY)
    assert holds("tags", "exists", False, NOBODY)
    assert not holds("channels", "in", ["push", "email", "in_app"], NOBODY)


def test_what_lies_ahead_is_not_within_the_last_days():
    ahead = Profile("x", "", "", NOW + timedelta(seconds=1), [], [], {})
    assert not holds("created_at", "within_last", "7d", ahead)
    assert holds("created_at", "within_last", "7d", NOBODY)


def test_groups():
    vip = {"field": "tags", "op": "contains", "value": "vip"}
    push = {"field": "channels", "op": "contains", "value": "push"}
    for query, expected in [
        ({"all": []}, True),
        ({"not": {"all": []}}, False),
        ({"all": [vip, push]}, False),
        ({"any": [vip, push]}, True),
        ({"all": [vip, {"not": push}]}, True),
    ]:
        assert matches(parse(query), ADA, now=NOW) is expected


def test_numbers_of_any_size_are_compared_exactly():
    big = Profile("x", "", "", NOW, [], [], {"n": 2**53 + 1, "f": 0.1, "huge": 10**5_000})
    assert holds("attributes.n", "gt", 2**53 - 1, big)
    assert holds("attributes.huge", "gt", 0.5, big)
    assert not holds("attributes.f", "gt", 0.1, big)


@pytest.mark.parametrize(
    ("has_email", "has_device", "consent", "expected"),
    [
        (True, True, {}, {"email", "push", "in_app"}),
        (False, False, {}, {"in_app"}),
        (True, True, {"email": False, "in_app": False}, {"push"}),
        (True, False, {"email": True, "push": True}, {"email", "in_app"}),
        (True, False, {"email": None, "in_app": "false"}, {"email", "in_app"}),
    ],
)
def test_a_channel_reaches_who_has_an_address_and_did_not_opt_out(has_email, has_device, consent, expected):
    assert reachable_channels(has_email=has_email, has_device=has_device, consent=consent) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00Z",
        "1900-02-29T00:00Z",
        "2026-04-31T00:00Z",
        "2026-00-10T00:00Z",
        "2026-01-00T00:00Z",
        "0999-01-01T00:00Z",
        "2026-01-01T24:00Z",
        "2026-01-01T23:60Z",
        "2026-01-01T23:59:60Z",
        "2026-01-01T10:00",
        "2026-01-01T10:00+15:00",
        "2026-01-01T10:00+0100",
        "2026-01-01T10:00.5Z",
        "2026-01-01T10:00:00.1234567Z",
        "2026-1-1T10:00Z",
        "20260101T100000Z",
        "2026-W01-1T10:00Z",
        "٢٠٢٦-01-01T10:00Z",
        "2026-01-01T10:00z",
        " 2026-01-01T10:00Z",
        "2026-01-01T10:00Z\n",
        "now",
        "infinity",
        "",
    ],
)
def test_no_instant(text):
    assert read_instant(text) is None
    assert read_instant_or_date(text) is None


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024-02-29T10:00Z", datetime(2024, 2, 29, 10, tzinfo=UTC)),
        ("2000-02-29 10:00:30Z", datetime(2000, 2, 29, 10, 0, 30, tzinfo=UTC)),
        ("2026-07-01T10:00:00.5+05:45", datetime(2026, 7, 1, 4, 15, 0, 500_000, tzinfo=UTC)),
        ("2026-01-01T00:00:00-11:00", datetime(2026, 1, 1, 11, tzinfo=UTC)),
    ],
)
def test_an_instant_has_its_offset(text, instant):
    assert read_instant(text) == instant


def test_every_day_of_the_calendar_is_a_date_and_no_other():
    for year in (1000, 1600, 1899, 1900, 2000, 2023, 2024, 2100, 9996, 9999):
        for month, day in itertools.product(range(14), range(33)):
            try:
                expected = datetime(year, month, day, tzinfo=UTC)
            except ValueError:
                expected = None
            assert read_instant_or_date(f"{year}-{month:02}-{day:02}") == expected


@given(
    st.integers(-30_610_137_600, 253_402_128_000).map(lambda second: datetime.fromtimestamp(second, UTC)),
    st.timedeltas(timedelta(hours=-14, minutes=-59), timedelta(hours=14, minutes=59)),
    st.timedeltas(timedelta(0), timedelta(days=2)),
)
def test_texts_of_instants_lie_within_their_bounds(instant, offset, distance):
    zone = timezone(timedelta(minutes=offset // timedelta(minutes=1)))
    later = instant + min(distance, datetime(9999, 12, 31, tzinfo=UTC) - instant)
    assert lowest_text(instant) <= later.astimezone(zone).isoformat()
    assert instant.astimezone(zone).isoformat() < highest_text(later)
    assert lowest_text(instant) <= later.date().isoformat()
    assert instant.date().isoformat() < highest_text(later)


def test_a_date_is_its_midnight_in_utc():
    assert read_instant_or_date("2024-02-29") == datetime(2024, 2, 29, tzinfo=UTC)
    assert read_instant_or_date("2023-02-29") is None
    assert read_instant("2024-02-29") is None


# Verdicts

TRUE, FALSE = (Clause(Field.LOCALE, Operator.EQ, locale) for locale in ("de-AT", "xx"))
TREES = st.recursive(
    st.sampled_from([TRUE, FALSE]),
    lambda part: st.one_of(
        st.builds(Not, part),
        st.builds(AllOf, st.lists(part, min_size=1, max_size=3).map(tuple)),
        st.builds(AnyOf, st.lists(part, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)


def without(node: Node, pointers: set[str], at: str = "") -> Node:
    """The same tree in which the clauses at ``pointers`` say the opposite."""
    match node:
        case AllOf(parts):
            return AllOf(tuple(without(part, pointers, f"{at}/all/{i}") for i, part in enumerate(parts)))
        case AnyOf(parts):
            return AnyOf(tuple(without(part, pointers, f"{at}/any/{i}") for i, part in enumerate(parts)))
        case Not(part):
            return Not(without(part, pointers, f"{at}/not"))
    return {TRUE: FALSE, FALSE: TRUE}[node] if at in pointers else node


@given(TREES, st.data())
def test_the_answer_hangs_on_nothing_but_the_clauses_that_decide(tree, data):
    judged = verdicts(tree, ADA, now=NOW)
    assert judged[0].holds is matches(tree, ADA, now=NOW)
    for each in judged:
        assert each.holds is matches(each.node, ADA, now=NOW)
    idle = [each.pointer for each in judged if isinstance(each.node, Clause) and not each.decides]
    turned = data.draw(st.sets(st.sampled_from(idle))) if idle else set()
    assert matches(without(tree, turned), ADA, now=NOW) is judged[0].holds
    deciding = {each.pointer for each in judged if isinstance(each.node, Clause) and each.decides}
    if deciding:
        assert matches(without(tree, deciding), ADA, now=NOW) is not judged[0].holds


def test_a_verdict_says_where_it_stands_and_what_the_profile_has_there():
    vip = {"field": "tags", "op": "contains", "value": "vip"}
    query = {"any": [{"field": "attributes.plan", "op": "eq", "value": "free"}, {"not": vip}]}
    assert [(each.pointer, each.holds, each.held) for each in verdicts(parse(query), ADA, now=NOW)] == [
        ("", False, None),
        ("/any/0", False, "pro"),
        ("/any/1", False, None),
        ("/any/1/not", True, ["beta", "vip"]),
    ]

"""The audience parser: what it reads, and everything it refuses, each with a pointer and a remedy."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from schedules.audience import values
from schedules.audience.parser import MAX_DEPTH, MAX_NODES, MAX_PROBLEMS, InvalidAudience, parse, parse_text
from schedules.audience.tree import (
    EVERYONE,
    RULES,
    AllOf,
    AnyOf,
    Clause,
    Field,
    Kind,
    Not,
    Operator,
    digest,
    to_json,
)

PRO = {"field": "attributes.plan", "op": "eq", "value": "pro"}

VALID_VALUES = {
    Kind.TEXT: "de",
    Kind.TEXTS: ["de", "en"],
    Kind.TAGS: ["vip", "beta"],
    Kind.SCALAR: "de",
    Kind.SCALARS: ["de", 1, 2.5, True],
    Kind.NUMBER: 30,
    Kind.BOOLEAN: False,
    Kind.INSTANT: "2026-03-01T09:00:00Z",
    Kind.DURATION: "7d",
    Kind.CHANNEL: "push",
    Kind.CHANNELS: ["push", "email"],
}


def problems(data):
    with pytest.raises(InvalidAudience) as caught:
        parse(data)
    return [(problem.pointer, problem.code) for problem in caught.value.problems]


def clause(field="attributes.plan", op="eq", value="pro"):
    return {"field": field, "op": op, "value": value}


def test_reads_groups_and_clauses_into_a_frozen_tree():
    data = {
        "all": [
            PRO,
            {"any": [clause("locale", "starts_with", "de"), {"not": clause("tags", "exists", True)}]},
        ]
    }
    tree = parse(data)
    assert tree == AllOf(
        (
            Clause(Field.ATTRIBUTE, Operator.EQ, "pro", "plan"),
            AnyOf(
                (
                    Clause(Field.LOCALE, Operator.STARTS_WITH, "de"),
                    Not(Clause(Field.TAGS, Operator.EXISTS, True)),
                )
            ),
        )
    )
    with pytest.raises(AttributeError):
        tree.parts = ()


def test_a_clause_alone_is_a_query():
    assert parse(PRO) == Clause(Field.ATTRIBUTE, Operator.EQ, "pro", "plan")


def test_everyone_is_asked_for_explicitly():
    assert parse({"all": []}) == EVERYONE
    assert problems({}) == [("", "empty_query")]
    assert problems({"all": [{}]}) == [("/all/0", "empty_query")]
    assert problems({"any": []}) == [("/any", "empty_any")]


@pytest.mark.parametrize(
    ("field", "operator", "kind"),
    [(field, op, kind) for field, fits in RULES.items() for op, kind in fits.items()],
)
def test_every_rule_reads_its_kind_and_its_json_reads_back(field, operator, kind):
    name = "attributes.größe-2_a" if field is Field.ATTRIBUTE else str(field)
    data = clause(name, str(operator), VALID_VALUES[kind])
    assert to_json(parse(data)) == data
    assert parse(to_json(parse(data))) == parse(data)


@pytest.mark.parametrize("field", Field)
@pytest.mark.parametrize("operator", Operator)
def test_an_operator_that_does_not_fit_its_field_is_refused(field, operator):
    if operator not in RULES[field]:
        name = "attributes.x" if field is Field.ATTRIBUTE else str(field)
        assert problems(clause(name, str(operator), "x")) == [("/op", "operator_not_for_field")]


def test_values_are_normalised():
    assert parse(clause(value=1.0)).value == 1
    assert isinstance(parse(clause(value=1.0)).value, int)
    assert parse(clause(op="in", value=[1, True, 1.0, "1", 1])).value == (1, True, "1")
    assert parse(clause("created_at", "before", "2026-03-01T10:00+05:45")).value == datetime(
        2026, 3, 1, 4, 15, tzinfo=UTC
    )
    assert parse(clause("created_at", "within_last", "2w")).value == timedelta(days=14)


@pytest.mark.parametrize(("written", "canonical"), [("2w", "14d"), ("48h", "2d"), ("36h", "36h"), ("90m", "90m")])
def test_durations_have_one_canonical_form(written, canonical):
    assert to_json(parse(clause("created_at", "within_last", written)))["value"] == canonical


def test_one_digest_for_one_meaning():
    assert digest(parse(clause(value=1))) == digest(parse(clause(value=1.0)))
    assert digest(parse(clause(value=1))) != digest(parse(clause(value=True)))
    assert digest(parse({"value": "pro", "op": "eq", "field": "attributes.plan"})) == digest(parse(PRO))


def test_all_problems_are_told_at_once_each_at_its_place():
    data = {
        "all": [
            {"field": "colour", "op": "equals", "value": 1},
            {"op": "eq", "value": "x"},
            clause("tags", "in", ["a", "", 3]),
            {"any": [clause("attributes.age", "gt", "30"), {"all": [], "not": PRO}, 7]},
            {**PRO, "boost": 2},
        ]
    }
    assert problems(data) == [
        ("/all/0/field", "unknown_field"),
        ("/all/0/op", "unknown_operator"),
        ("/all/1", "missing_key"),
        ("/all/2/value/1", "empty_value"),
        ("/all/2/value/2", "wrong_type"),
        ("/all/3/any/0/value", "wrong_type"),
        ("/all/3/any/1", "unknown_key"),
        ("/all/3/any/2", "wrong_type"),
        ("/all/4", "unknown_key"),
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], ("", "wrong_type")),
        (None, ("", "wrong_type")),
        ("all", ("", "wrong_type")),
        ({"all": PRO}, ("/all", "wrong_type")),
        ({"not": [PRO]}, ("/not", "wrong_type")),
        ({"or": [PRO]}, ("", "unknown_key")),
        (clause(field=7), ("/field", "wrong_type")),
        (clause(op=None), ("/op", "wrong_type")),
        (clause("attributes"), ("/field", "unknown_field")),
        (clause("attributes."), ("/field", "invalid_attribute")),
        (clause("attributes.a.b"), ("/field", "invalid_attribute")),
        (clause("attributes.a'b"), ("/field", "invalid_attribute")),
        (clause("attributes.a\n"), ("/field", "invalid_attribute")),
        (clause("attributes." + "a" * 65), ("/field", "invalid_attribute")),
        (clause(value=None), ("/value", "wrong_type")),
        (clause(value={"$gt": 1}), ("/value", "wrong_type")),
        (clause(value=["pro"]), ("/value", "wrong_type")),
        (clause(value=float("nan")), ("/value", "not_finite")),
        (clause(value=float("-inf")), ("/value", "not_finite")),
        (clause(value=10**400), ("/value", "out_of_range")),
        (clause(value=-1e300), ("/value", "out_of_range")),
        (clause(value="x" * 257), ("/value", "too_long")),
        (clause(value="a\0b"), ("/value", "invalid_text")),
        (clause(value="\ud800"), ("/value", "invalid_text")),
        (clause(op="gt", value=True), ("/value", "wrong_type")),
        (clause(op="in", value="pro"), ("/value", "wrong_type")),
        (clause(op="in", value=[]), ("/value", "empty_list")),
        (clause(op="in", value=["x"] * 1_001), ("/value", "too_many_values")),
        (clause("tags", "in", ["x"] * 51), ("/value", "too_many_values")),
        (clause(op="in", value=[["x"]]), ("/value/0", "wrong_type")),
        (clause(op="exists", value=1), ("/value", "wrong_type")),
        (clause("locale", "eq", ""), ("/value", "empty_value")),
        (clause("locale", "eq", 7), ("/value", "wrong_type")),
        (clause("channels", "contains", "sms"), ("/value", "unknown_channel")),
        (clause("channels", "in", ["push", []]), ("/value/1", "unknown_channel")),
        (clause("created_at", "before", "2026-03-01T09:00:00"), ("/value", "wrong_type")),
        (clause("created_at", "before", "2026-02-29T09:00:00Z"), ("/value", "wrong_type")),
        (clause("created_at", "before", "2026-03-01"), ("/value", "wrong_type")),
        (clause("created_at", "before", "9999-12-31T23:59:59-14:00"), ("/value", "wrong_type")),
        (clause("created_at", "before", "2026-03-01T09:00:00Z\n"), ("/value", "wrong_type")),
        (clause("created_at", "within_last", "7 days"), ("/value", "wrong_type")),
        (clause("created_at", "within_last", "0d"), ("/value", "wrong_type")),
        (clause("created_at", "within_last", "523w"), ("/value", "out_of_range")),
    ],
)
def test_bad_input_is_refused_at_its_place(data, expected):
    assert problems(data) == [expected]


@pytest.mark.parametrize(
    "name",
    [
        "email",
        "address",
        "token",
        "devices",
        "devices.token",
        "attributes.email",
        "attributes.E-Mail",
        "phone_number",
    ],
)
def test_direct_identifiers_have_a_refusal_of_their_own(name):
    with pytest.raises(InvalidAudience, match="Addresses and device tokens can't be queried") as caught:
        parse(clause(name, "eq", "ada@example.com"))
    assert [(problem.pointer, problem.code) for problem in caught.value.problems] == [("/field", "identifier_field")]
    assert "ada@" not in str(caught.value)


def test_every_problem_says_what_to_do_and_repeats_no_value():
    secret = "0612-345678"
    with pytest.raises(InvalidAudience) as caught:
        parse(
            {
                "all": [
                    clause("attributes.age", "gt", secret),
                    clause("time_zone", "in", secret),
                    clause("colour"),
                ]
            }
        )
    messages = [problem.message for problem in caught.value.problems]
    assert messages == [
        "The value must be a number.",
        "The value must be a list of texts.",
        'Unknown field "colour"; known are external_id, locale, time_zone, created_at, tags, channels, '
        "attributes.<name>.",
    ]


def test_a_near_miss_is_recognised():
    with pytest.raises(InvalidAudience, match='did you mean "time_zone"'):
        parse(clause("timezone", "eq", "Europe/Berlin"))
    with pytest.raises(InvalidAudience, match='did you mean "starts_with"'):
        parse(clause(op="startswith"))


def nested(levels):
    data = PRO
    for _ in range(levels):
        data = {"not": data}
    return data


def test_depth_is_bounded():
    parse(nested(MAX_DEPTH - 1))
    assert problems(nested(MAX_DEPTH)) == [("/not" * MAX_DEPTH, "too_deep")]


def test_a_depth_bomb_is_one_problem():
    assert problems(nested(100_000)) == [("/not" * MAX_DEPTH, "too_deep")]
    text = '{"all":[' * 100_000 + "]}" * 100_000
    with pytest.raises(InvalidAudience) as caught:
        parse_text(text)
    assert [problem.code for problem in caught.value.problems] == ["too_deep"]


def test_size_is_bounded():
    parse({"all": [PRO] * (MAX_NODES - 1)})
    assert problems({"all": [PRO] * MAX_NODES}) == [("", "too_many_nodes")]
    assert problems({"all": [{"all": [PRO] * 48}, {"not": PRO}]}) == [("", "too_many_nodes")]
    assert problems({"all": [PRO] * 1_000_000}) == [("", "too_many_nodes")]


def test_the_list_of_problems_is_bounded():
    assert len(problems(clause("external_id", "in", [0] * 1_000))) == MAX_PROBLEMS
    assert len(problems({str(key): 0 for key in range(10_000)})) == MAX_PROBLEMS


def test_names_that_no_encoder_takes_are_made_fit_for_an_answer():
    with pytest.raises(InvalidAudience) as caught:
        parse({"\ud800" * 1_000: 1, **PRO})
    (problem,) = caught.value.problems
    assert len(problem.message.encode("utf-8")) < 200


def test_text_is_read_strictly():
    assert parse_text(json.dumps(PRO)) == parse(PRO)
    for text in ("", "{", b"\xff", '{"all": [], "all": []}', "9" * 5_000):
        with pytest.raises(InvalidAudience) as caught:
            parse_text(text)
        assert [problem.code for problem in caught.value.problems] == ["invalid_json"]


def test_channels_are_those_that_recipients_have():
    from schedules.models import Channel

    assert set(values.CHANNELS) == set(Channel.values)

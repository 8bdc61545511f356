"""The compiled query against the database: it selects exactly those whom `matches` takes, and uses the indexes."""

import itertools
import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from schedules.audience import compiler
from schedules.audience.matching import Profile, matches, reachable_channels
from schedules.audience.parser import InvalidAudience, parse
from schedules.audience.tree import RULES, Field, Kind, Not
from schedules.models import Device, Recipient

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

# Values that meet often, and each of them a known way to go wrong.
TEXTS = [
    "",
    "pro",
    "Pro",
    "pr%",
    "p_o",
    "\\",
    "%",
    "%s",
    "a'b",
    '"',
    "{}",
    "null",
    "1",
    "true",
    "é",
    "e\u0301",
    "ß",
    "😀",
    "de",
    "de-AT",
    "Europe/Berlin",
    "'; DROP TABLE schedules_recipient; --",
]
INSTANTS = [
    "2026-03-01",
    "2026-03-01T12:00:00Z",
    "2026-03-01T12:00:00.000001Z",
    "2026-03-01T17:45:00+05:45",
    "2026-02-28T22:00-14:00",
    "2026-02-28 12:00Z",
    "2024-02-29T10:00:00.5+00:00",
    "1000-01-01T00:00+14:59",
]
NO_INSTANTS = [
    "9999-12-31T23:59:59-14:59",
    "2026-02-29",
    "2026-02-30T00:00Z",
    "2026-03-01T24:00Z",
    "2026-03-01T23:59:60Z",
    "2026-03-01T12:00",
    "2026-3-1",
    "infinity",
    "now",
    "2026-03-01T12:00Z\n",
    "0000-01-01",
    "2026-03-01T12:00:00 Europe/Berlin",
]
NUMBERS = [0, -0.0, 1, 1.5, -1, 0.1, 1e-7, 2**53 - 1, 10**23, 1e23, -(10**40), 30, 30.0]
DURATIONS = ["30m", "24h", "7d", "2w", "3660d"]
NAMES = ["plan", "age", "2024", "0", "-1", "größe", "a-b"]
CHANNELS = ["email", "push", "in_app"]

any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
texts = st.sampled_from(TEXTS + INSTANTS + NO_INSTANTS) | any_text
scalars = (
    texts | st.sampled_from(NUMBERS) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
)
held = st.recursive(
    scalars | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
    max_leaves=4,
)
askable = scalars.filter(lambda value: isinstance(value, str) or abs(value) < 2**53)
nonempty = texts.filter(bool)


def lists(items):
    return st.lists(items, min_size=1, max_size=4) | st.lists(items, min_size=21, max_size=24)


VALUES = {
    Kind.TEXT: nonempty,
    Kind.TEXTS: lists(nonempty),
    Kind.TAGS: lists(nonempty),
    Kind.SCALAR: askable,
    Kind.SCALARS: lists(askable),
    Kind.NUMBER: askable.filter(lambda value: not isinstance(value, str | bool)),
    Kind.BOOLEAN: st.booleans(),
    Kind.INSTANT: st.sampled_from([text for text in INSTANTS if len(text) > 10]),
    Kind.DURATION: st.sampled_from(DURATIONS),
    Kind.CHANNEL: st.sampled_from(CHANNELS),
    Kind.CHANNELS: st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3),
}


@st.composite
def clauses(draw):
    field = draw(st.sampled_from([Field.ATTRIBUTE] * len(Field) + list(Field)))
    operator = draw(st.sampled_from(list(RULES[field])))
    name = f"attributes.{draw(st.sampled_from(NAMES))}" if field is Field.ATTRIBUTE else str(field)
    return {"field": name, "op": str(operator), "value": draw(VALUES[RULES[field][operator]])}


queries = st.recursive(
    clauses() | st.just({"all": []}),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: {"all": parts})
        | st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts})
        | inner.map(lambda part: {"not": part})
    ),
    max_leaves=6,
)
instants = st.sampled_from([0, 1, -1, 86_400_000_000, -86_400_000_000, -604_800_000_000]).map(
    lambda microseconds: NOW + timedelta(microseconds=microseconds)
)
people = st.fixed_dictionaries(
    {
        "email": st.sampled_from(["", "ada@example.com"]),
        "locale": texts.map(lambda text: text[:35]),
        "time_zone": texts,
        "attributes": st.dictionaries(st.sampled_from(NAMES), held, max_size=5),
        "tags": st.lists(texts, max_size=3, unique=True),
        "consent": st.dictionaries(st.sampled_from(CHANNELS), st.booleans() | st.none() | st.just("false"), max_size=3),
        "created_at": instants,
        "device": st.sampled_from([None, True, False]),
    }
)


def store(person, number):
    """A stored recipient and its profile as the claim would build it."""
    device = person.pop("device")
    recipient = Recipient.objects.create(external_id=f"{TEXTS[number % 4 + 1]}{number}", **person)
    if device is not None:
        Device.objects.create(recipient=recipient, token=f"token-{recipient.pk}", platform="web", active=device)
    recipient.refresh_from_db()
    channels = reachable_channels(has_email=bool(recipient.email), has_device=bool(device), consent=recipient.consent)
    profile = Profile(
        external_id=recipient.external_id,
        locale=recipient.locale,
        time_zone=recipient.time_zone,
        created_at=recipient.created_at,
        tags=recipient.tags,
        channels=channels,
        attributes=recipient.attributes,
    )
    return recipient.pk, profile


def selected(node):
    return set(Recipient.objects.filter(compiler.compile(node, now=NOW)).values_list("id", flat=True))


def parsed(query):
    try:
        return parse(query)
    except InvalidAudience:  # nested too deep
        reject()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(people, min_size=1, max_size=4), queries)
def test_sql_selects_exactly_those_who_match(persons, query):
    node = parsed(query)
    with transaction.atomic():
        stored = [store(dict(person), number) for number, person in enumerate(persons)]
        expected = {pk for pk, profile in stored if matches(node, profile, now=NOW)}
        assert selected(node) == expected
        assert selected(Not(node)) == {pk for pk, _ in stored} - expected
        transaction.set_rollback(True)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(held, clauses().filter(lambda clause: clause["field"].startswith("attributes.")))
def test_sql_reads_any_attribute_as_matching_does(value, query):
    node = parsed(query)
    name = query["field"].removeprefix("attributes.")
    with transaction.atomic():
        person = {"attributes": {name: value}, "created_at": NOW, "device": None}
        pk, profile = store(person, 0)
        assert selected(node) == ({pk} if matches(node, profile, now=NOW) else set())
        transaction.set_rollback(True)


ABSENT = object()
HELD = [ABSENT, None, True, False, *NUMBERS, *TEXTS, *INSTANTS, *NO_INSTANTS]
HELD += [[], {}, [1], ["pro", None], [["pro"]], [True, 0], {"pro": 1}, {"x": "pro"}]
ASKED = {
    Kind.TEXT: [text for text in TEXTS if text],
    Kind.TEXTS: [["pro", "é", "%"], [text for text in TEXTS if text]],
    Kind.SCALAR: [True, False, *(number for number in NUMBERS if abs(number) < 2**53), *TEXTS, *INSTANTS],
    Kind.SCALARS: [["pro", 1, True], [0, "1", False, 1e-7], [*range(40), *TEXTS, True]],
    Kind.NUMBER: [number for number in NUMBERS if abs(number) < 2**53],
    Kind.BOOLEAN: [True, False],
    Kind.INSTANT: [text for text in INSTANTS if len(text) > 10],
    Kind.DURATION: DURATIONS,
}


@pytest.mark.parametrize("operator", RULES[Field.ATTRIBUTE])
def test_every_operator_on_every_kind_of_attribute(operator):
    persons = [
        {"attributes": {} if value is ABSENT else {"x": value}, "created_at": NOW, "device": None} for value in HELD
    ]
    stored = [store(person, number) for number, person in enumerate(persons)]
    found = 0
    for value in ASKED[RULES[Field.ATTRIBUTE][operator]]:
        node = parse({"field": "attributes.x", "op": str(operator), "value": value})
        assert selected(node) == {pk for pk, profile in stored if matches(node, profile, now=NOW)}, value
        found += len(selected(node))
    assert found


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_way_to_be_reached_on_a_channel(channel):
    states = itertools.product(["", "ada@example.com"], [None, True, False], [{}, {channel: True}, {channel: False}])
    persons = [
        {"email": email, "consent": consent, "created_at": NOW, "device": device} for email, device, consent in states
    ]
    stored = [store(person, number) for number, person in enumerate(persons)]
    for op, value in [("contains", channel), ("in", [channel]), ("in", CHANNELS), ("not_in", CHANNELS[:2])]:
        node = parse({"field": "channels", "op": op, "value": value})
        expected = {pk for pk, profile in stored if matches(node, profile, now=NOW)}
        assert selected(node) == expected
        assert expected


@pytest.mark.parametrize("text", INSTANTS + NO_INSTANTS)
def test_instants_do_not_depend_on_the_servers_settings(text):
    recipient = Recipient.objects.create(external_id="ada", attributes={"at": text})
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL TimeZone = 'Asia/Kathmandu'; SET LOCAL DateStyle = 'SQL, DMY'")
    profile = Profile("ada", "", "", NOW, [], [], {"at": text})
    for op, value in [("before", "2026-03-01T12:00:00Z"), ("after", "2026-02-28T23:59:59Z"), ("within_last", "1d")]:
        node = parse({"field": "attributes.at", "op": op, "value": value})
        assert selected(node) == ({recipient.pk} if matches(node, profile, now=NOW) else set())


def test_a_users_words_are_parameters_only():
    word = "x'; DROP TABLE schedules_recipient; --"
    node = parse(
        {
            "any": [
                {"field": "attributes.drop_table", "op": "contains", "value": word},
                {"field": "attributes.drop_table", "op": "starts_with", "value": word},
                {"field": "attributes.drop_table", "op": "in", "value": [word, 1]},
                {"field": "external_id", "op": "contains", "value": word},
                {"field": "tags", "op": "in", "value": [word]},
            ]
        }
    )
    sql, params = Recipient.objects.filter(compiler.compile(node, now=NOW)).query.sql_with_params()
    assert "drop" not in sql.lower()
    assert word in params
    assert selected(node) == set()


INDEXED = {
    "recipient_attributes_gin": [
        ("attributes.plan", "eq", "pro"),
        ("attributes.plan", "in", ["pro", 1]),
    ],
    "recipient_tags_gin": [("tags", "contains", "vip"), ("tags", "in", ["vip", "beta"])],
    "recipient_locale_idx": [("locale", "eq", "de"), ("locale", "in", ["de", "en"])],
    "recipient_time_zone_idx": [("time_zone", "eq", "UTC")],
    "recipient_created_at_idx": [("created_at", "before", "2026-03-01T12:00:00Z"), ("created_at", "within_last", "7d")],
    "external_id": [
        ("external_id", "eq", "ada"),
        ("external_id", "in", [f"ada-{number}" for number in range(1_000)]),
        ("external_id", "starts_with", "ada"),
    ],
}


@pytest.mark.parametrize(
    ("index", "clause"), [(index, clause) for index, clauses_ in INDEXED.items() for clause in clauses_]
)
def test_indexable_clauses_are_served_by_their_index(index, clause):
    field, op, value = clause
    node = parse({"field": field, "op": op, "value": value})
    assert compiler.is_indexable(node)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    plan = Recipient.objects.filter(compiler.compile(node, now=NOW)).order_by().explain()
    assert re.search(rf"Index (Only )?Scan (using|on) \S*{index}", plan), plan


def test_what_no_index_narrows_is_a_scan():
    pro = {"field": "attributes.plan", "op": "eq", "value": "pro"}
    old = {"field": "attributes.age", "op": "gt", "value": 30}
    many = {"field": "attributes.plan", "op": "in", "value": [str(number) for number in range(21)]}
    expected = [
        ({"all": []}, False),
        (old, False),
        (many, False),
        ({**many, "field": "external_id"}, True),
        ({"not": pro}, False),
        ({**pro, "op": "ne"}, False),
        ({"all": [old, pro]}, True),
        ({"any": [old, pro]}, False),
        ({"any": [pro, {"all": [old, pro]}]}, True),
    ]
    assert [compiler.is_indexable(parse(query)) for query, _ in expected] == [indexable for _, indexable in expected]

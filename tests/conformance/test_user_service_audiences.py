"""The reference understands audiences by itself, and as the service does."""

import pytest
from hypothesis import HealthCheck, given, reject
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from schedules.audience.matching import Profile, matches, reachable_channels
from schedules.audience.parser import InvalidAudience, parse
from stubs.audience import BadAudience, Person, read
from tests.integration.test_audience_compiler import NOW, people, queries


@with_settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(query=queries, each=people, has_device=st.booleans())
def test_it_selects_whom_the_service_would_select(query, each, has_device):
    try:
        tree = parse(query)
    except InvalidAudience:  # too deep
        reject()
    consent = {name: value for name, value in each["consent"].items() if isinstance(value, bool)}
    channels = reachable_channels(has_email=bool(each["email"]), has_device=has_device, consent=consent)
    known = (each["locale"], each["time_zone"], each["created_at"])
    ours = Profile("ada-1", *known, each["tags"], channels, each["attributes"])
    theirs = Person("ada-1", *known, frozenset(each["tags"]), channels, each["attributes"])
    assert read(query, now=NOW)(theirs) is matches(tree, ours, now=NOW)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({}, ""),
        ([], ""),
        (None, ""),
        ({"any": []}, "/any"),
        ({"all": {}}, "/all"),
        ({"all": [], "any": []}, ""),
        ({"not": {}}, "/not"),
        ({"all": [{"all": []}, {"field": "shoe_size", "op": "eq", "value": 1}]}, "/all/1/field"),
        ({"field": "attributes", "op": "eq", "value": 1}, "/field"),
        ({"field": "email", "op": "eq", "value": "a@example.com"}, "/field"),
        ({"field": "locale", "op": "sounds_like", "value": "de"}, "/op"),
        ({"field": "external_id", "op": "exists", "value": True}, "/op"),
        ({"field": "channels", "op": "exists", "value": True}, "/op"),
        ({"field": "created_at", "op": "eq", "value": "2026-01-01T00:00:00Z"}, "/op"),
        ({"field": "attributes.a", "op": "like", "value": "x"}, "/op"),
        ({"field": "locale", "op": "eq", "value": 1}, "/value"),
        ({"field": "locale", "op": "in", "value": []}, "/value"),
        ({"field": "locale", "op": "exists", "value": "yes"}, "/value"),
        ({"field": "channels", "op": "contains", "value": "fax"}, "/value"),
        ({"field": "created_at", "op": "within_last", "value": "9999999w"}, "/value"),
        ({"field": "created_at", "op": "after", "value": "yesterday"}, "/value"),
        ({"field": "attributes.a", "op": "gt", "value": True}, "/value"),
        ({"field": "attributes.a", "op": "eq", "value": None}, "/value"),
        ({"field": "locale", "op": "eq"}, ""),
        ({"field": "locale", "op": "eq", "value": "de", "more": 1}, ""),
        ({"field": 1, "op": "eq", "value": "de"}, ""),
    ],
)
def test_it_refuses_what_it_does_not_understand_and_points_at_it(query, pointer):
    with pytest.raises(BadAudience) as refused:
        read(query, now=NOW)
    assert refused.value.pointer == pointer


def test_it_refuses_a_tree_without_end_instead_of_falling_over():
    query: dict = {"all": []}
    for _ in range(100):
        query = {"not": query}
    with pytest.raises(BadAudience):
        read(query, now=NOW)

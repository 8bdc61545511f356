"""The contract is an OpenAPI document, and true of the reference and of the client."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import drf_spectacular.validation
import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from schedules.audience import parser, tree
from schedules.audience.instants import read_instant
from schedules.imports import values
from schedules.imports.rows import BadLine
from schedules.models import Recipient
from schedules.user_service import client
from schedules.user_service.client import Client, read_profiles
from schedules.user_service.reading import read_page_body
from tests.conformance.user_services import PAGE, PEOPLE, TOKEN, Service, serving
from tests.http_double import HttpDouble, Reply

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "contracts"
CONTRACT: dict[str, Any] = yaml.safe_load((FOLDER / "user-service.yaml").read_text())
SCHEMAS = CONTRACT["components"]["schemas"]
AS_OF = datetime(2026, 11, 22, 10, tzinfo=UTC)
WHOLE = Resource(contents=CONTRACT, specification=DRAFT202012)
REGISTRY = Registry().with_resource("contract", WHOLE)
# Of formats the instant alone, since the rest of the contract has none.
INSTANTS = jsonschema.FormatChecker(formats=())


@INSTANTS.checks("date-time")
def _is_instant(value: Any) -> bool:
    return not isinstance(value, str) or read_instant(value) is not None


def validator(schema: Any) -> jsonschema.Draft202012Validator:
    """Of a schema of the contract, by its name or as it stands there."""
    given = {"$ref": f"contract#/components/schemas/{schema}"} if isinstance(schema, str) else _absolute(schema)
    return jsonschema.Draft202012Validator(given, registry=REGISTRY, format_checker=INSTANTS)


def _absolute(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_absolute(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: f"contract{each}" if name == "$ref" and isinstance(each, str) else _absolute(each)
        for name, each in schema.items()
    }


def test_the_contract_is_an_openapi_document():
    described = Path(drf_spectacular.validation.__file__).parent / "openapi_3_1_schema.json"
    jsonschema.Draft202012Validator(json.loads(described.read_text())).validate(CONTRACT)
    assert CONTRACT["openapi"].startswith("3.1.")


def _every(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        yield found
        for each in found.values():
            yield from _every(each)
    if isinstance(found, list):
        for each in found:
            yield from _every(each)


def test_every_schema_is_one_and_every_reference_leads_somewhere():
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    resolver = REGISTRY.resolver()
    references = {each["$ref"] for each in _every(CONTRACT) if isinstance(each.get("$ref"), str)}
    assert len(references) > 10
    for reference in references:
        assert resolver.lookup(f"contract{reference}").contents


def test_every_schema_is_used():
    used = {each["$ref"].rpartition("/")[2] for each in _every(CONTRACT) if isinstance(each.get("$ref"), str)}
    assert set(SCHEMAS) - used == set()


def test_every_example_is_one():
    looked_at = 0
    for media in _every(CONTRACT):
        if "schema" in media and ("example" in media or "examples" in media):
            given = [each["value"] for each in media.get("examples", {}).values()] or [media["example"]]
            for example in given:
                validator(media["schema"]).validate(example)
                looked_at += 1
    assert looked_at >= 7


def test_the_limits_of_the_contract_are_those_of_the_code():
    profile = SCHEMAS["Profile"]["properties"]
    for name, field in (
        ("externalId", "external_id"),
        ("email", "email"),
        ("locale", "locale"),
        ("timeZone", "time_zone"),
    ):
        assert profile[name]["maxLength"] == Recipient._meta.get_field(field).max_length
    assert profile["tags"]["maxItems"] == values.MAX_TAGS
    assert profile["tags"]["items"]["maxLength"] == values.MAX_TAG
    assert profile["devices"]["maxItems"] == values.MAX_DEVICES
    assert SCHEMAS["Device"]["properties"]["token"]["maxLength"] == values.LONGEST_TOKEN
    assert SCHEMAS["Device"]["properties"]["platform"]["enum"] == list(values.PLATFORMS)
    assert set(profile["consent"]["properties"]) == set(values.CHANNELS)
    words = profile["attributes"]["description"]
    for most in (values.MAX_DEPTH, values.MAX_ATTRIBUTE, values.MAX_ATTRIBUTES):
        assert f"{most:,}" in words
    assert SCHEMAS["Cursor"]["maxLength"] == client.MAX_CURSOR
    assert SCHEMAS["PageRequest"]["properties"]["limit"]["maximum"] == client.MAX_PAGE
    assert SCHEMAS["Page"]["properties"]["profiles"]["maxItems"] == client.MAX_PAGE
    clause = SCHEMAS["Audience"]["oneOf"][3]["properties"]
    assert clause["op"]["enum"] == [str(each) for each in tree.Operator]
    for field in tree.Field:
        name = f"{field}.plan" if field is tree.Field.ATTRIBUTE else str(field)
        assert validator(clause["field"]).is_valid(name)
    assert "five levels and fifty nodes" in SCHEMAS["Audience"]["description"]
    assert (parser.MAX_DEPTH, parser.MAX_NODES) == (5, 50)
    assert client.MAX_BYTES == 64 << 20
    assert "64 MiB" in CONTRACT["paths"][PAGE]["post"]["description"]


# The reference and the client keep to it


def _answer(path: str, status: int) -> Any:
    answer = CONTRACT["paths"][path]["post"]["responses"][str(status)]
    if "$ref" in answer:
        answer = CONTRACT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return answer["content"]


@pytest.mark.parametrize(
    ("path", "said", "status"),
    [
        ("/audience/page", {"audience": {"all": []}, "limit": 7, "cursor": None}, 200),
        ("/audience/page", {"audience": {"not": {"all": []}}, "limit": 7, "cursor": None}, 200),
        ("/audience/page", {"audience": {"all": []}, "limit": 7, "cursor": "gone"}, 410),
        ("/audience/page", {"audience": {}, "limit": 7, "cursor": None}, 422),
        ("/audience/page", {"audience": {"all": []}, "limit": 0, "cursor": None}, 422),
        ("/audience/page", {"audience": {"all": []}, "limit": 10_001, "cursor": None}, 422),
        ("/audience/page", {"audience": {"all": []}, "limit": 7, "cursor": 7}, 422),
        ("/audience/page", {"audience": {"all": []}, "limit": 7, "cursor": None, "asOf": "today"}, 422),
        ("/audience/count", {"audience": {"all": []}}, 200),
        ("/audience/count", {"audience": {"field": "email", "op": "eq", "value": "x"}}, 422),
    ],
)
def test_the_reference_answers_as_the_contract_says(path, said, status):
    with serving(Service()) as url:
        answer = Client(url, token=TOKEN).ask(path, {"asOf": "2026-11-22T10:00:00Z", **said})
        assert answer.status == status
        media = _answer(path, status)[answer.headers["content-type"].partition(";")[0]]
        validator(media["schema"]).validate(json.loads(answer.body))
        denied = Client(url, token="another").ask(path, said)
        assert denied.status == 401
        validator("Problem").validate(json.loads(denied.body))


def test_every_person_of_the_reference_is_a_profile_without_a_flaw():
    with serving(Service()) as url:
        found = Client(url, token=TOKEN).read_page({"all": []}, as_of=AS_OF, cursor=None, limit=100)
    assert len(found.rows) == len(found.updated) == len(PEOPLE)
    assert not [row for row in found.rows if isinstance(row, BadLine)]


def test_the_client_asks_as_the_contract_says():
    audience = {"all": [{"any": [{"field": "attributes.age", "op": "gte", "value": 18}]}, {"not": {"all": []}}]}
    with HttpDouble(lambda request: Reply(body=b'{"profiles": [], "count": 0, "nextCursor": null}')) as double:
        for cursor in (None, "this"):
            Client(double.url).read_page(audience, as_of=AS_OF, cursor=cursor, limit=10)
        Client(double.url).count(audience, as_of=AS_OF)
    for request, schema in zip(double.requests, ("PageRequest", "PageRequest", "CountRequest"), strict=True):
        validator(schema).validate(request.json)


PROFILES = [
    {"externalId": "1"},
    {"externalId": "1", "email": None, "locale": None, "timeZone": None, "tags": None, "consent": None},
    {"externalId": "1", "attributes": None, "devices": None, "updatedAt": None},
    {"externalId": "1", "email": "", "locale": "", "timeZone": ""},
    {"externalId": "1", "email": "eva@example.com", "updatedAt": "2026-11-22T10:00:00.123456+05:45"},
    {"externalId": "1", "attributes": {"plan": {"deep": [1, None]}, "größe": 1.5, "none": None}, "tags": []},
    {"externalId": "1", "consent": {"email": None, "push": False, "in_app": True}},
    {"externalId": "1", "devices": [{"platform": "web", "token": "t" * 500}]},
    {},
    {"externalId": ""},
    {"externalId": None},
    {"externalId": ["1"]},
    {"externalId": "x" * 201},
    {"externalId": "1", "email": "eva"},
    {"externalId": "1", "email": "eva@example.com, max@example.com"},
    {"externalId": "1", "email": f"{'e' * 320}@example.com"},
    {"externalId": "1", "locale": 7},
    {"externalId": "1", "locale": "x" * 36},
    {"externalId": "1", "timezone": "Europe/Vienna"},
    {"externalId": "1", "attributes": [1]},
    {"externalId": "1", "attributes": {"n" * 65: 1}},
    {"externalId": "1", "tags": "news"},
    {"externalId": "1", "tags": [7]},
    {"externalId": "1", "tags": [str(number) for number in range(201)]},
    {"externalId": "1", "consent": {"fax": True}},
    {"externalId": "1", "consent": {"email": "yes"}},
    {"externalId": "1", "devices": [{"platform": "ios"}]},
    {"externalId": "1", "devices": [{"platform": "ios", "token": "a b"}]},
    {"externalId": "1", "devices": [{"platform": "ios", "token": "t" * 501}]},
    {"externalId": "1", "devices": [{"platform": "nokia", "token": "t"}]},
    {"externalId": "1", "devices": [{"platform": "ios", "token": "t", "active": True}]},
    {"externalId": "1", "updatedAt": "2026-11-22"},
    {"externalId": "1", "updatedAt": "2026-11-22T10:00:00"},
    {"externalId": "1", "updatedAt": 1795341600},
    {"externalId": "1", "consentUpdatedAt": None},
    {"externalId": "1", "consentUpdatedAt": "2026-11-22T10:00:00+05:45", "updatedAt": None},
    {"externalId": "1", "consentUpdatedAt": "2026-11-22"},
    {"externalId": "1", "consentUpdatedAt": True},
    {"externalId": "1", "quietHours": None, "quietHoursUpdatedAt": None},
    {"externalId": "1", "quietHours": {"from": "22:00", "to": "07:00"}, "quietHoursUpdatedAt": "2026-11-22T10:00:00Z"},
    {"externalId": "1", "quietHours": {"from": "22:00"}},
    {"externalId": "1", "quietHours": {"from": "22:00", "to": "24:00"}},
    {"externalId": "1", "quietHours": {"from": "22:00", "to": "7:00"}},
    {"externalId": "1", "quietHours": {"from": "22:00", "to": "07:00", "days": ["mon"]}},
    {"externalId": "1", "quietHours": "22:00-07:00"},
    {"externalId": "1", "quietHoursUpdatedAt": "soon"},
    {"externalId": "1", "version": 1},
    {"externalId": "1", "createdAt": "2026-11-22T10:00:00Z"},
    7,
    None,
]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: json.dumps(profile)[:60])
def test_what_the_contract_takes_for_a_profile_the_client_takes_too_and_nothing_else(profile):
    rows, *_ = read_profiles([profile])
    is_flawed = any(isinstance(row, BadLine) for row in rows)
    assert validator("Profile").is_valid(profile) is not is_flawed


@pytest.mark.parametrize(
    "page",
    [
        {"profiles": [], "count": 0, "nextCursor": None},
        {"profiles": [{"externalId": "1"}], "count": 1, "nextCursor": "more", "total": 7, "else": "?"},
        {"profiles": [], "count": 0, "nextCursor": None, "total": None},
        {"profiles": [], "count": 0.0, "nextCursor": None},
        {"profiles": [], "count": 0},
        {"profiles": None, "count": 0, "nextCursor": None},
        {"profiles": [], "count": -1, "nextCursor": None},
        {"profiles": [], "count": True, "nextCursor": None},
        {"profiles": [], "count": 0, "nextCursor": ""},
        {"profiles": [], "count": 0, "nextCursor": "c" * 2001},
        {"profiles": [], "count": 0, "nextCursor": None, "total": -1},
        {"profiles": [], "count": 0, "nextCursor": None, "total": 2**53},
        [],
    ],
    ids=json.dumps,
)
def test_what_the_contract_takes_for_a_page_the_client_takes_too_and_nothing_else(page):
    body = json.dumps(page).encode()
    if validator("Page").is_valid(page):
        assert len(read_page_body(body, limit=10).rows) == len(page["profiles"])
        return
    with pytest.raises(client.Unavailable) as refused:
        read_page_body(body, limit=10)
    assert refused.value.code == "wrong_shape"

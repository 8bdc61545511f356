"""The contract of the template service is an OpenAPI document, and true of the reference and of the client."""

import json
from pathlib import Path
from typing import Any

import drf_spectacular.validation
import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from delivery import rendering_limits
from schedules import content
from schedules.models import MessageTemplate, TemplateContent, TemplateVersion
from schedules.template_service import client, reading
from schedules.template_service.client import Client, Item
from schedules.template_service.conformance import rendering
from schedules.template_service.reading import BadTemplate, read_results_body, read_templates_body
from tests.conformance.template_services import TOKEN, Service
from tests.conformance.user_services import serving
from tests.http_double import HttpDouble, Reply

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "contracts"
CONTRACT: dict[str, Any] = yaml.safe_load((FOLDER / "template-service.yaml").read_text())
SCHEMAS = CONTRACT["components"]["schemas"]
REGISTRY = Registry().with_resource("contract", Resource(contents=CONTRACT, specification=DRAFT202012))


def validator(schema: Any) -> jsonschema.Draft202012Validator:
    """Of a schema of the contract, by its name or as it stands there."""
    given = {"$ref": f"contract#/components/schemas/{schema}"} if isinstance(schema, str) else _absolute(schema)
    return jsonschema.Draft202012Validator(given, registry=REGISTRY)


def _absolute(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_absolute(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: f"contract{each}" if name == "$ref" and isinstance(each, str) else _absolute(each)
        for name, each in schema.items()
    }


def _every(node: Any):
    """Every object of the document."""
    if isinstance(node, list):
        for each in node:
            yield from _every(each)
    elif isinstance(node, dict):
        yield node
        for each in node.values():
            yield from _every(each)


def test_the_contract_is_an_openapi_document():
    described = Path(drf_spectacular.validation.__file__).parent / "openapi_3_1_schema.json"
    jsonschema.Draft202012Validator(json.loads(described.read_text())).validate(CONTRACT)


def test_everything_that_is_described_is_used_and_the_other_way_round():
    used = {node["$ref"] for node in _every(CONTRACT) if isinstance(node.get("$ref"), str)}
    kinds = CONTRACT["components"]
    there = {f"#/components/{kind}/{name}" for kind in ("schemas", "responses") for name in kinds[kind]}
    assert used == there


def test_every_example_is_one():
    looked_at = 0
    for media in _every(CONTRACT):
        if "schema" in media and ("example" in media or "examples" in media):
            given = [each["value"] for each in media.get("examples", {}).values()] or [media["example"]]
            for example in given:
                validator(media["schema"]).validate(example)
                looked_at += 1
    assert looked_at >= 5


def test_the_limits_of_the_contract_are_those_of_the_code():
    template, item = SCHEMAS["Template"]["properties"], SCHEMAS["Item"]["properties"]
    assert SCHEMAS["Id"]["pattern"] == f"^{reading._ID.pattern}$"
    assert MessageTemplate._meta.get_field("service_id").max_length == 200
    version = TemplateVersion._meta.get_field("service_version").max_length
    assert SCHEMAS["Version"]["maxLength"] == reading.MAX_NAME == version
    assert template["name"]["maxLength"] == reading.MAX_NAME == MessageTemplate._meta.get_field("name").max_length
    locale = TemplateContent._meta.get_field("locale").max_length
    assert template["defaultLocale"]["maxLength"] == reading.MAX_LOCALE == locale
    assert item["locale"]["maxLength"] == SCHEMAS["Content"]["properties"]["locale"]["maxLength"] == locale
    assert template["contents"]["maxItems"] == reading.MAX_CONTENTS
    assert template["tokens"]["maxItems"] == reading.MAX_TOKENS
    assert template["tokens"]["items"]["maxLength"] == reading.MAX_TOKEN
    assert template["tokens"]["items"]["pattern"] == f"^{reading._TOKEN.pattern.replace('(?:', '(')}$"
    limit = CONTRACT["paths"]["/templates"]["get"]["parameters"][0]["schema"]
    assert limit["maximum"] == SCHEMAS["Templates"]["properties"]["templates"]["maxItems"] == client.MAX_PAGE
    request = SCHEMAS["RenderRequest"]["properties"]
    assert request["items"]["maxItems"] == SCHEMAS["Results"]["properties"]["results"]["maxItems"] == client.MAX_ITEMS
    assert request["channel"]["enum"] == list(content.CHANNELS)
    message = SCHEMAS["Message"]["properties"]
    assert f"{rendering_limits.MAX_SUBJECT}" in message["subject"]["description"]
    assert f"{rendering_limits.MAX_PART >> 10} KiB" in message["html"]["description"]
    assert rendering.MAX_PART == rendering_limits.MAX_PART
    assert client.MAX_BYTES == 64 << 20


# The reference and the client keep to it


def _answer(path: str, method: str, status: int) -> Any:
    answer = CONTRACT["paths"][path][method]["responses"][str(status)]
    if "$ref" in answer:
        answer = CONTRACT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return answer["content"]


ITEM = {"locale": "de-AT", "timeZone": "Europe/Vienna", "tokens": {"occurrence.at": "2026-11-22T10:00:00Z"}}
ASKED = {"template": "welcome", "version": "v1", "channel": "email", "items": [ITEM]}


@pytest.mark.parametrize(
    ("described", "path", "said", "status"),
    [
        ("/templates", "/templates?limit=2", None, 200),
        ("/templates", "/templates?limit=2&cursor=gone", None, 410),
        ("/templates", "/templates?limit=0", None, 422),
        ("/templates", "/templates?limit=201", None, 422),
        ("/templates/{id}", "/templates/welcome", None, 200),
        ("/templates/{id}", "/templates/nobodys", None, 410),
        ("/render", "/render", ASKED, 200),
        ("/render", "/render", {**ASKED, "channel": "in_app"}, 200),
        ("/render", "/render", {**ASKED, "version": "v9"}, 410),
        ("/render", "/render", {**ASKED, "template": "nobodys"}, 410),
        ("/render", "/render", {**ASKED, "channel": "fax"}, 422),
        ("/render", "/render", {**ASKED, "items": []}, 422),
        ("/render", "/render", {**ASKED, "items": [ITEM] * 501}, 422),
        ("/render", "/render", {**ASKED, "items": [{}]}, 422),
        ("/render", "/render", {}, 422),
    ],
)
def test_the_reference_answers_as_the_contract_says(described, path, said, status):
    body = None if said is None else json.dumps(said).encode()
    with serving(Service()) as url:
        answer = Client(url, token=TOKEN).send(path, body)
        assert answer.status == status
        media = _answer(described, "get" if said is None else "post", status)
        schema = media[answer.headers["content-type"].partition(";")[0]]["schema"]
        validator(schema).validate(json.loads(answer.body))
        denied = Client(url, token="another").send(path, body)
        assert denied.status == 401
        validator("Problem").validate(json.loads(denied.body))


def test_the_client_asks_as_the_contract_says():
    items = [Item("", "UTC", {}), Item("de", "Europe/Vienna", {"recipient.attributes": {"plan": "pro"}})]
    with HttpDouble(lambda request: Reply(body=b'{"results": []}')) as double, pytest.raises(client.Unavailable):
        Client(double.url).render(template_id="welcome", version="17", channel="push", items=items)
    validator("RenderRequest").validate(double.requests[0].json)


GOOD = {"id": "a", "version": "1", "name": "A", "defaultLocale": "en", "contents": [], "tokens": []}


@pytest.mark.parametrize(
    "said",
    [
        GOOD,
        {**GOOD, "more": 1, "contents": [{"channel": "fax", "locale": "", "size": 7}]},
        {**GOOD, "tokens": ["first_name", "a.b.c.d.e.f", "recipient.attributes.größe".replace("ö", "oe")]},
        {**GOOD, "id": "x" * 200, "version": "v" * 200, "name": "n" * 200},
        *({name: value for name, value in GOOD.items() if name != left} for left in GOOD),
        {**GOOD, "id": "x" * 201},
        {**GOOD, "id": "-a"},
        {**GOOD, "id": "a b"},
        {**GOOD, "version": "v" * 201},
        {**GOOD, "version": 1},
        {**GOOD, "name": ""},
        {**GOOD, "defaultLocale": "x" * 36},
        {**GOOD, "contents": [{"channel": "email"}]},
        {**GOOD, "contents": [{"channel": "email", "locale": "x" * 36}]},
        {**GOOD, "contents": [{"channel": "email", "locale": "en"}] * 501},
        {**GOOD, "tokens": ["a.b.c.d.e.f.g"]},
        {**GOOD, "tokens": ["a b"]},
        {**GOOD, "tokens": ["a"] * 201},
        [],
        None,
    ],
    ids=lambda said: json.dumps(said)[:60],
)
def test_what_the_contract_takes_for_a_template_the_client_takes_too_and_nothing_else(said):
    body = json.dumps({"templates": [said], "nextCursor": None}).encode()
    (found,) = read_templates_body(body, limit=10).templates
    assert isinstance(found, BadTemplate) is not validator("Template").is_valid(said)


@pytest.mark.parametrize(
    "said",
    [
        {"subject": "Hi", "text": None, "html": "<p>", "locale": ""},
        {"text": "Hi", "locale": "en", "more": 1},
        {"error": {"code": "missing", "detail": "plan"}},
        {"error": {"code": "missing"}},
        {"text": "Hi"},
        {"text": 7, "locale": "en"},
        {"text": "Hi", "locale": "x" * 36},
        {"error": {}},
        {"error": None},
        {"error": {"code": 7}},
        {"error": {"code": "a", "detail": []}},
        7,
    ],
    ids=json.dumps,
)
def test_what_the_contract_takes_for_a_result_the_client_takes_too_and_nothing_else(said):
    body = json.dumps({"results": [said]}).encode()
    if validator("Results").is_valid({"results": [said]}):
        assert len(read_results_body(body, count=1)) == 1
        return
    with pytest.raises(client.Unavailable) as refused:
        read_results_body(body, count=1)
    assert refused.value.code == "wrong_shape"

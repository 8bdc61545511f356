"""What nobody in his right mind sends: whatever comes in, the answer is a problem and never a failure.

Each call of the OpenAPI document is sent hostile values in each place that it reads: path, query, body and headers.
Every place gets another part of them, so that together they get all. No answer may be a 5xx, and the database must
never have been asked something that it refused.
"""

import copy
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from django.db import connection, transaction
from django.db.utils import DataError, ProgrammingError
from psycopg.errors import Error as PostgresError

from schedules.permissions import Role
from tests import subscribers
from tests.accounts import account
from tests.api import READ_WRITE, Api, token
from tests.factories import NOW, RecipientFactory, ScheduleFactory, TopicFactory

pytestmark = pytest.mark.django_db

DOCUMENT = yaml.load(
    (Path(__file__).resolve().parents[2] / "docs" / "openapi.yaml").read_text(), Loader=yaml.CSafeLoader
)
OPERATIONS = [
    (method, path)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if method in ("get", "post", "put", "patch", "delete")
]
DEEP = 300
# Of the hostile values a place gets every so-manieth.
STEP = 32

TEXTS = [
    "", " ", "\0", "a\0b", "'", "'; DROP TABLE schedules_schedule; --", "1 OR 1=1", "%", "_", "\\", "%s", "{}", "{0}",
    "__class__", "id__gt", "name__regex", "_connector", "../../etc/passwd", "\u202e\u200b", "\ufeff", "\uffff",
    "ﷺ" * 300, "𝕏" * 100, "x" * 5_000, "null", "true", "-1", "1e400", "0x10", "NaN", "9" * 40, "2026-02-30T00:00:00Z",
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "{{ 7 * 7 }}", "<script>", "\r\nSet-Cookie: a=b",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 10**18, -(10**18), 2**63, 10**30, 1e300, [], {}, [None], [[]], [{}], {"": ""},
    {"id__gt": 0}, {"_connector": "OR"}, {"_negated": True}, {"all": [{"_connector": "OR"}]},
    {"all": [{"field": "attributes.a'; --", "op": "eq", "value": "x"}]},
    {"all": [{"field": "attributes__a", "op": "regex", "value": "(a+)+$"}]},
    {"all": [{"field": "created_at", "op": "gt", "value": "' OR 1=1"}]},
    {"all": [{"field": "tags", "op": "in", "value": ["x"] * 10_000}]},
    {"all": [{"field": "attributes.a", "op": "gt", "value": 10**15}]},
    {"all": [{"field": "attributes.a", "op": "within_last", "value": "P9999999Y"}]},
    {"$where": "sleep(1)"}, ["x"] * 1_000, *TEXTS,
]  # fmt: skip
BODIES = [
    b"", b"\0", b"\xff\xfe\x00", b"{", b"[]", b"null", b"1", b'"x"', b"NaN",
    b'{"a":' * DEEP + b"1" + b"}" * DEEP, b'{"name": "\\u0000"}', b'{"name": "\\ud800"}', b'{"\\udfff": 1}',
    b'{"a": 1, "a": 2}', b'{"name": 1e400}', b'{"name": ' + b"9" * 5_000 + b"}", b"{}",
    json.dumps({"name__regex": ".*", "_connector": "OR", "pk__in": [1]}).encode(),
]  # fmt: skip
# They cost something. One reader reads the bodies of all operations, so each gets one of them.
HUGE = [
    b"[" * 100_000, b'{"a":' * 100_000, b'{"name": "' + b"a" * 1_000_000 + b'"}', b'"' + b"a" * 1_100_000 + b'"',
    json.dumps({f"k{number}": number for number in range(50_000)}).encode(),
]  # fmt: skip
HEADERS = [
    ("If-Match", '"' + "9" * 40 + '"'), ("If-Match", '"\'; --"'), ("If-Match", "W/\"1\""), ("If-Match", '"1", "2"'),
    ("If-Match", ""), ("If-Match", '"-1"'), ("If-Match", '"٣"'), ("If-None-Match", '"x"'), ("If-None-Match", "*"),
    ("Idempotency-Key", ""), ("Idempotency-Key", "x" * 300), ("Idempotency-Key", "ü"), ("Idempotency-Key", "'; --"),
    ("X-Request-ID", "'; DROP"), ("Content-Type", "application/json; charset=utf-7"), ("Content-Type", "x" * 1_000),
    ("Accept", "text/html"), ("Range", "bytes=0-"), ("Accept-Language", "x" * 500), ("Content-Encoding", "gzip"),
]  # fmt: skip


def some(values: list[Any], number: int) -> list[Any]:
    """The part of ``values`` that is for the place of that number."""
    return values[number % STEP :: STEP]


class Refusals(logging.Handler):
    """What the database refused to do, and what the API failed at."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record.getMessage()[:500])

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        try:
            return execute(sql, params, many, context)
        except (DataError, ProgrammingError, PostgresError, ValueError) as error:
            self.found.append(f"{type(error).__name__}: {error} in {sql[:200]}")
            raise


@pytest.fixture
def refusals() -> Iterator[Refusals]:
    watch = Refusals()
    logging.getLogger("frontend.api.problems").addHandler(watch)
    watch.setLevel(logging.ERROR)
    with connection.execute_wrapper(watch):
        yield watch
    logging.getLogger("frontend.api.problems").removeHandler(watch)


@pytest.fixture(scope="module")
def world(service) -> dict[str, Any]:
    admin = account(Role.ADMIN, name="admin")
    RecipientFactory.create(external_id="admin")
    schedule = ScheduleFactory.create(channel="in_app", cron="0 * * * *")
    service.run_to(NOW.replace(hour=11))
    posting = subscribers.shown()
    return {
        "api": Api(token(scopes=f"{READ_WRITE} inbox", user=admin, lives_s=3_600)),
        "here": {
            "schedule_id": schedule.pk,
            "template_id": schedule.template_id,
            "occurrence_id": schedule.occurrences.latest("pk").pk,
            "external_id": "admin",
            "locale": "de",
            "key": TopicFactory.create().key,
            "endpoint_id": posting.endpoint_id,
            "posting_id": posting.pk,
        },
    }


def operation_of(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method]
    return found


def address(path: str, here: dict[str, Any]) -> str:
    """The path with something that is there, where the scene has it."""
    parts = path.removeprefix("/api/v1/").split("{")
    filled = parts[0]
    for part in parts[1:]:
        name, _, rest = part.partition("}")
        filled += f"{here.get(name, 1)}{rest}"
    return filled


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def example(schema: dict[str, Any], depth: int = 0) -> Any:
    """A value of about the right shape, each of whose fields is then replaced."""
    schema = resolved(schema)
    for several in ("oneOf", "anyOf", "allOf"):
        if several in schema:
            return example(schema[several][0], depth)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        if depth > 4:
            return {}
        return {name: example(each, depth + 1) for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items", {}), depth + 1)]
    return {"integer": 1, "number": 1, "boolean": True}.get(str(kind), "x")


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value can be replaced in ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def replaced(value: Any, at: tuple[Any, ...], by: Any) -> Any:
    result = copy.deepcopy(value)
    inner = result
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = by
    return result


def send(world: dict[str, Any], method: str, path: str, body: Any = None, **options: Any) -> None:
    """Send it, and take back whatever it did."""
    headers = {"If-Match": "*", **options.pop("headers", {})}
    with transaction.atomic():
        answer = world["api"].call(method.upper(), path, body, headers=headers, **options)
        status, content = answer.status_code, b"".join(answer) if answer.streaming else answer.content
        transaction.set_rollback(True)
    sent = f"{method} {path[:200]} {str(body)[:300]} {str(headers)[:200]}"
    assert status < 500, f"{status}: {sent}\n{content[:500]!r}"
    if status >= 400:
        assert answer["Content-Type"] == "application/problem+json", sent
        assert json.loads(content)["status"] == status


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_path_and_no_query_makes_it_fail(world, refusals, method, path):
    operation = operation_of(method, path)
    names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
    for number, name in enumerate(names):
        for text in [*some(TEXTS, number), "\0", "\ud800", "9" * 40]:
            shown = quote(text, safe="", errors="surrogatepass")
            if shown.strip("."):
                send(world, method, address(path, {**world["here"], name: shown}))
    there = address(path, world["here"])
    queries = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
    for number, name in enumerate([*queries, "id__gt", "_connector", "\0"]):
        for text in some(TEXTS, number):
            send(world, method, f"{there}?{quote(name)}={quote(text)}")
    for text in TEXTS if queries else ():
        send(world, method, f"{there}?" + "&".join(f"{quote(name)}={quote(text)}" for name in queries))
    for query in ("%", "%ff=%ff", "a" * 20_000, "&".join(f"a{number}=1" for number in range(3_000)), "a=1&a=2"):
        send(world, method, f"{there}?{query}")
    assert refusals.found == []


WITH_BODY = [each for each in OPERATIONS if "requestBody" in operation_of(*each)]


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_no_body_makes_it_fail(world, refusals, method, path):
    there = address(path, world["here"])
    for kind, content in operation_of(method, path)["requestBody"]["content"].items():
        for body in [*BODIES, HUGE[WITH_BODY.index((method, path)) % len(HUGE)]]:
            send(world, method, there, body, content_type=kind)
        if kind != "application/json":
            continue
        valid = example(content["schema"])
        for name in ("templateId", "scheduleId"):
            if isinstance(valid, dict) and name in valid:
                valid[name] = world["here"][{"templateId": "template_id", "scheduleId": "schedule_id"}[name]]
        send(world, method, there, valid)
        for number, at in enumerate(places(valid)):
            for value in some(VALUES, number):
                send(world, method, there, replaced(valid, at, value))
        for value in VALUES:
            send(world, method, there, dict.fromkeys(valid, value) if isinstance(valid, dict) else value)
        for name in ("id__gt", "_connector", "__proto__", "\u202e", "x" * 1_000, "a~1/b"):
            send(world, method, there, {**valid, name: 1} if isinstance(valid, dict) else {name: 1})
    assert refusals.found == []


OF_JSON = [
    each for each in OPERATIONS if "application/json" in operation_of(*each).get("requestBody", {}).get("content", {})
]


@pytest.mark.parametrize(("method", "path"), OF_JSON)
def test_what_can_not_be_kept_is_named_by_every_operation(world, method, path):
    body = {"of~any": [{"name": "a\0b"}, {"a/b": ["fine", "cut \ud83d"]}], "half \udfff": 1}
    answer = world["api"].call(method.upper(), address(path, world["here"]), body, headers={"If-Match": "*"})
    said = answer.json()
    assert (answer.status_code, said["type"].rpartition("#")[2]) == (400, "unreadable")
    assert [each["pointer"] for each in said["errors"]] == ["/of~0any/0/name", "/of~0any/1/a~1b/1", "/half ?"]
    assert all(each["code"] == "invalid" and "remove it" in each["detail"] for each in said["errors"])


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_header_makes_it_fail(world, refusals, method, path):
    there = address(path, world["here"])
    for name, value in HEADERS:
        kind = {"content_type": value} if name == "Content-Type" else {}
        send(world, method, there, b"{}", headers={name: value}, **kind)
    assert refusals.found == []


@pytest.mark.parametrize("payload", ["' OR '1'='1", "%' --", "x') OR TRUE --", "%", "_", "\\"])
def test_a_filter_finds_what_it_says_and_not_everything(world, payload):
    api = world["api"]
    for path in ("schedules?text=", "templates?text=", "schedules?createdBy="):
        assert api.get(path + quote(payload)).json()["items"] == []

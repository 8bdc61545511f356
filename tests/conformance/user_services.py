"""User services in threads of the test's process: the reference, and one that is broken for each of the checks."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from stubs.http import Request, Response
from stubs.log import Log
from stubs.server import Stub
from stubs.user_service import UserServiceStub

TOKEN = "a-token-of-the-tests"
PAGE, COUNT = "/audience/page", "/audience/count"
ZONES = ["Europe/Vienna", "America/New_York", "", "Asia/Tokyo"]
LOCALES = ["de-AT", "en", "", "fr-CA", "De"]


def person(number: int) -> dict[str, Any]:
    """One of many who differ in all that can be asked about."""
    return {
        "externalId": f"Person-{number:03}",
        "email": "" if number % 5 == 0 else f"secret.address.{number}@example.com",
        "locale": LOCALES[number % len(LOCALES)],
        "timeZone": ZONES[number % len(ZONES)],
        "attributes": {
            "plan": ["pro", "Pro", "free"][number % 3],
            "age": number % 7 if number % 3 else str(number),
            "score": number / 2,
            "active": bool(number % 2),
            "likes": ["maths", number % 4],
            "born": f"19{50 + number % 40}-03-01",
            "seen": f"2026-11-{1 + number % 20:02}T10:00:00+01:00",
            **({"referrer": "somebody"} if number % 2 else {}),
        },
        "tags": [["news", "beta"], ["news"], []][number % 3],
        "consent": {"email": number % 4 != 0, "push": None, "in_app": number % 6 != 0},
        "devices": [{"platform": "ios", "token": f"secret-token-{number}"}] if number % 2 else [],
        "updatedAt": "2026-11-20T08:30:00Z",
        "consentUpdatedAt": "2026-03-02T17:05:00Z",
        "quietHours": {"from": "22:00", "to": "07:30"} if number % 4 else None,
        "quietHoursUpdatedAt": "2026-03-02T17:05:00Z",
        "createdAt": f"20{10 + number % 15}-05-05T05:05:05Z",
    }


PEOPLE = [person(number) for number in range(40)]


Reference = Callable[[Request], Response]
Broken = Callable[["Service", Reference, Request], Response]


class Service(UserServiceStub):
    """The reference, or with ``broken`` one that answers as that makes of it. ``memory`` is for whoever needs one."""

    def __init__(self, broken: Broken | None = None, people: list[dict[str, Any]] = PEOPLE) -> None:
        super().__init__(Log(None))
        self.people.put(map(json.dumps, people))
        self.page.token = self.count.token = TOKEN
        self.broken = broken
        self.memory: set[str] = set()

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        if self.broken is None:
            return super().answer(request)
        return self.broken(self, self._reference, request)

    def _reference(self, request: Request) -> Response:
        response = super().answer(request)
        assert isinstance(response, Response)
        return response


@contextmanager
def serving(service: Stub) -> Iterator[str]:
    """Its address, for as long as the block lasts."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(service.server.start("127.0.0.1", 0), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(service.server.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


# How a service is broken


def _asked(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(request.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _with(request: Request, **members: Any) -> Request:
    return request._replace(body=json.dumps({**_asked(request), **members}).encode())


def _content(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)
    return found


def _saying(response: Response, content: dict[str, Any]) -> Response:
    return response._replace(body=json.dumps(content).encode())


def _page_bent(bend: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]) -> Broken:
    """Whose pages become what ``bend`` makes of them, and of what was asked."""

    def broken(service: Service, reference: Reference, request: Request) -> Response:
        response = reference(request)
        if request.path != PAGE or response.status != 200:
            return response
        return _saying(response, bend(_content(response), _asked(request)))

    return broken


def _asking(bend: Callable[[dict[str, Any]], dict[str, Any]]) -> Broken:
    """Who answers what ``bend`` makes of the request."""

    def broken(service: Service, reference: Reference, request: Request) -> Response:
        return reference(_with(request, **bend(_asked(request))) if _asked(request) else request)

    return broken


def _clauses(bend: Callable[[dict[str, Any]], Any]) -> Broken:
    """Who understands each clause as ``bend`` does."""

    def bent(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        if "field" in node:
            return bend(node)
        return {
            group: [bent(part) for part in parts] if isinstance(parts, list) else bent(parts)
            for group, parts in node.items()
        }

    return _asking(lambda asked: {**asked, "audience": bent(asked.get("audience"))})


def _elsewhere(service: Service, reference: Reference, request: Request) -> Response:
    return Response(307, headers={"Location": f"https://elsewhere.example.com{request.path}"})


def _open_to_all(service: Service, reference: Reference, request: Request) -> Response:
    return reference(request._replace(headers={**request.headers, "authorization": f"Bearer {TOKEN}"}))


def _other_name(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    if request.path != COUNT or response.status != 200:
        return response
    return _saying(response, {"total": _content(response)["count"]})


def _as_html(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    return response._replace(content_type="text/html") if response.status == 200 else response


def _nobody_for_unknown(service: Service, reference: Reference, request: Request) -> Response:
    if b"shoe_size" not in request.body:
        return reference(request)
    return reference(_with(request, audience={"not": {"all": []}}))


def _500_for_nonsense(service: Service, reference: Reference, request: Request) -> Response:
    return reference(request) if _asked(request) else Response(500, b"oops")


def _without_pointers(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    if response.status != 422:
        return response
    return _saying(response, {name: value for name, value in _content(response).items() if name != "errors"})


def _used_up(service: Service, reference: Reference, request: Request) -> Response:
    cursor = _asked(request).get("cursor")
    if cursor in service.memory:
        return Response(410)
    if cursor:
        service.memory.add(cursor)
    return reference(request)


def _one_at_a_time(service: Service, reference: Reference, request: Request) -> Response:
    if request.path == PAGE and _asked(request).get("cursor") is None:
        service.page.resolutions.clear()
    return reference(request)


def _begins_again(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    return reference(_with(request, cursor=None)) if response.status == 410 else response


def _counts_everybody(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    return _saying(response, {"count": len(PEOPLE)}) if request.path == COUNT and response.status == 200 else response


def _padded(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    is_full = _asked(request).get("limit") == 10_000 and _asked(request)["audience"] == {"all": []}
    return response._replace(body=response.body + b" " * MAX_BYTES) if is_full else response


MAX_BYTES = 1_000_000  # of an answer, in the tests of the checks


def _overlapping(asked: dict[str, Any]) -> dict[str, Any]:
    if not asked.get("cursor") or "." not in asked["cursor"]:
        return asked
    key, _, start = asked["cursor"].partition(".")
    return {**asked, "cursor": f"{key}.{int(start) - 1}"}


def _losing(page: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The last person of each page that isn't the last."""
    if page["nextCursor"] is None or len(page["profiles"]) < 2:
        return page
    return {**page, "profiles": page["profiles"][:-1], "count": page["count"] - 1}


def _circling(page: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    return page if asked["cursor"] is None else {**page, "nextCursor": asked["cursor"]}


def _without_not(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_not(each) for each in node]
    if not isinstance(node, dict) or "field" in node:
        return node
    if "not" in node:
        return _without_not(node["not"])
    return {group: _without_not(parts) for group, parts in node.items()}


def _on(fields: tuple[str, ...], op: str, bend: Callable[[dict[str, Any]], Any]) -> Broken:
    """Who understands ``op`` otherwise on ``fields``, of which the last may be a beginning."""
    return _clauses(
        lambda clause: bend(clause) if clause.get("op") == op and clause["field"].startswith(fields) else clause
    )


def _as(op: str) -> Callable[[dict[str, Any]], Any]:
    return lambda clause: {**clause, "op": op}


def _where_there_is_one(clause: dict[str, Any]) -> Any:
    """As SQL has it, where NULL is neither equal nor different."""
    return {"all": [{"field": clause["field"], "op": "exists", "value": True}, clause]}


_COLUMNS = ("external_id", "locale", "time_zone")
_TWO = {"field": "external_id", "op": "in", "value": ["Person-001", "Person-002"]}

# By the check that finds it, and no other does.
BROKEN: dict[str, Broken] = {
    "reachable": _elsewhere,
    "token": _open_to_all,
    "count": _other_name,
    "page": _page_bent(lambda page, asked: {name: each for name, each in page.items() if name != "nextCursor"}),
    "media_type": _as_html,
    "unknown_field": _nobody_for_unknown,
    "unknown_operator": _clauses(lambda clause: {"all": []} if clause.get("op") == "sounds_like" else clause),
    "empty_audience": _asking(lambda asked: {**asked, "audience": asked.get("audience") or {"all": []}}),
    "no_json": _500_for_nonsense,
    "problem": _without_pointers,
    "people": _asking(lambda asked: {**asked, "audience": {"all": [_TWO, asked["audience"]]}}),
    "profiles": _page_bent(
        lambda page, asked: {**page, "profiles": [{**each, "phone": "+43 1 23456"} for each in page["profiles"]]}
    ),
    "consent_time": _page_bent(
        lambda page, asked: {
            **page,
            "profiles": [{**each, "consentUpdatedAt": "2026-11-21T10:00:00Z"} for each in page["profiles"]],
        }
    ),
    "page_count": _page_bent(lambda page, asked: {**page, "count": page["total"]}),
    "limit": _asking(lambda asked: {**asked, "limit": min(asked.get("limit", 0) + 1, 10_000)}),
    "progress": _page_bent(_circling),
    "everybody_named": _page_bent(_losing),
    "nobody_twice": _asking(_overlapping),
    "cursor_again": _used_up,
    "side_by_side": _one_at_a_time,
    "unknown_cursor": _begins_again,
    "total": _page_bent(lambda page, asked: {**page, "total": len(PEOPLE)}),
    "count_agrees": _counts_everybody,
    "full_page": _padded,
    "groups": _asking(lambda asked: {**asked, "audience": _without_not(asked.get("audience"))}),
    "texts": _on(_COLUMNS, "starts_with", _as("contains")),
    "tags": _on(("tags",), "not_in", _where_there_is_one),
    "channels": _on(("channels",), "contains", lambda clause: {"all": []}),
    "attributes": _on(("attributes.",), "ne", _where_there_is_one),
    "numbers": _on(("attributes.",), "gte", _as("gt")),
    "instants": _on(("attributes.",), "before", lambda clause: {"not": {**clause, "op": "after"}}),
    "created_at": _clauses(
        lambda clause: (
            {**clause, "op": {"before": "after", "after": "before"}.get(clause["op"], clause["op"])}
            if clause.get("field") == "created_at"
            else clause
        )
    ),
    "as_of": _asking(lambda asked: {**asked, "asOf": "2026-11-22T10:00:00Z"} if asked.get("asOf") else asked),
}

"""Template services in threads of the test's process: the reference, and one that is broken for each of the checks."""

import json
from collections.abc import Awaitable, Callable
from html import escape, unescape
from typing import Any

from schedules.template_service.conformance.listing import NOBODYS
from stubs.http import Request, Response
from stubs.log import Log
from stubs.template_service import TemplateServiceStub

TOKEN = "a-token-of-the-tests"
LIST, RENDER = "/templates", "/render"
MAX_BYTES = 1_000_000  # of an answer, in the tests of the checks
_LAST = "unused-6"


def _content(channel: str, locale: str, words: str) -> dict[str, str]:
    said = {"channel": channel, "locale": locale, "subject": f"{words} {{{{ first_name }}}}"}
    text = f"{words}, {{{{ first_name }}}}, with {{{{ recipient.attributes.plan }}}}: {{{{ occurrence.at }}}}"
    html = {"html": f"<p>{text} <a href='/'>{{{{ recipient.external_id }}}}</a></p>"} if channel == "email" else {}
    return {**said, "text": text, **html}


TEMPLATES: list[dict[str, Any]] = [
    {
        "id": "welcome",
        "name": "Welcome",
        "defaultLocale": "en",
        "contents": [
            _content("email", "en", "Hello"),
            _content("email", "de", "Hallo"),
            _content("email", "fr-CA", "Allô"),
            _content("push", "en", "Hi"),
        ],
    },
    {
        "id": "everywhere",
        "defaultLocale": "de-AT",
        "contents": [_content(channel, "de-AT", "Servus") for channel in ("email", "push", "in_app")],
    },
    *(
        {"id": f"unused-{number}", "name": "Unused", "contents": [{"channel": "push", "locale": "en", "text": "Hi"}]}
        for number in range(1, 7)
    ),
]

Reference = Callable[[Request], Response]
Broken = Callable[["Service", Reference, Request], Response]


class Service(TemplateServiceStub):
    """The reference, or with ``broken`` one that answers as that makes of it. ``count`` is for whoever needs one."""

    def __init__(self, broken: Broken | None = None, templates: list[dict[str, Any]] = TEMPLATES) -> None:
        super().__init__(Log(None))
        self.templates.put(map(json.dumps, templates))
        self.admit(TOKEN)
        self.broken = broken
        self.count = 0

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        if self.broken is None:
            return super().answer(request)
        return self.broken(self, self._reference, request)

    def _reference(self, request: Request) -> Response:
        response = super().answer(request)
        assert isinstance(response, Response)
        return response


# How a service is broken


def _asked(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(request.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _content_of(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)
    return found


def _saying(response: Response, content: dict[str, Any]) -> Response:
    return response._replace(body=json.dumps(content).encode())


def _bent(is_meant: Callable[[Request], bool], bend: Callable[[dict[str, Any], Request], dict[str, Any]]) -> Broken:
    """Whose answers to such requests become what ``bend`` makes of them."""

    def broken(service: Service, reference: Reference, request: Request) -> Response:
        response = reference(request)
        if response.status != 200 or not is_meant(request):
            return response
        return _saying(response, bend(_content_of(response), request))

    return broken


def _lists(bend: Callable[[dict[str, Any], Request], dict[str, Any]]) -> Broken:
    return _bent(lambda request: request.path == LIST, bend)


def _results(bend: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Broken:
    return _bent(lambda request: request.path == RENDER, lambda found, _: {"results": bend(found["results"])})


def _messages(bend: Callable[[dict[str, Any]], dict[str, Any]]) -> Broken:
    return _results(lambda results: [each if "error" in each else bend(each) for each in results])


def _items(bend: Callable[[dict[str, Any]], dict[str, Any]]) -> Broken:
    """Who renders what ``bend`` makes of each item."""

    def broken(service: Service, reference: Reference, request: Request) -> Response:
        asked = _asked(request)
        if not isinstance(asked.get("items"), list) or not all("tokens" in each for each in asked["items"]):
            return reference(request)
        return reference(_with(request, items=[bend(each) for each in asked["items"]]))

    return broken


def _with(request: Request, **members: Any) -> Request:
    return request._replace(body=json.dumps({**_asked(request), **members}).encode())


def _elsewhere(service: Service, reference: Reference, request: Request) -> Response:
    return Response(307, headers={"Location": f"https://elsewhere.example.com{request.path}"})


def _open_to_all(service: Service, reference: Reference, request: Request) -> Response:
    return reference(request._replace(headers={**request.headers, "authorization": f"Bearer {TOKEN}"}))


def _as_html(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    return response._replace(content_type="text/html") if response.status == 200 else response


def _nameless(found: dict[str, Any], request: Request) -> dict[str, Any]:
    return {
        **found,
        "templates": [{**each, "name": None} if each["id"] == _LAST else each for each in found["templates"]],
    }


def _one_more(service: Service, reference: Reference, request: Request) -> Response:
    if request.path != LIST:
        return reference(request)
    limit = min(200, int(request.query["limit"]) + 1)
    return reference(request._replace(query={**request.query, "limit": str(limit)}))


def _circling(found: dict[str, Any], request: Request) -> dict[str, Any]:
    return {**found, "nextCursor": request.query["cursor"]} if "cursor" in request.query else found


def _losing(found: dict[str, Any], request: Request) -> dict[str, Any]:
    return found if found["nextCursor"] is None else {**found, "templates": found["templates"][:-1]}


def _begins_again(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    if response.status != 410 or request.path != LIST:
        return response
    return reference(request._replace(query={"limit": request.query["limit"]}))


def _not_found(is_meant: Callable[[Request], bool]) -> Broken:
    def broken(service: Service, reference: Reference, request: Request) -> Response:
        response = reference(request)
        return Response(404) if response.status == 410 and is_meant(request) else response

    return broken


def _500_for_nonsense(service: Service, reference: Reference, request: Request) -> Response:
    return Response(500, b"oops") if request.path == RENDER and not _asked(request) else reference(request)


def _without_pointers(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    if response.status != 422:
        return response
    return _saying(response, {name: value for name, value in _content_of(response).items() if name != "errors"})


def _without_attributes(item: dict[str, Any]) -> dict[str, Any]:
    kept = ("recipient.external_id", "occurrence.at")
    return {**item, "tokens": {name: value for name, value in item["tokens"].items() if name in kept}}


def _two_lines(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    message = {"subject": "Hello Zebra\r\nBcc: somebody@example.com", "text": "Hello", "locale": "en"}
    return [message if each.get("error", {}).get("code") == "header_injection" else each for each in results]


def _numbered(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    if request.path != RENDER or response.status != 200:
        return response
    results = _content_of(response)["results"]
    for each in results:
        service.count += 1
        each["text"] = f"{each.get('text', '')} {service.count}"
    return _saying(response, {"results": results})


def _refuses_without(service: Service, reference: Reference, request: Request) -> Response:
    found = service.templates.last(str(_asked(request).get("template")))
    lacks = [each for each in _asked(request).get("items") or () if each.get("tokens") == {}]
    return Response(422) if lacks and found and found.head["tokens"] else reference(request)


def _from_email(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    if b"no_content" not in response.body:
        return response
    return reference(_with(request, channel="push"))


def _the_present_one(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    found = service.templates.last(str(_asked(request).get("template"))) if request.path == RENDER else None
    return reference(_with(request, version=found.head["version"])) if response.status == 410 and found else response


def _padded(service: Service, reference: Reference, request: Request) -> Response:
    response = reference(request)
    is_full = len(_asked(request).get("items") or ()) == 500
    return response._replace(body=response.body + b" " * MAX_BYTES) if is_full else response


# By the check that finds it, and no other does.
BROKEN: dict[str, Broken] = {
    "reachable": _elsewhere,
    "token": _open_to_all,
    "list": _lists(lambda found, _: {"templates": found["templates"]}),
    "media_type": _as_html,
    "templates": _lists(_nameless),
    "limit": _one_more,
    "progress": _lists(_circling),
    "each_once": _lists(_losing),
    "unknown_cursor": _begins_again,
    "one": _bent(
        lambda request: request.path.startswith(f"{LIST}/"), lambda found, _: {**found, "version": "of another place"}
    ),
    "unknown_id": _not_found(lambda request: request.path.startswith(f"{LIST}/")),
    "no_json": _500_for_nonsense,
    "problem": _without_pointers,
    "message": _bent(lambda request: request.path == RENDER, lambda found, _: {"messages": found["results"]}),
    "parts": _messages(lambda message: {**message, "subject": None}),
    "tokens": _items(_without_attributes),
    "html": _messages(lambda message: {**message, "html": unescape(message["html"])}),
    "plain": _messages(lambda message: {**message, "subject": escape(message["subject"])}),
    "subject_line": _results(_two_lines),
    "locales": _items(lambda item: {**item, "locale": ""}),
    "fallback": _items(lambda item: {**item, "locale": "" if item["locale"].endswith("-AQ") else item["locale"]}),
    "again": _numbered,
    "order": _results(lambda results: results[::-1]),
    "missing": _refuses_without,
    "no_content": _from_email,
    "unknown_version": _the_present_one,
    "unknown_template": _not_found(lambda request: _asked(request).get("template") == NOBODYS),
    "time_zone": _items(lambda item: {**item, "timeZone": "UTC"}),
    "full_call": _padded,
}

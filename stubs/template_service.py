"""An organisation's template service, as docs/contracts/template-service.yaml has it: the reference.

    python -m stubs.template_service --templates templates.ndjson --token secret --port 0

The file holds a template on each line: `id`, `name`, `defaultLocale`, and `contents`, each with channel, locale, and
some of subject, text and html; `version` may stand beside, else they are counted. Every version that there ever was is
kept, until it is forgotten on request.

    GET    /                 how many templates there are
    POST   /keep             templates as NDJSON: each is the next version of the one with its `id`, or a new one
    DELETE /keep             ?id=welcome: the template is gone; ?id=welcome&version=v1: that version alone

Faults (`stubs.faults`) are matched by `operation`, List, Template or Render, and `to`, a glob: for the cursor, which is
empty for the first page, for the id, or for the tokens of an item as JSON, so that `*Ada*` hits whoever's tokens hold
that. `bulk_entry_status` refuses single items with `code`; `short` sends half of the results. One kind is its own:

    repeat                   a page of the list says that it comes again itself
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from stubs.faults import KINDS, Plan, Rule
from stubs.http import Request, Response, text_response
from stubs.log import Accepted, Log
from stubs.server import Operation, Refused, Stub, main
from stubs.template_engine import Engine, Item, Minijinja, NotRendered, Said

MAX_PAGE: Final = 200
MAX_ITEMS: Final = 500
KEPT_S: Final = 3600.0  # a cursor
PROBLEM: Final = "application/problem+json"
CHANNELS: Final = ("email", "push", "in_app")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:-]{0,199}", re.ASCII)


class Version(NamedTuple):
    """A template as it was published once; ``head`` is how the list has it."""

    name: str
    said: Said
    head: Mapping[str, Any]


class Templates:
    """Every version of every template, by id; of a template that is gone there are none."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._versions: dict[str, dict[str, Version]] = {}
        self._published: dict[str, int] = {}

    def put(self, lines: Iterable[str | bytes]) -> int:
        """Templates as NDJSON; how many. Raises ValueError for what is none."""
        made = [_read(json.loads(line)) for line in lines if line.strip()]
        for template_id, called, name, said in made:
            number = self._published.get(template_id, 0) + 1
            version = called or f"v{number}"
            head = {
                "id": template_id,
                "version": version,
                "name": name,
                "defaultLocale": said.default_locale,
                "contents": [{"channel": each["channel"], "locale": each["locale"]} for each in said.contents],
                "tokens": self.engine.tokens(said),
            }
            self._published[template_id] = number
            self._versions.setdefault(template_id, {})[version] = Version(name, said, head)
        return len(made)

    def remove(self, template_id: str, version: str = "") -> bool:
        """Forget a template, or one of its versions; whether there was one."""
        if not version:
            return self._versions.pop(template_id, None) is not None
        return self._versions.get(template_id, {}).pop(version, None) is not None

    def heads(self) -> list[Mapping[str, Any]]:
        """All templates as they are now."""
        return [found.head for template_id in self._versions if (found := self.last(template_id))]

    def last(self, template_id: str) -> Version | None:
        return next(reversed(self._versions.get(template_id, {}).values()), None)

    def version(self, template_id: str, version: str) -> Version | None:
        return self._versions.get(template_id, {}).get(version)


def _read(given: Any) -> tuple[str, str, str, Said]:
    """Id, version where it says one, name, and what it says."""
    if not isinstance(given, dict) or not _ID.fullmatch(str(given.get("id", ""))):
        raise ValueError("a template is an object with an id")
    contents = given.get("contents")
    if not isinstance(contents, list) or not all(each.get("channel") in CHANNELS for each in contents):
        raise ValueError("contents: a list of objects with channel and locale")
    kept = [{"locale": "", **each} for each in contents]
    said = Said(kept, given.get("defaultLocale") or "en")
    return given["id"], str(given.get("version") or ""), str(given.get("name") or given["id"]), said


class Asking:
    """What the operations share: the token, the body, the form of errors."""

    name: str
    path: str
    sends = True

    def __init__(self, templates: Templates) -> None:
        self.templates = templates
        self.token = ""

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        given = headers.get("authorization", "").encode()
        if self.token and not secrets.compare_digest(given, f"Bearer {self.token}".encode()):
            raise Refused(401, "unauthorized", "A token that is known here is needed.")
        try:
            call = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "bad_request", "The body is no JSON.") from error
        if not isinstance(call, dict):
            raise Refused(400, "bad_request", "The body is no object.")
        return call

    def fault(self, rule: Rule) -> Refused:
        words = rule.message or "injected fault"
        return Refused(rule.status or 503, rule.error or "fault", words, retry_after=rule.retry_after)

    def shorten(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer

    def refusal(self, refused: Refused) -> tuple[dict[str, str], dict[str, Any]]:
        problem = {"type": "about:blank", "title": refused.error, "status": refused.status, "detail": refused.message}
        return {}, {**problem, "errors": list(refused.details)} if refused.details else problem


class List(Asking):
    """A page: all pages of an answer hold the templates that there were when the first one was asked for."""

    name = "List"
    path = "/templates"

    def __init__(self, templates: Templates) -> None:
        super().__init__(templates)
        self.answers: dict[str, tuple[float, list[Mapping[str, Any]]]] = {}

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        call = super().parse(path, headers, body)
        limit = call.get("limit", str(MAX_PAGE))
        if not limit.isdecimal() or not 1 <= int(limit) <= MAX_PAGE:
            raise _bad("/limit", f"a whole number from 1 to {MAX_PAGE} is needed")
        return {"limit": int(limit), "cursor": call.get("cursor")}

    def addresses(self, call: Any) -> list[str]:
        return [call["cursor"] or ""]

    def accept(self, call: Any, at: str, statuses: Mapping[int, str]) -> tuple[list[Accepted], dict[str, Any]]:
        key, start, heads = self._found(call["cursor"])
        end = start + call["limit"]
        more = f"{key}.{end}" if end < len(heads) else None
        return [], {"templates": heads[start:end], "nextCursor": more}

    def repeat(self, call: Any) -> dict[str, Any]:
        key, start, _ = self._found(call["cursor"])
        return {**self.accept({**call, "cursor": f"{key}.{start}"}, "", {})[1], "nextCursor": f"{key}.{start}"}

    def shorten(self, answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "templates": answer["templates"][: len(answer["templates"]) // 2]}

    def _found(self, cursor: str | None) -> tuple[str, int, list[Mapping[str, Any]]]:
        now = time.monotonic()
        for key in [key for key, (until, _) in self.answers.items() if until < now]:
            del self.answers[key]
        if cursor is None:
            key = secrets.token_urlsafe(12)
            self.answers[key] = now + KEPT_S, self.templates.heads()
            return key, 0, self.answers[key][1]
        key, _, start = cursor.partition(".")
        if key not in self.answers or not start.isdecimal():
            raise Refused(410, "gone", "The cursor is not known (any more): begin again without one.")
        return key, int(start), self.answers[key][1]


class One(Asking):
    name = "Template"
    path = "/templates/{id}"

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        super().parse(path, headers, body)
        return path.removeprefix("/templates/")

    def addresses(self, call: Any) -> list[str]:
        return [call]

    def accept(self, call: Any, at: str, statuses: Mapping[int, str]) -> tuple[list[Accepted], dict[str, Any]]:
        found = self.templates.last(call)
        if found is None:
            raise Refused(410, "gone", "There is no such template (any more).")
        return [], dict(found.head)


class Render(Asking):
    name = "Render"
    path = "/render"

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        call = super().parse(path, headers, body)
        for name in ("template", "version"):
            if not isinstance(call.get(name), str):
                raise _bad(f"/{name}", "a text is needed")
        if call.get("channel") not in CHANNELS:
            raise _bad("/channel", f"one of {', '.join(CHANNELS)} is needed")
        items = call.get("items")
        if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
            raise _bad("/items", f"a list of 1 to {MAX_ITEMS} is needed")
        call["items"] = [_item(each, place) for place, each in enumerate(items)]
        return call

    def addresses(self, call: Any) -> list[str]:
        return [json.dumps(item.tokens, ensure_ascii=False) for item in call["items"]]

    def accept(self, call: Any, at: str, statuses: Mapping[int, str]) -> tuple[list[Accepted], dict[str, Any]]:
        found = self.templates.version(call["template"], call["version"])
        if found is None:
            raise Refused(410, "gone", "There is no such version of a template (any more).")
        results = self.templates.engine.render(found.said, call["channel"], call["items"])
        for place, code in statuses.items():
            results[place] = NotRendered(code.lower(), "injected fault")
        return [], {"results": [_result(each) for each in results]}

    def shorten(self, answer: dict[str, Any]) -> dict[str, Any]:
        return {"results": answer["results"][: len(answer["results"]) // 2]}


def _item(given: Any, place: int) -> Item:
    if not isinstance(given, dict):
        raise _bad(f"/items/{place}", "an object is needed")
    for name in ("locale", "timeZone"):
        if not isinstance(given.get(name), str):
            raise _bad(f"/items/{place}/{name}", "a text is needed")
    if not isinstance(given.get("tokens"), dict):
        raise _bad(f"/items/{place}/tokens", "an object is needed")
    return Item(given["locale"], given["timeZone"], given["tokens"])


def _result(made: dict[str, str] | NotRendered) -> dict[str, Any]:
    return {"error": {"code": made.code, "detail": str(made)}} if isinstance(made, NotRendered) else made


def _bad(pointer: str, words: str) -> Refused:
    return Refused(422, "refused", f"{pointer}: {words}", details=[{"pointer": pointer, "detail": words}])


class TemplateServiceStub(Stub):
    title = "Template service"
    kinds: ClassVar[Sequence[str]] = (*KINDS, "repeat")
    engine: ClassVar[type[Engine]] = Minijinja

    def __init__(self, log: Log) -> None:
        self.templates = Templates(self.engine())
        self.list, self.one, self.render = List(self.templates), One(self.templates), Render(self.templates)
        super().__init__(log, [self.list, self.one, self.render])
        for door in (("GET", "/messages"), ("DELETE", "/messages")):
            del self.doors[door]
        self.doors["GET", "/"] = self._about
        self.doors["POST", "/keep"] = self._put
        self.doors["DELETE", "/keep"] = self._remove

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--templates", type=Path, help="NDJSON: a template on each line")
        parser.add_argument("--token", default="", help="the bearer token to ask for; none: anybody may ask")

    def opened(self, url: str, options: argparse.Namespace) -> None:
        self.admit(options.token)
        if options.templates:
            with options.templates.open("rb") as lines:
                self.templates.put(lines)

    def admit(self, token: str) -> None:
        """Whoever has that token, and nobody else; everybody where it is empty."""
        self.list.token = self.one.token = self.render.token = token

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        operation = self._operation(request.path)
        if operation is None:
            return super().answer(request)
        if request.method != ("POST" if operation is self.render else "GET"):
            return text_response("Ask for it otherwise: see docs/contracts/template-service.yaml.", status=405)
        if operation is not self.render:
            request = request._replace(body=json.dumps(dict(request.query)).encode())
        return self._exchange(operation, request)

    def refuse(self, operation: Operation, refused: Refused) -> Response:
        return super().refuse(operation, refused)._replace(content_type=PROBLEM)

    async def _fail(self, operation: Operation, call: Any, plan: Plan) -> Response:
        if plan.rule is None or plan.rule.kind != "repeat" or not isinstance(operation, List):
            return await super()._fail(operation, call, plan)
        await asyncio.sleep(plan.seconds)
        self.faulted[plan.rule.kind] += 1
        return self.respond(operation.repeat(call))

    def _about(self, _: Request) -> Response:
        count = len(self.templates.heads())
        return text_response(f"{count} templates; docs/contracts/README.md says how to ask for them.")

    def _put(self, request: Request) -> Response:
        try:
            self.templates.put(request.body.splitlines())
        except (ValueError, AttributeError) as error:
            return text_response(str(error), status=400)
        return Response(204)

    def _remove(self, request: Request) -> Response:
        was_there = self.templates.remove(request.query.get("id", ""), request.query.get("version", ""))
        return Response(204 if was_there else 404)


if __name__ == "__main__":
    main(TemplateServiceStub)

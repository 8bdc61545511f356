"""An organisation's user service, as docs/contracts/user-service.yaml has it: the reference.

    python -m stubs.user_service --people people.ndjson --token secret --port 0

The file holds a profile of the contract on each line; `createdAt` may stand beside, for the field `created_at`. An
audience is answered from one snapshot: who changes, comes or goes while its pages are read makes no difference to them.
A cursor is good for an hour, and for no other process.

    GET    /                 how many people there are
    POST   /people           profiles as NDJSON: each takes the place of the one with its `externalId`
    DELETE /people           ?externalId=42

Faults (`stubs.faults`) are matched by `operation`, Page or Count, and `to`, a glob for the cursor, which is empty for
the first page. `short` sends half of the people and counts all of them. Two kinds are its own:

    repeat                   a page says that it comes again itself
    contradict               a page also holds somebody who has been named already, with another locale and an earlier
                             `updatedAt`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from stubs.audience import CHANNELS, BadAudience, Person, instant, read
from stubs.faults import KINDS, Plan, Rule
from stubs.http import Request, Response, text_response
from stubs.log import Accepted, Log
from stubs.server import Operation, Refused, Stub, main

MAX_PAGE: Final = 10_000
KEPT_S: Final = 3600.0  # a cursor
PROBLEM: Final = "application/problem+json"
OTHER_LOCALE: Final = "tlh"
# What has a date of its own beside the profile's.
_DATED: Final = {"consent": "consentUpdatedAt", "quietHours": "quietHoursUpdatedAt"}


class Held(NamedTuple):
    """Somebody: what is asked of them, and what is sent."""

    person: Person
    profile: Mapping[str, Any]
    encoded: bytes


class Resolution(NamedTuple):
    """The answer to one audience; `until` in seconds of `time.monotonic`."""

    held: Sequence[Held]
    until: float


class People:
    """Everybody, in the order in which they came. Raises ValueError for what is no profile."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}

    def put(self, lines: Iterable[str | bytes]) -> int:
        """Profiles as NDJSON; how many."""
        count = 0
        for line in lines:
            if line.strip():
                made = self._made(json.loads(line))
                self.held[made.person.external_id] = made
                count += 1
        return count

    def _made(self, profile: Any) -> Held:
        """Of somebody who was known consent and quiet hours are as old as they were, unless they are others now."""
        made = _held(profile)
        known = self.held.get(made.person.external_id)
        if known is None:
            return made
        dated = {}
        for name, at in _DATED.items():
            if at not in made.profile and made.profile.get(name):
                is_same = known.profile.get(name) == made.profile[name]
                dated[at] = known.profile.get(at, known.profile["updatedAt"]) if is_same else made.profile["updatedAt"]
        return _held({**profile, "updatedAt": made.profile["updatedAt"], **dated}) if dated else made

    def select(self, audience: object, *, now: datetime) -> list[Held]:
        """Raises BadAudience."""
        test = read(audience, now=now)
        return [each for each in self.held.values() if test(each.person)]


def _held(profile: Any) -> Held:
    if not isinstance(profile, dict) or not isinstance(profile.get("externalId"), str):
        raise ValueError("a profile is an object with an externalId")
    came_at = datetime.now(UTC)
    sent = {name: value for name, value in profile.items() if name != "createdAt"}
    sent.setdefault("updatedAt", came_at.isoformat())
    consent = sent.get("consent") or {}
    addressable = {"email": bool(sent.get("email")), "push": bool(sent.get("devices")), "in_app": True}
    person = Person(
        external_id=sent["externalId"],
        locale=sent.get("locale") or "",
        time_zone=sent.get("timeZone") or "",
        created_at=instant(profile.get("createdAt")) or came_at,
        tags=frozenset(sent.get("tags") or ()),
        channels=frozenset(name for name in CHANNELS if addressable[name] and consent.get(name) is not False),
        attributes=sent.get("attributes") or {},
    )
    return Held(person, sent, json.dumps(sent, ensure_ascii=False, separators=(",", ":")).encode())


class Asking:
    """What both operations share: the token, the body, the form of errors."""

    name: str
    path: str
    sends = True

    def __init__(self, people: People) -> None:
        self.people = people
        self.token = ""

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        if self.token and not secrets.compare_digest(
            headers.get("authorization", "").encode(), f"Bearer {self.token}".encode()
        ):
            raise Refused(401, "unauthorized", "A token that is known here is needed.")
        try:
            call = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "bad_request", "The body is no JSON.") from error
        if not isinstance(call, dict):
            raise Refused(400, "bad_request", "The body is no object.")
        call["now"] = instant(call.get("asOf"))
        if call["now"] is None:
            raise _bad("/asOf", "an instant with its offset is needed")
        return call

    def addresses(self, call: Any) -> list[str]:
        return [call.get("cursor") or ""]

    def fault(self, rule: Rule) -> Refused:
        words = rule.message or "injected fault"
        return Refused(rule.status or 503, rule.error or "fault", words, retry_after=rule.retry_after)

    def shorten(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer

    def refusal(self, refused: Refused) -> tuple[dict[str, str], dict[str, Any]]:
        problem = {"type": "about:blank", "title": refused.error, "status": refused.status, "detail": refused.message}
        return {}, {**problem, "errors": list(refused.details)} if refused.details else problem

    def select(self, call: Any) -> list[Held]:
        try:
            return self.people.select(call.get("audience"), now=call["now"])
        except BadAudience as error:
            raise _bad(f"/audience{error.pointer}", str(error)) from error


class Page(Asking):
    name = "Page"
    path = "/audience/page"

    def __init__(self, people: People) -> None:
        super().__init__(people)
        self.resolutions: dict[str, Resolution] = {}

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        call = super().parse(path, headers, body)
        limit, cursor = call.get("limit"), call.get("cursor")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_PAGE:
            raise _bad("/limit", f"a whole number from 1 to {MAX_PAGE} is needed")
        if cursor is not None and not isinstance(cursor, str):
            raise _bad("/cursor", "null or a text is needed")
        return call

    def accept(self, call: Any, at: str, statuses: Mapping[int, str]) -> tuple[list[Accepted], dict[str, Any]]:
        key, resolution, start = self._found(call)
        return [], _page(key, resolution, start, call["limit"])

    def bent(self, kind: str, call: Any) -> dict[str, Any]:
        """The answer to a call with one of the faults of our own."""
        key, resolution, start = self._found(call)
        if kind == "repeat":
            return {**_page(key, resolution, start, call["limit"]), "nextCursor": f"{key}.{start}"}
        answer = _page(key, resolution, start, max(1, call["limit"] - 1))
        if not resolution.held:
            return answer
        named = resolution.held[0]
        earlier = (instant(named.profile["updatedAt"]) or call["now"]) - timedelta(days=1)
        other = _held({**named.profile, "locale": OTHER_LOCALE, "updatedAt": earlier.isoformat()})
        return {**answer, "profiles": [*answer["profiles"], other], "count": answer["count"] + 1}

    def shorten(self, answer: dict[str, Any]) -> dict[str, Any]:
        return {**answer, "profiles": answer["profiles"][: len(answer["profiles"]) // 2]}

    def _found(self, call: Any) -> tuple[str, Resolution, int]:
        cursor = call.get("cursor")
        if cursor is not None:
            key, _, start = cursor.partition(".")
            resolution = self.resolutions.get(key)
            if resolution is None or resolution.until < time.monotonic() or not start.isdecimal():
                raise Refused(410, "gone", "The cursor is not known (any more): begin again without one.")
            return key, resolution, int(start)
        now = time.monotonic()
        for key in [key for key, each in self.resolutions.items() if each.until < now]:
            del self.resolutions[key]
        key = secrets.token_urlsafe(12)
        resolution = self.resolutions[key] = Resolution(self.select(call), now + KEPT_S)
        return key, resolution, 0


def _page(key: str, resolution: Resolution, start: int, limit: int) -> dict[str, Any]:
    end = start + limit
    held = resolution.held[start:end]
    more = f"{key}.{end}" if end < len(resolution.held) else None
    return {"profiles": held, "count": len(held), "nextCursor": more, "total": len(resolution.held)}


class Count(Asking):
    name = "Count"
    path = "/audience/count"

    def accept(self, call: Any, at: str, statuses: Mapping[int, str]) -> tuple[list[Accepted], dict[str, Any]]:
        return [], {"count": len(self.select(call))}


def _bad(pointer: str, words: str) -> Refused:
    return Refused(422, "refused", f"{pointer}: {words}", details=[{"pointer": pointer, "detail": words}])


class UserServiceStub(Stub):
    title = "User service"
    kinds: ClassVar[Sequence[str]] = (*KINDS, "repeat", "contradict")

    def __init__(self, log: Log) -> None:
        self.people = People()
        self.page, self.count = Page(self.people), Count(self.people)
        super().__init__(log, [self.page, self.count])
        for door in (("GET", "/messages"), ("DELETE", "/messages")):
            del self.doors[door]
        self.doors["GET", "/"] = self._about
        self.doors["POST", "/people"] = self._put
        self.doors["DELETE", "/people"] = self._remove

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--people", type=Path, help="NDJSON: a profile on each line")
        parser.add_argument("--token", default="", help="the bearer token to ask for; none: anybody may ask")

    def opened(self, url: str, options: argparse.Namespace) -> None:
        self.page.token = self.count.token = options.token
        if options.people:
            with options.people.open("rb") as lines:
                self.people.put(lines)

    def respond(self, answer: dict[str, Any]) -> Response:
        if "profiles" not in answer:
            return super().respond(answer)
        rest = json.dumps({name: value for name, value in answer.items() if name != "profiles"}).encode()
        people = b",".join(each.encoded for each in answer["profiles"])
        return Response(200, b'{"profiles":[' + people + b"]," + rest[1:])

    def refuse(self, operation: Operation, refused: Refused) -> Response:
        return super().refuse(operation, refused)._replace(content_type=PROBLEM)

    async def _fail(self, operation: Operation, call: Any, plan: Plan) -> Response:
        if plan.rule is None or plan.rule.kind in KINDS or not isinstance(operation, Page):
            return await super()._fail(operation, call, plan)
        await asyncio.sleep(plan.seconds)
        self.faulted[plan.rule.kind] += 1
        return self.respond(operation.bent(plan.rule.kind, call))

    def _about(self, _: Request) -> Response:
        return text_response(f"{len(self.people.held)} people; docs/contracts/README.md says how to ask for them.")

    def _put(self, request: Request) -> Response:
        try:
            self.people.put(request.body.splitlines())
        except ValueError as error:
            return text_response(str(error), status=400)
        return Response(204)

    def _remove(self, request: Request) -> Response:
        known = self.people.held.pop(request.query.get("externalId", ""), None)
        return Response(204 if known else 404)


if __name__ == "__main__":
    main(UserServiceStub)

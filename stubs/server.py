"""What all provider stubs share: an HTTP server with a log, a mailbox, figures, and faults on request.

    GET    /                 the mailbox, for people; a message at /mail/{id}
    GET    /messages         the newest messages as JSON; ?limit=100&to=part-of-an-address
    DELETE /messages         empties the mailbox (the log file only ever grows)
    GET    /stats            {"requests", "accepted", "calls": {operation: n}, "faults": {kind: n},
                             "answers": {status, or how it was cut: n}}; requests are the calls that send
    POST   /faults           {"rules": [...], "seed": 0}: see stubs.faults
    DELETE /faults           no more faults

A message is in the log before the answer that accepts it leaves, so the log misses nothing after any end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

from stubs import pages
from stubs.faults import KINDS, BadRule, Faults, Plan, Rule
from stubs.http import Request, Response, Server, json_response, text_response
from stubs.log import Accepted, Log

KEPT = 1000  # messages in the mailbox
_NOTHING = Plan()


class Refused(Exception):
    """The call is answered with an error; nothing of it is accepted."""

    def __init__(
        self,
        status: int,
        error: str,
        message: str,
        *,
        retry_after: float | None = None,
        details: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message
        self.retry_after = retry_after
        self.details = details


class Operation(Protocol):
    """One call of the service's API."""

    name: str
    path: str
    sends: bool  # or is it about something else, such as a token

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> Any:
        """The call, validated; raises Refused."""

    def addresses(self, call: Any) -> list[str]:
        """Whom the call is for, entry by entry."""

    def accept(self, call: Any, at: str, statuses: Mapping[int, str]) -> tuple[list[Accepted], dict[str, Any]]:
        """What is accepted, and the answer; `statuses` are those of entries that a fault refuses."""

    def fault(self, rule: Rule) -> Refused:
        """What a rule of the kind status means here."""

    def shorten(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer with half of its entries."""

    def refusal(self, refused: Refused) -> tuple[dict[str, str], dict[str, Any]]:
        """Headers and body of an error, as the service puts them."""


class Stub:
    """A service's double: its operations on a server of their own."""

    title: ClassVar[str]
    addressee: ClassVar[str] = "address"  # what messages are sent to
    kinds: ClassVar[Sequence[str]] = KINDS  # of faults

    def __init__(self, log: Log, operations: Sequence[Operation] = ()) -> None:
        self.server = Server(self.answer)
        self._operations = operations
        self._paths = [(_pattern(operation.path), operation) for operation in operations]
        self.doors: dict[tuple[str, str], Callable[[Request], Response | Awaitable[Response]]] = {
            ("GET", "/"): self._index,
            ("GET", "/messages"): self._messages,
            ("DELETE", "/messages"): self._empty,
            ("GET", "/stats"): self._stats,
            ("POST", "/faults"): self._set_faults,
            ("DELETE", "/faults"): self._no_faults,
        }
        self._log = log
        self.mailbox: deque[Accepted] = deque(maxlen=KEPT)
        self.faults = Faults(kinds=self.kinds)
        self.accepted = 0
        self.calls: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.faulted: Counter[str] = Counter()

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        """What this stub's command line takes beyond the common."""

    def opened(self, url: str, options: argparse.Namespace) -> None:
        """Called once the address is known, before it is said."""

    def close(self) -> None:
        self._log.close()

    def now(self) -> datetime:
        """What `at` says of a message accepted at this moment; UTC. For a world with a clock of its own."""
        return datetime.now(UTC)

    def respond(self, answer: dict[str, Any]) -> Response:
        """An operation's answer, as it is sent."""
        return json_response(answer)

    def refuse(self, operation: Operation, refused: Refused) -> Response:
        headers, body = operation.refusal(refused)
        if refused.retry_after is not None:
            headers["Retry-After"] = f"{refused.retry_after:g}"
        return json_response(body, status=refused.status, headers=headers)

    def answer(self, request: Request) -> Response | Awaitable[Response]:
        """Everything that comes in passes here."""
        operation = self._operation(request.path)
        if operation is not None and request.method == "POST":
            return self._exchange(operation, request)
        return self._page(request)

    def _operation(self, path: str) -> Operation | None:
        return next((operation for pattern, operation in self._paths if pattern.fullmatch(path)), None)

    def _exchange(self, operation: Operation, request: Request) -> Response | Awaitable[Response]:
        self.calls[operation.name] += 1
        try:
            call = operation.parse(request.path, request.headers, request.body)
            plan = _NOTHING
            if self.faults.rules:
                plan = self.faults.draw(operation.name, operation.addresses(call), sends=operation.sends)
            if plan.seconds or plan.rule is not None:
                return self._counted_later(operation, call, plan)
            return self._counted(self.respond(self._accept(operation, call, plan.entries)))
        except Refused as refused:
            return self._counted(self.refuse(operation, refused))

    def _counted(self, response: Response) -> Response:
        self.answers[response.end or str(response.status)] += 1
        return response

    async def _counted_later(self, operation: Operation, call: Any, plan: Plan) -> Response:
        try:
            return self._counted(await self._fail(operation, call, plan))
        except Refused as refused:
            return self._counted(self.refuse(operation, refused))

    async def _fail(self, operation: Operation, call: Any, plan: Plan) -> Response:
        if plan.seconds:
            self.faulted["latency"] += 1
            await asyncio.sleep(plan.seconds)
        rule = plan.rule
        if rule is None:
            return self.respond(self._accept(operation, call, plan.entries))
        self.faulted[rule.kind] += 1
        answer = self._accept(operation, call, plan.entries) if rule.accept else {}
        if rule.kind == "status":
            raise operation.fault(rule)
        if rule.kind == "short":
            return self.respond(operation.shorten(answer))
        if rule.kind == "garbage":
            return text_response("<html>it works", content_type="text/html")
        if rule.kind == "half":
            return self.respond(answer or {"cut": "here"})._replace(end="half")
        if rule.kind == "silence":
            await asyncio.sleep(rule.seconds)
        return Response(end="reset" if rule.kind == "reset" else "close")

    def _accept(self, operation: Operation, call: Any, statuses: Mapping[int, str]) -> dict[str, Any]:
        accepted, answer = operation.accept(call, self.now().isoformat(timespec="microseconds"), statuses)
        self._log.write(accepted)
        if statuses:
            self.faulted["bulk_entry_status"] += len(statuses)
        self.mailbox.extend(accepted)
        self.accepted += len(accepted)
        self.took(accepted)
        return answer

    def took(self, messages: Sequence[Accepted]) -> None:
        """Called with what was just accepted."""

    def _newest(self, to: str, limit: int) -> list[Accepted]:
        return list(islice((m for m in reversed(self.mailbox) if to in m.to), limit))

    def _page(self, request: Request) -> Response | Awaitable[Response]:
        """What people and tests ask."""
        asked = self.doors.get((request.method, request.path))
        if asked is not None:
            return asked(request)
        if request.method == "GET" and request.path.startswith("/mail/"):
            return self._mail(request.path.removeprefix("/mail/"))
        return text_response("There is nothing here.", status=404)

    def _index(self, request: Request) -> Response:
        to = request.query.get("to", "")
        return pages.response(pages.mailbox(self.title, self.addressee, self._newest(to, 100), to, self.accepted))

    def _mail(self, wanted: str) -> Response:
        for message in self.mailbox:
            if message.message_id == wanted:
                return pages.response(pages.mail(self.title, message))
        return text_response("This message is no longer in the mailbox.", status=404)

    def _messages(self, request: Request) -> Response:
        try:
            limit = int(request.query.get("limit", "100"))
        except ValueError:
            return text_response("limit: a whole number, e.g. ?limit=100", status=400)
        return json_response([m._asdict() for m in self._newest(request.query.get("to", ""), limit)])

    def _empty(self, _: Request) -> Response:
        self.mailbox.clear()
        return Response(204)

    def _stats(self, _: Request) -> Response:
        sends = sum(self.calls[operation.name] for operation in self._operations if operation.sends)
        figures = {"requests": sends, "accepted": self.accepted, "calls": dict(self.calls)}
        return json_response({**figures, "answers": dict(self.answers), "faults": dict(self.faulted)})

    def _set_faults(self, request: Request) -> Response:
        try:
            given = json.loads(request.body)
            self.faults.replace(given["rules"], seed=given.get("seed", 0))
        except (BadRule, ValueError) as error:
            return text_response(str(error), status=400)
        except (KeyError, TypeError, AttributeError):
            return text_response('An object is expected: {"rules": [...], "seed": 0}', status=400)
        if self.faults.refuse_for:
            self.faulted["refuse"] += 1
            self.server.refuse(self.faults.refuse_for)
        return Response(204)

    def _no_faults(self, _: Request) -> Response:
        self.faults.replace([])
        return Response(204)


def _pattern(path: str) -> re.Pattern[str]:
    """Of a path like /v1/projects/{project}/messages:send, in which names stand for one part each."""
    return re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)))


async def _serve(stub: Stub, options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), _stop_at_end, sys.stdin.fileno(), stop)
    url = await stub.server.start(options.host, options.port)
    stub.opened(url, options)
    sys.stdout.write(f"{stub.title} stub ready at {url}\n")
    sys.stdout.flush()
    await stop.wait()
    await stub.server.close()
    stub.close()


def _stop_at_end(stdin: int, stop: asyncio.Event) -> None:
    if not os.read(stdin, 4096):
        stop.set()


def main(make: type[Stub]) -> None:
    """The command line of a stub: runs until SIGTERM, SIGINT or, if asked to, the end of standard input."""
    parser = argparse.ArgumentParser(description="A provider's double over real HTTP.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--log", type=Path, help="file that gets a JSON line for each message")
    parser.add_argument("--bodies", action="store_true", help="log whole texts, not their hashes")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the starting process")
    parser.add_argument("--faults", type=json.loads, default=[], help="rules in force from the start, a JSON list")
    make.add_options(parser)
    options = parser.parse_args()
    stub = make(log=Log(options.log, bodies=options.bodies))
    stub.faults.replace(options.faults)
    asyncio.run(_serve(stub, options))

"""What all provider stubs share: an HTTP server with a log, a mailbox, figures, and faults on request.

    GET    /                 the mailbox, for people; a message at /mail/{id}
    GET    /messages         the newest messages as JSON; ?limit=100&to=part-of-an-address
    DELETE /messages         empties the mailbox (the log file only ever grows)
    GET    /stats            {"requests", "accepted", "calls": {operation: n}, "answers": {status: n},
                             "faults": {kind: n}}; requests are the calls that send
    POST   /faults           {"rules": [...], "seed": 0}: see stubs.faults
    DELETE /faults           no more faults

A message is in the log before the answer that accepts it leaves, so the log misses nothing after any end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

from aiohttp import web

from stubs import pages
from stubs.faults import BadRule, Faults, Plan, Rule
from stubs.log import Accepted, Log

KEPT = 1000  # messages in the mailbox


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

    def __init__(self, log: Log, operations: Sequence[Operation] = ()) -> None:
        self._operations = operations
        self._log = log
        self.mailbox: deque[Accepted] = deque(maxlen=KEPT)
        self.faults = Faults()
        self.accepted = 0
        self.calls: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.faulted: Counter[str] = Counter()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        for operation in self._operations:
            app.router.add_post(operation.path, self._door(operation))
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/mail/{id}", self._mail),
                web.get("/messages", self._messages),
                web.delete("/messages", self._empty),
                web.get("/stats", self._stats),
                web.post("/faults", self._set_faults),
                web.delete("/faults", self._no_faults),
            ]
        )
        return app

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

    def _door(self, operation: Operation) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.StreamResponse:
            self.calls[operation.name] += 1
            body = await request.read()
            try:
                response = await self._exchange(request, operation, body)
            except Refused as refused:
                response = _refusal(operation, refused)
            self.answers[str(response.status)] += 1
            return response

        return answer

    async def _exchange(self, request: web.Request, operation: Operation, body: bytes) -> web.StreamResponse:
        call = operation.parse(request.path, request.headers, body)
        plan = None
        if self.faults.rules:
            plan = self.faults.draw(operation.name, operation.addresses(call), sends=operation.sends)
        if plan is None:
            return web.json_response(self._accept(operation, call, {}))
        return await self._fail(request, operation, call, plan)

    async def _fail(self, request: web.Request, operation: Operation, call: Any, plan: Plan) -> web.StreamResponse:
        if plan.seconds:
            self.faulted["latency"] += 1
            await asyncio.sleep(plan.seconds)
        if plan.entries:
            self.faulted["bulk_entry_status"] += len(plan.entries)
        rule = plan.rule
        if rule is None:
            return web.json_response(self._accept(operation, call, plan.entries))
        self.faulted[rule.kind] += 1
        answer = self._accept(operation, call, plan.entries) if rule.accept else {}
        if rule.kind == "status":
            raise operation.fault(rule)
        if rule.kind == "short":
            return web.json_response(operation.shorten(answer))
        if rule.kind == "garbage":
            return web.Response(text="<html>it works", content_type="text/html")
        if rule.kind == "half":
            return await _half(request, json.dumps(answer or {"cut": "here"}).encode())
        if rule.kind == "silence":
            await asyncio.sleep(rule.seconds)
        return _cut(request, reset=rule.kind == "reset")

    def _accept(self, operation: Operation, call: Any, statuses: Mapping[int, str]) -> dict[str, Any]:
        accepted, answer = operation.accept(call, self.now().isoformat(timespec="microseconds"), statuses)
        self._log.write(accepted)
        self.mailbox.extend(accepted)
        self.accepted += len(accepted)
        return answer

    def _newest(self, to: str, limit: int) -> list[Accepted]:
        return list(islice((m for m in reversed(self.mailbox) if to in m.to), limit))

    async def _index(self, request: web.Request) -> web.Response:
        to = request.query.get("to", "")
        return pages.response(pages.mailbox(self.title, self._newest(to, 100), to, self.accepted))

    async def _mail(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        for message in self.mailbox:
            if message.message_id == wanted:
                return pages.response(pages.mail(self.title, message))
        raise web.HTTPNotFound(text="This message is no longer in the mailbox.")

    async def _messages(self, request: web.Request) -> web.Response:
        try:
            limit = int(request.query.get("limit", "100"))
        except ValueError:
            raise web.HTTPBadRequest(text="limit: a whole number, e.g. ?limit=100") from None
        return web.json_response([m._asdict() for m in self._newest(request.query.get("to", ""), limit)])

    async def _empty(self, _: web.Request) -> web.Response:
        self.mailbox.clear()
        return web.Response(status=204)

    async def _stats(self, _: web.Request) -> web.Response:
        sends = sum(self.calls[operation.name] for operation in self._operations if operation.sends)
        figures = {"requests": sends, "accepted": self.accepted, "calls": dict(self.calls)}
        return web.json_response({**figures, "answers": dict(self.answers), "faults": dict(self.faulted)})

    async def _set_faults(self, request: web.Request) -> web.Response:
        try:
            given = json.loads(await request.read())
            self.faults.replace(given["rules"], seed=given.get("seed", 0))
        except (BadRule, ValueError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        except (KeyError, TypeError, AttributeError):
            raise web.HTTPBadRequest(text='An object is expected: {"rules": [...], "seed": 0}') from None
        return web.Response(status=204)

    async def _no_faults(self, _: web.Request) -> web.Response:
        self.faults.replace([])
        return web.Response(status=204)


def _refusal(operation: Operation, refused: Refused) -> web.Response:
    headers, body = operation.refusal(refused)
    if refused.retry_after is not None:
        headers["Retry-After"] = f"{refused.retry_after:g}"
    return web.json_response(body, status=refused.status, headers=headers)


async def _half(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response


def _cut(request: web.Request, *, reset: bool) -> web.StreamResponse:
    transport = request.transport
    if transport is not None and reset:
        # Lingering for zero seconds makes the kernel send RST instead of FIN.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    elif transport is not None:
        transport.close()
    return web.Response(status=500)  # for the figures: no one receives it any more


async def _serve(stub: Stub, options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), _stop_at_end, sys.stdin.fileno(), stop)
    runner = web.AppRunner(stub.app(), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, options.host, options.port, backlog=1024)
    await site.start()
    address = runner.addresses[0]
    url = f"http://{address[0]}:{address[1]}"
    stub.opened(url, options)
    sys.stdout.write(f"{stub.title} stub ready at {url}\n")
    sys.stdout.flush()
    await stop.wait()
    await runner.cleanup()
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

"""Many POSTs at once over a few kept connections, for providers that take one message a request.

The event loop lives in a thread of its own; the provider's threads hand it a call's requests and wait for all of
them together, so that a call of a hundred requests costs two switches between threads. A fixed number of workers
takes requests in the order in which they came: that bounds the connections, and no request waits in a place where
its permit could run out unseen.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

import aiohttp

from delivery.providers.base import NotStarted, Permit, ProviderError, Verdict

SLACK_S = 5.0  # seconds that a loaded machine may add to the timeouts


class Reply(NamedTuple):
    """What the server answered; headers are found by their names in lower case, whatever they came in."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Post:
    """One request on its way. `begun`: bytes of it may have left."""

    __slots__ = ("begun", "body", "call", "headers", "index")

    def __init__(self, call: _Call, index: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.call = call
        self.index = index
        self.body = body
        self.headers = headers
        self.begun = False

    def begin(self) -> None:
        self.call.permit.check()
        self.begun = True


class _Call:
    """The requests that a thread waits for."""

    def __init__(self, url: str, headers: Sequence[Mapping[str, str]], bodies: Sequence[bytes], permit: Permit) -> None:
        self.url = url
        self.permit = permit
        self.posts = [_Post(self, index, *given) for index, given in enumerate(zip(bodies, headers, strict=True))]
        # What nobody settles is unknown.
        self.outcomes: list[Reply | ProviderError] = [ProviderError(Verdict.UNKNOWN, "no_answer")] * len(bodies)
        self.open = len(bodies)
        self.done: Future[None] = Future()

    def settle(self, post: _Post, outcome: Reply | ProviderError) -> None:
        self.outcomes[post.index] = outcome
        self.open -= 1
        if not self.open:
            self.done.set_result(None)


# aiohttp makes the request object itself and offers no way to hand it an argument.
_present: ContextVar[_Post] = ContextVar("present")


class _PermitFirst(aiohttp.ClientRequest):
    """Asks the permit between the connection, which may take long to open, and the first byte."""

    async def send(self, conn: Any) -> aiohttp.ClientResponse:
        _present.get().begin()
        return await super().send(conn)


class Pool:
    """At most `connections` requests at once, one attempt each. Threads share it.

    Times are in seconds. A request ends `connect_timeout + read_timeout` after it has begun, at the latest.
    Thread and connections are made at the first call: a process may fork between making a pool and using it.
    """

    def __init__(self, *, connections: int, connect_timeout: float, read_timeout: float) -> None:
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(total=connect_timeout + read_timeout, connect=connect_timeout)
        self._patience = connect_timeout + read_timeout + SLACK_S
        self._workers: _Workers | None = None
        self._lock = threading.Lock()

    def post_all(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        bodies: Sequence[bytes],
        permit: Permit,
        own_headers: Sequence[Mapping[str, str]] = (),
    ) -> list[Reply | ProviderError]:
        """The outcome of each request, in their order; errors are returned, not raised.

        ``own_headers``: what each has beside those of all.
        """
        each: Sequence[Mapping[str, str]] = [{**headers, **own} for own in own_headers] or [headers] * len(bodies)
        call = _Call(url, each, bodies, permit)
        if bodies:
            self._running().take(call)
            with suppress(TimeoutError):  # the loop has died: nobody must wait for it for ever
                call.done.result(max(permit.deadline - time.monotonic(), 0) + self._patience)
        return list(call.outcomes)

    def _running(self) -> _Workers:
        """Those of this process: a fork leaves the threads behind."""
        workers = self._workers
        if workers is None or not workers.is_alive:
            with self._lock:
                workers = self._workers
                if workers is None or not workers.is_alive:
                    workers = self._workers = _Workers(self._connections, self._timeout)
        return workers


class _Workers:
    """A pool's thread and what runs in it."""

    def __init__(self, connections: int, timeout: aiohttp.ClientTimeout) -> None:
        self._connections = connections
        self._timeout = timeout
        self._posts: asyncio.Queue[_Post] = asyncio.Queue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="provider-pool", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def take(self, call: _Call) -> None:
        self._loop.call_soon_threadsafe(self._put, call)

    def _put(self, call: _Call) -> None:
        for post in call.posts:
            self._posts.put_nowait(post)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        connector = aiohttp.TCPConnector(limit=self._connections)
        async with aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=self._timeout, request_class=_PermitFirst
        ) as session:
            await asyncio.gather(*(self._work(session) for _ in range(self._connections)))

    async def _work(self, session: aiohttp.ClientSession) -> None:
        while True:
            post = await self._posts.get()
            post.call.settle(post, await _exchange(session, post))


async def _exchange(session: aiohttp.ClientSession, post: _Post) -> Reply | ProviderError:
    call = post.call
    if not call.permit.is_valid():
        return NotStarted()
    _present.set(post)
    try:
        async with session.post(call.url, headers=post.headers, data=post.body, allow_redirects=False) as response:
            return Reply(response.status, response.headers, await response.read())
    except NotStarted as error:
        return error
    except Exception as error:
        detail = type(error).__name__
        if post.begun:
            return ProviderError(Verdict.UNKNOWN, "no_answer", detail=detail)
        return ProviderError(Verdict.TRANSIENT, "unreachable", detail=detail)

"""The streams' server: lets in by the service's own application, writes what the hub has to tell, ends in order.

GET /api/v1/me/inbox/stream   a stream; refused as the API refuses
GET /metrics                  of this process; not for the internet
GET /healthz                  200 while inboxes are looked at, else 503
"""

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

from aiohttp import web
from django.db import connections
from prometheus_client import CollectorRegistry, generate_latest

from frontend.api.inbox_stream import DOOR, Admission
from frontend.api.inbox_stream import MEDIA_TYPE as EVENT_STREAM
from frontend.api.problems import MEDIA_TYPE
from frontend.streams.bridge import Answer, Application, ask, environment
from frontend.streams.figures import Figures
from frontend.streams.frames import HEARTBEAT
from frontend.streams.hub import Hub
from frontend.streams.pace import Pace
from frontend.streams.places import Places
from frontend.streams.stream import End, Stream

# Requests that wait to be let in. One takes some milliseconds.
_AT_THE_DOOR = 500
# A server that has not looked for so many times its pace is not well.
_PATIENCE = 4

_CROWDED = Answer(
    503,
    [("Retry-After", "10"), ("Content-Type", MEDIA_TYPE)],
    b'{"status": 503, "title": "Too many come at once", "detail": "Come again in ten seconds."}',
)


class _Door:
    """What the API's view finds in the environment of its request."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.admission: Admission | None = None

    def admit(self, admission: Admission) -> None:
        self._places.take(admission.recipient_id)
        self.admission = admission


class Server:
    """``application`` is the service's, for WSGI."""

    def __init__(self, application: Application, *, places: Places, pace: Pace) -> None:
        self._application, self._places, self._pace = application, places, pace
        self._hub = Hub(pace)
        self._refused: Counter[str] = Counter()
        self._at_the_door = 0
        # One thread, hence one connection, beside that of the hub.
        self._letting_in = ThreadPoolExecutor(max_workers=1, thread_name_prefix="door")
        self._registry = CollectorRegistry()
        self._registry.register(Figures(self._hub, self._refused))

    async def serve(self, *, host: str, port: int, until: asyncio.Event, opened: "asyncio.Future[int]") -> None:
        """Serve until ``until`` is set; ``opened`` gets the port. Raises ``OSError`` where it can't be had."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # Who goes away frees the place at once.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=self._pace.end_s)
        await runner.setup()
        rounds = asyncio.create_task(self._hub.run())
        try:
            site = web.TCPSite(runner, host, port)
            await site.start()
            opened.set_result(runner.addresses[0][1])
            await asyncio.wait([asyncio.ensure_future(until.wait()), rounds], return_when=asyncio.FIRST_COMPLETED)
            self._hub.end_all()
            await site.stop()
        finally:
            await runner.cleanup()
            rounds.cancel()
            with suppress(asyncio.CancelledError):
                await rounds
            self._letting_in.submit(connections.close_all)
            self._letting_in.shutdown()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        door = _Door(self._places)
        try:
            answer = await self._let_in(request, door)
            if answer.status == 200 and door.admission:
                return await self._stream(request, answer, door.admission)
        finally:
            if door.admission:
                self._places.leave(door.admission.recipient_id)
        if answer.status >= 400:
            self._refused[str(answer.status)] += 1
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _let_in(self, request: web.Request, door: _Door) -> Answer:
        if self._at_the_door >= _AT_THE_DOOR:
            return _CROWDED
        self._at_the_door += 1
        try:
            environ = environment(request)
            if request.method == "GET":
                environ[DOOR] = door
            asked = asyncio.get_running_loop().run_in_executor(self._letting_in, ask, self._application, environ)
            # Not cut off with its reader: then nobody would know whether a place was taken.
            return await _to_its_end(asked)
        finally:
            self._at_the_door -= 1

    async def _stream(self, request: web.Request, answer: Answer, admission: Admission) -> web.StreamResponse:
        response = web.StreamResponse(headers=dict(answer.headers))
        # Django says neither of an answer without a body as it is meant.
        response.headers["Content-Type"] = EVENT_STREAM
        response.headers.popall("Content-Length", None)
        await response.prepare(request)
        stream = Stream(admission)
        self._hub.open(stream)
        try:
            await self._write(response, stream, until=_monotonic(admission.until))
        except (ConnectionError, TimeoutError):  # gone, or as good as: nothing more is written
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._hub.close(stream)
        return response

    async def _write(self, response: web.StreamResponse, stream: Stream, *, until: float) -> None:
        while True:
            left = until - time.monotonic()
            if left <= 0:
                stream.end(End.EXPIRED)
            try:
                piece = await asyncio.wait_for(stream.next(), min(self._pace.heartbeat_s, max(left, 0.001)))
            except TimeoutError:
                piece = HEARTBEAT
            await asyncio.wait_for(response.write(piece), self._pace.write_s)
            if stream.ended and piece == stream.farewell:
                return

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), content_type="text/plain")

    async def _health(self, _: web.Request) -> web.Response:
        is_well = time.monotonic() - self._hub.looked_at < _PATIENCE * self._pace.look_s
        return web.Response(status=200 if is_well else 503, text="ok\n" if is_well else "the database is away\n")


async def serve(
    application: Application,
    *,
    host: str,
    port: int,
    most: int,
    most_of_person: int,
    until: asyncio.Event,
    opened: "asyncio.Future[int]",
    pace: Pace = Pace(),  # noqa: B008 - it can't be changed
) -> None:
    """Serve streams, ``most`` of them, until ``until`` is set; ``opened`` gets the port (``port`` 0: a free one)."""
    places = Places(most=most, most_of_person=most_of_person)
    await Server(application, places=places, pace=pace).serve(host=host, port=port, until=until, opened=opened)


def _monotonic(instant: datetime) -> float:
    return time.monotonic() + (instant - datetime.now(UTC)).total_seconds()


async def _to_its_end(asked: "asyncio.Future[Answer]") -> Answer:
    try:
        return await asyncio.shield(asked)
    except asyncio.CancelledError:
        with suppress(Exception):
            await asked
        raise

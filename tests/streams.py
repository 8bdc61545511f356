"""A server of streams inside the test's process, and somebody who reads one over real HTTP."""

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.core.wsgi import get_wsgi_application

from frontend.streams import Pace, serve

PATH = "/api/v1/me/inbox/stream"
# Real seconds that a test waits for what comes at once on an idle machine.
PATIENCE_S = 60.0
QUICK = Pace(look_s=0.2, between_s=0.02, again_s=0.2, heartbeat_s=0.5)
"""Every inbox is looked at every moment."""
BY_WORD = Pace(look_s=3_600.0, between_s=0.02, heartbeat_s=0.5)
"""Only word of a message has anybody look, but for the first time."""


@dataclass(frozen=True)
class Streams:
    port: int
    until: asyncio.Event
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """As SIGTERM does."""
        self.loop.call_soon_threadsafe(self.until.set)
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@contextmanager
def streams(pace: Pace = QUICK, *, most: int = 50, most_of_person: int = 5) -> Iterator[Streams]:
    """A server on a port of its own."""
    opened: list[Streams] = []
    ready = threading.Event()

    async def run() -> None:
        loop, until = asyncio.get_running_loop(), asyncio.Event()
        port: asyncio.Future[int] = loop.create_future()
        port.add_done_callback(lambda done: (opened.append(Streams(done.result(), until, loop, thread)), ready.set()))
        await serve(
            get_wsgi_application(),
            host="127.0.0.1",
            port=0,
            most=most,
            most_of_person=most_of_person,
            until=until,
            opened=port,
            pace=pace,
        )

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="streams", daemon=True)
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield opened[0]
    finally:
        if thread.is_alive():
            opened[0].stop()


@dataclass(frozen=True)
class Event:
    name: str
    data: Any
    id: str = ""


class Reader:
    """One connection. ``status`` and ``headers`` are the answer's; ``problem`` where it is no stream."""

    def __init__(
        self, streams: Streams, bearer: str | None = None, *, last: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", streams.port, timeout=PATIENCE_S)
        sent = {
            **({"Authorization": f"Bearer {bearer}"} if bearer else {}),
            **({"Last-Event-ID": last} if last else {}),
        }
        self._connection.request("GET", PATH, headers={**sent, **(headers or {})})
        self._answer = self._connection.getresponse()
        self.status, self.headers = self._answer.status, self._answer.headers
        self.last = last

    @property
    def problem(self) -> Any:
        return json.loads(self._answer.read())

    def next(self, *, heartbeats: bool = False) -> Event:
        """The next event; with ``heartbeats`` these too. Raises ``EOFError`` at the end."""
        fields: dict[str, str] = {}
        while line := self._answer.readline().decode():
            if line == "\n":
                if fields:
                    break
            elif line.startswith(":"):
                if heartbeats:
                    return Event("heartbeat", None)
            else:
                name, _, value = line.rstrip("\n").partition(": ")
                fields[name] = value
        if not fields:
            raise EOFError
        event = Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
        self.last = event.id or self.last
        return event

    def until(self, name: str) -> list[Event]:
        """Events up to the next of that name."""
        found = [self.next()]
        while found[-1].name != name:
            found.append(self.next())
        return found

    def close(self) -> None:
        self._answer.close()
        self._connection.close()

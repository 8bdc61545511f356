"""As much of an HTTP/1.1 server as the stubs need: they share two cores with what they measure.

A general server spends most of a call's time on what no client of a stub asks for. This one takes requests with a
Content-Length, one after the other on connections that stay open, and gives handlers the say over the connection's end.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

MAX_HEAD = 64 << 10
MAX_BODY = 64 << 20
JSON = "application/json; charset=utf-8"
_RESET = struct.pack("ii", 1, 0)  # lingering for zero seconds makes the kernel send RST instead of FIN


class Request(NamedTuple):
    """Names of `headers` are in lower case; `path` and `query` are decoded."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Response(NamedTuple):
    """`end`: empty, or what becomes of the connection instead of an answer: `half` of it and then the end, nothing and
    `close`, nothing and `reset`."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: Mapping[str, str] = {}
    end: str = ""


Answer = Callable[[Request], Response | Awaitable[Response]]


def json_response(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, json.dumps(content).encode(), headers=headers or {})


def text_response(text: str, *, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> Response:
    return Response(status, text.encode(), content_type)


class Server:
    """Listens on one port, and can refuse connections for a while."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections: set[_Connection] = set()
        self._listener: asyncio.Server | None = None
        self._held: socket.socket | None = None
        self._again: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen; port 0 takes a free one. Returns the address, without a slash at its end. Raises OSError."""
        # Bound, but never listening: keeps the port ours while connections to it are refused.
        self._held = _bound((host, port))
        await self._listen()
        host, port = self._held.getsockname()
        return f"http://{host}:{port}"

    def refuse(self, seconds: float) -> None:
        """Refuse new connections for so long, and close the open ones, those that wait for an answer after it."""
        self._stop_listening()
        for connection in [*self.connections]:
            connection.finish()
        self._again = asyncio.get_running_loop().create_task(self._listen_after(seconds))

    async def close(self) -> None:
        self._stop_listening()
        for connection in [*self.connections]:
            connection.abort()
        await asyncio.sleep(0)
        if self._held is not None:
            self._held.close()

    async def _listen(self) -> None:
        assert self._held is not None
        loop = asyncio.get_running_loop()
        again = _bound(self._held.getsockname())
        self._listener = await loop.create_server(lambda: _Connection(self), sock=again, backlog=1024)

    async def _listen_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._listen()

    def _stop_listening(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._listener is not None:
            self._listener.close()


def _bound(address: tuple[str, int]) -> socket.socket:
    made = socket.socket(socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


class BadRequest(ValueError):
    """What came is no request that this server takes."""


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    length: int
    is_last: bool
    size: int = field(kw_only=True)


# A client's heads differ in little but the length of the body, so that most have been read before.
@lru_cache(maxsize=1024)
def _head(raw: bytes) -> _Head:
    try:
        first, *lines = raw.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
    except ValueError:
        raise BadRequest("no HTTP request") from None
    if "transfer-encoding" in headers or not 0 <= length <= MAX_BODY:
        raise BadRequest(f"a Content-Length of at most {MAX_BODY} is needed")
    path, _, query = target.partition("?")
    is_last = version != "HTTP/1.1" or headers.get("connection", "").lower() == "close"
    return _Head(method, unquote(path), dict(parse_qsl(query)), headers, length, is_last, size=len(raw) + 4)


class _Connection(asyncio.Protocol):
    """One client. A call that takes time holds back the next ones of its connection, no others."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: Any = None
        self._buffer = b""
        self._is_busy = False
        self._is_last = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._is_busy:
            self._work()

    def finish(self) -> None:
        """Close, once the call in progress is answered."""
        self._is_last = True
        if not self._is_busy:
            self._transport.close()

    def abort(self) -> None:
        """Close now; a call in progress is not answered."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    def _work(self) -> None:
        """Answer what has come in."""
        while not self._transport.is_closing() and (request := self._next()) is not None:
            self._is_busy = True
            answer = self._server.answer(request)
            if not isinstance(answer, Response):
                self._task = asyncio.get_running_loop().create_task(self._answer_later(answer))
                return
            self._answer(answer)

    async def _answer_later(self, coming: Awaitable[Response]) -> None:
        try:
            response = await coming
        except Exception:
            self._transport.abort()  # or the client would wait for ever
            raise
        self._task = None
        self._answer(response)
        self._work()

    def _next(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 and len(self._buffer) <= MAX_HEAD:
            return None
        try:
            if not 0 <= end <= MAX_HEAD:
                raise BadRequest("the headers are too long")
            head = _head(self._buffer[:end])
        except BadRequest as error:
            self._is_last = True
            self._answer(text_response(str(error), status=400))
            return None
        whole = head.size + head.length
        if len(self._buffer) < whole:
            if "expect" in head.headers and len(self._buffer) == head.size:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return None
        body, self._buffer = self._buffer[head.size : whole], self._buffer[whole:]
        self._is_last = self._is_last or head.is_last
        return Request(head.method, head.path, head.query, head.headers, body)

    def _answer(self, response: Response) -> None:
        self._is_busy = False
        if self._transport.is_closing():
            return
        if response.end == "reset":
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
            return
        if response.end != "close":
            sent = response.body[: len(response.body) // 2] if response.end else response.body
            self._transport.write(_head_of(response, self._is_last, int(time.time())) + sent)
        if response.end or self._is_last:
            self._transport.close()


def _head_of(response: Response, is_last: bool, now: int) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items()) if response.headers else ""
    more += "Connection: close\r\n" if is_last else ""
    return (
        _common_head(response.status, response.content_type, now)
        + f"{more}Content-Length: {len(response.body)}\r\n\r\n".encode()
    )


@lru_cache(maxsize=32)
def _common_head(status: int, content_type: str, now: int) -> bytes:
    kind = f"Content-Type: {content_type}\r\n" if status != HTTPStatus.NO_CONTENT else ""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    return f"HTTP/1.1 {status} {phrase}\r\nDate: {formatdate(now, usegmt=True)}\r\n{kind}".encode()

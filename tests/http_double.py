"""A web server that answers as a test wants, or fails in one of the ways in which servers fail.

For doubles of providers that have no stub of their own; it runs in threads of the test's process.
"""

import json
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Request(NamedTuple):
    """One that arrived complete."""

    line: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Reply(NamedTuple):
    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = {}


# Within which a caller with a timeout of about a second has given up on the slowest machine. What is silent or without
# end below lasts far longer.
PATIENCE_S = 20.0


def silence(door: "_Door") -> None:
    """Answers nothing until the client goes away."""
    door.request.settimeout(300)
    door.request.recv(1)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


def drip(said: bytes) -> "Callable[[_Door], None]":
    """Says that at once, and then a byte every now and then, without end."""

    def answer(door: "_Door") -> None:
        door.request.sendall(said)
        for _ in range(2_000):
            time.sleep(0.15)
            door.request.sendall(b" ")

    return answer


def half(door: "_Door") -> None:
    """Promises more than it sends, and closes."""
    door.request.sendall(HEAD + b'{"na')


def garbage(door: "_Door") -> None:
    """Answers with something that is no HTTP."""
    door.request.sendall(b"\x15\x03\x01\x00\x02\x02\x50 it works\r\n\r\n")


def reset(door: "_Door") -> None:
    door.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class HttpDouble:
    """A context manager. `answer` makes a reply of each request; one of the functions above may stand in its place.

    `requests`: what arrived complete, in order; `bytes_read`: all that was written to it; `connections` made so far;
    `at_once`: how many requests were under way together at most; `delay`: seconds before each answer. `at`: host and
    port of this machine, 0 for any.
    """

    def __init__(
        self, answer: Callable[[Request], Reply] = lambda request: Reply(), at: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        self.answer = answer
        self.failure: Callable[[_Door], None] | None = None
        self.delay = 0.0
        self.requests: list[Request] = []
        self.bytes_read = 0
        self.connections = 0
        self.at_once = 0
        self.open = 0
        self.lock = threading.Lock()
        self._server = _Server(at, _Door)
        self._server.double = self

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self._server.server_address)

    def __enter__(self) -> "HttpDouble":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 200
    double: HttpDouble


class _Door(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        double = self.server.double
        with double.lock:
            double.connections += 1
        buffer = b""
        try:
            while (read := self._read(buffer)) is not None:
                request, buffer = read
                if not self._serve(double, request):
                    return
        except OSError:
            return  # the client went away

    def _serve(self, double: HttpDouble, request: Request) -> bool:
        with double.lock:
            double.requests.append(request)
            double.open += 1
            double.at_once = max(double.at_once, double.open)
        try:
            time.sleep(double.delay)
            if double.failure is not None:
                double.failure(self)
                return False
            status, body, headers = double.answer(request)
        finally:
            with double.lock:
                double.open -= 1
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.request.sendall(f"HTTP/1.1 {status} X\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return True

    def _read(self, buffer: bytes) -> tuple[Request, bytes] | None:
        while b"\r\n\r\n" not in buffer:
            if not (more := self._receive()):
                return None
            buffer += more
        head, _, rest = buffer.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
        length = int(headers.get("content-length", 0))
        while len(rest) < length:
            if not (more := self._receive()):
                return None
            rest += more
        return Request(line, headers, rest[:length]), rest[length:]

    def _receive(self) -> bytes:
        read: bytes = self.request.recv(65536)
        with self.server.double.lock:
            self.server.double.bytes_read += len(read)
        return read

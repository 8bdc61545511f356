"""Answers, of HTTP above all, that are read for a bounded time in all.

A socket's timeout bounds each read alone: a server that writes a byte now and then would hold its caller for ever. Here
the timeout that the socket has when the reading begins bounds the status line, the headers and the body together.
"""

from __future__ import annotations

import io
import logging
import time
from http.client import HTTPResponse
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

# Of headers that it can't read it warns in their own words.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class _Bounded(io.RawIOBase):
    """What a server writes, for as long as the socket's timeout in all."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._ends_at = time.monotonic() + sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Any:
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def bounded_file(sock: Any) -> io.BufferedReader:
    """What the server writes, for as long as the socket's timeout in all; then TimeoutError."""
    return io.BufferedReader(_Bounded(sock))


class _Socket:
    """As much of a socket as a response asks for."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return bounded_file(self._sock)


class BoundedResponse(HTTPResponse):
    """To be the ``response_class`` of a connection."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(_Socket(sock), *args, **options)  # type: ignore[arg-type]


class _Plain(HTTPConnection):
    response_class = BoundedResponse


class _Encrypted(HTTPSConnection):
    response_class = BoundedResponse


class PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class EncryptedPool(HTTPSConnectionPool):
    ConnectionCls = _Encrypted

"""HTTP connections for botocore that know whether a request has been started.

botocore's own hook, `before-send`, comes before the connection is opened; name resolution, connecting and the
TLS handshake may then take longer than a permit lasts. These connections are opened first and ask the permit
afterwards. And because they note that a request was begun, an error tells for certain on which side of the
first byte it happened, whatever its type. An answer is read for as long as the read timeout in all.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)

from delivery.providers.base import NotStarted, Permit


class Wire:
    """What became of one call: `refused` when the permit had run out, `begun` once bytes may have left.

    `body`: the request's JSON, where it is not botocore's.
    """

    __slots__ = ("begun", "body", "permit", "refused")

    def __init__(self, permit: Permit, body: bytes | None) -> None:
        self.permit = permit
        self.body = body
        self.begun = False
        self.refused = False

    def begin(self) -> None:
        if not self.permit.is_valid():
            self.refused = True
            raise NotStarted
        self.begun = True


# A connection is pooled, but used by one thread at a time, and botocore offers no way to hand it an argument.
_of_this_thread = threading.local()


@contextmanager
def wire(permit: Permit, body: bytes | None = None) -> Iterator[Wire]:
    """The wire on which this thread's next call runs, with `body` in place of what botocore would write."""
    _of_this_thread.wire = used = Wire(permit, body)
    try:
        yield used
    finally:
        del _of_this_thread.wire


def current() -> Wire:
    """The wire of this thread's call; raises AttributeError outside of `wire`."""
    found: Wire = _of_this_thread.wire
    return found


class _Bounded(io.RawIOBase):
    """What a server writes, for as long as the socket's timeout in all: of itself it bounds each read alone, and who
    writes a byte now and then would hold the caller for ever."""

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


class _Socket:
    """As much of a socket as a response asks for."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Bounded(self._sock))


class _Response(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(_Socket(sock), *args, **options)  # type: ignore[arg-type]


class _PermitFirst:
    """Mixin: connect, then ask the permit, then write, and read for a bounded time."""

    response_class = _Response
    sock: Any
    connect: Any

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        current().begin()
        super().request(*args, **kwargs)  # type: ignore[misc]


class _Connection(_PermitFirst, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _TLSConnection(_PermitFirst, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class _TLSPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TLSConnection


def put_on_wire(client: Any, operation: str) -> None:
    """Make a boto3 client connect through this module; every call of it must then run inside `wire`.

    botocore has no public setting for its connection class, so this reaches into the session of the client's
    endpoint. A botocore that is built otherwise fails here, with AttributeError, before anything is sent.
    """
    client._endpoint.http_session._pool_classes_by_scheme.update(http=_Pool, https=_TLSPool)
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register(f"before-call.{service}.{operation}", _put_body)


def _put_body(params: dict[str, Any], **_: Any) -> None:
    if (body := current().body) is not None:
        params["body"] = body

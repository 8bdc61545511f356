"""HTTP connections for botocore that know whether a request has been started.

botocore's own hook, `before-send`, comes before the connection is opened; name resolution, connecting and the
TLS handshake may then take longer than a permit lasts. These connections are opened first and ask the permit
afterwards. And because they note that a request was begun, an error tells for certain on which side of the
first byte it happened, whatever its type. An answer is read for as long as the read timeout in all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)

from delivery.providers.base import NotStarted, Permit
from schedules.bounded import BoundedResponse


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


class _PermitFirst:
    """Mixin: connect, then ask the permit, then write, and read for a bounded time."""

    response_class = BoundedResponse
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

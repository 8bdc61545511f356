"""One request to an address that somebody set: resolved, judged, pinned, and read for a bounded time and size.

No redirect is followed, no proxy of the environment is used, no body is unpacked. Certificates are verified against the
name (``SSL_CERT_FILE`` names an authority of one's own).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any, Final, NamedTuple

import urllib3
from django.conf import settings
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as TookTooLong

from schedules.bounded import EncryptedPool, PlainPool
from schedules.outgoing import names
from schedules.outgoing.errors import OutgoingError, Refused, Unavailable
from schedules.outgoing.targets import IPAddress, Rules, Target, judge, read

CONNECT_S: Final = 3.0  # to each address
_ADDRESSES: Final = 4  # of a name that are tried, one after the other
_CHUNK: Final = 64 * 1024
# Of OpenSSL's codes (x509_vfy.h): its words quote the name.
_FLAWS: Final = {
    9: "shows a certificate that is not yet valid",
    10: "shows a certificate that has expired",
    62: "shows the certificate of another host",
    64: "shows the certificate of another host",
}
_NO_CONNECTION: Final = (NewConnectionError, ConnectTimeoutError)


class Answer(NamedTuple):
    """Of any status. ``headers``: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def check(url: str, *, timeout_s: float = 5.0) -> Target:
    """Whether ``url`` would be called as things stand, for a form. Sends nothing but the question for its name.

    Raises ``OutgoingError``. A name may lead elsewhere in the next moment, so ``fetch`` asks again.
    """
    target = read(url)
    _judged(target, names.resolve(target, timeout_s=timeout_s))
    return target


def fetch(
    url: str,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 10.0,
    max_bytes: int = 1024 * 1024,
    may_cut: bool = False,
) -> Answer:
    """One attempt. ``timeout_s`` is for all of it: the name, connections, the request, and the answer to its last byte.

    ``max_bytes`` are of the body, whose rest is left unread where it ``may_cut``. ``headers`` stand beside Host,
    User-Agent and Accept-Encoding. Raises ``OutgoingError``.
    """
    ends_at = time.monotonic() + timeout_s
    target = read(url)
    addresses = _judged(target, names.resolve(target, timeout_s=timeout_s))
    sent = {"User-Agent": "notification-scheduler", **(headers or {})}
    sent |= {"Host": target.authority, "Accept-Encoding": "identity"}
    failure: OutgoingError = Unavailable("unreachable", "can't be reached")
    for address in addresses[:_ADDRESSES]:
        left = ends_at - time.monotonic()
        if left <= 0:
            failure = Unavailable("timeout", f"did not answer within {timeout_s:g} s")
            break
        request = {"method": method, "url": target.path, "body": body, "headers": sent}
        answer, error = _sent(target, address, request, seconds=left, max_bytes=max_bytes, may_cut=may_cut)
        if answer is not None:
            return answer
        failure = _failure(error, timeout_s, max_bytes)
        if not isinstance(error, _NO_CONNECTION):  # something may have been sent: not again to another
            break
    raise failure


def _judged(target: Target, found: list[IPAddress]) -> list[IPAddress]:
    """All that a name leads to, or none: of a mixed answer nobody knows which one comes next."""
    rules = Rules(settings.OUTGOING_ALLOWED_NETWORKS, settings.OUTGOING_REFUSED_NETWORKS, settings.OUTGOING_PORTS)
    for address in found:
        judge(target, address, rules)
    return found


def _sent(
    target: Target, address: IPAddress, request: Mapping[str, Any], *, seconds: float, max_bytes: int, may_cut: bool
) -> tuple[Answer | None, Exception | None]:
    """An answer, or what stood in its way (None: too many bytes). The errors hold words of the other side: they are
    not raised on."""
    timeout = urllib3.Timeout(connect=min(CONNECT_S, seconds), total=seconds)
    try:
        with closing(_pool(target, address)) as pool:
            response = pool.urlopen(
                **request, timeout=timeout, retries=False, redirect=False, preload_content=False, assert_same_host=False
            )
            with closing(response):
                found = _whole(response, max_bytes, may_cut)
                said = {name.lower(): value for name, value in response.headers.items()}
    except (HTTPError, OSError, ValueError) as error:
        return None, error
    return (None, None) if found is None else (Answer(response.status, said, found), None)


def _pool(target: Target, address: IPAddress) -> PlainPool | EncryptedPool:
    """Of one connection, which goes to ``address``; its certificate has to be the name's."""
    if target.scheme == "http":
        return PlainPool(str(address), target.port)
    return EncryptedPool(str(address), target.port, server_hostname=target.host)


def _whole(response: urllib3.BaseHTTPResponse, max_bytes: int, may_cut: bool) -> bytes | None:
    """The body, None where it is too large, unless it may be cut: then the rest of it is left alone."""
    pieces, size = [], 0
    for piece in response.stream(_CHUNK, decode_content=False):
        size += len(piece)
        if size > max_bytes and not may_cut:
            return None
        pieces.append(piece)
        if size > max_bytes:
            break
    return b"".join(pieces)[:max_bytes]


def _failure(error: Exception | None, seconds: float, max_bytes: int) -> OutgoingError:
    """By the error's type: its words may quote what came."""
    if error is None:
        return Unavailable("too_large", f"sent an answer of more than {max_bytes:,} bytes")
    cause = error.args[0] if error.args else None
    if isinstance(error, SSLError) and isinstance(cause, ssl.SSLCertVerificationError):
        return Refused("certificate", _FLAWS.get(cause.verify_code, "shows a certificate that can't be trusted"))
    if isinstance(error, _NO_CONNECTION):
        return Unavailable("unreachable", "can't be reached")
    if isinstance(error, TookTooLong | TimeoutError):
        return Unavailable("timeout", f"did not answer within {seconds:g} s")
    if isinstance(error, ProtocolError):
        return Unavailable("cut_off", "ended the connection before its answer was whole")
    return Unavailable("unreachable", "can't be reached")

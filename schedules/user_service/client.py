"""Pages of people from the user service: one request each, read whole or not at all.

Nothing here is kept or tried again: that is for who asks, and every error tells whether it can help. Neither errors nor
logs hold anything of a person or of the token. Certificates are verified (``SSL_CERT_FILE`` names an authority of one's
own), redirects are not followed, and no proxy is taken from the environment.
"""

from __future__ import annotations

import json
import logging
import os
import re
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import urllib3
from django.conf import settings
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    InvalidHeader,
    LocationParseError,
    NewConnectionError,
    ProtocolError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as TookTooLong

from schedules.bounded import BoundedResponse
from schedules.user_service.errors import CODES, CursorGone, Refused, Unavailable, UserServiceError
from schedules.user_service.reading import MAX_CURSOR, Page, read_count_body, read_page_body, read_profiles

__all__ = [
    "CODES",
    "MAX_CURSOR",
    "MAX_PAGE",
    "Answer",
    "Client",
    "CursorGone",
    "Page",
    "Refused",
    "Unavailable",
    "UserServiceError",
    "count",
    "is_configured",
    "read_page",
    "read_profiles",
]

PAGE: Final = "/audience/page"
COUNT: Final = "/audience/count"
MAX_PAGE: Final = 10_000  # people
MAX_BYTES: Final = 64 * 1024 * 1024  # of an answer, unpacked
CONNECT_S: Final = 3.0
_CHUNK: Final = 256 * 1024
_CONNECTIONS: Final = 4  # kept open, per process
_TOKEN: Final = re.compile("[!-~]*")
# Of what was sent, so that a pointer can hold nothing else.
_POINTER: Final = re.compile(r"(?:/(?:audience|asOf|limit|cursor|all|any|not|field|op|value|[0-9]{1,4})){1,24}")

# Of headers that it can't read it warns in their own words.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class Answer(NamedTuple):
    """``headers``: names in lower case. ``seconds`` from the beginning of the request to the end of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class _Plain(HTTPConnection):
    response_class = BoundedResponse


class _Encrypted(HTTPSConnection):
    response_class = BoundedResponse


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _EncryptedPool(HTTPSConnectionPool):
    ConnectionCls = _Encrypted


class Client:
    """One user service. Threads share it; a fork must not.

    ``timeout_s`` is for a whole answer, from the connection to the last byte.
    """

    def __init__(self, url: str, *, token: str = "", timeout_s: float = 10.0, max_bytes: int = MAX_BYTES) -> None:
        if not _TOKEN.fullmatch(token):  # the error of whoever writes the header would quote it
            raise Refused("denied", "takes no token with spaces or other than ASCII letters: see to USER_SERVICE_TOKEN")
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._headers = {
            "Accept": "application/json, application/problem+json",
            "Accept-Encoding": "gzip",
            "Content-Type": "application/json",
            "User-Agent": "notification-scheduler",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        self._pools = urllib3.PoolManager(maxsize=_CONNECTIONS)
        self._pools.pool_classes_by_scheme = {"http": _PlainPool, "https": _EncryptedPool}

    def read_page(self, audience: Mapping[str, Any], *, as_of: datetime, cursor: str | None, limit: int) -> Page:
        """See ``read_page`` below."""
        said = {"audience": audience, "asOf": written(as_of), "limit": limit, "cursor": cursor}
        answer = self.ask(PAGE, said)
        check_status(answer, has_cursor=cursor is not None)
        return read_page_body(answer.body, limit=limit)

    def count(self, audience: Mapping[str, Any], *, as_of: datetime, timeout_s: float | None = None) -> int:
        """See ``count`` below."""
        answer = self.ask(COUNT, {"audience": audience, "asOf": written(as_of)}, timeout_s=timeout_s)
        check_status(answer)
        return read_count_body(answer.body)

    def ask(self, path: str, said: Mapping[str, Any], *, timeout_s: float | None = None) -> Answer:
        """What came, whatever its status. Raises ``UserServiceError`` where nothing whole did."""
        return self.send(path, json.dumps(said).encode(), timeout_s=timeout_s)

    def send(
        self, path: str, body: bytes, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Answer:
        """As ``ask``, with a body and headers of one's own; a header's value of "" leaves it out."""
        seconds = self.timeout_s if timeout_s is None else timeout_s
        sent = {name: value for name, value in {**self._headers, **(headers or {})}.items() if value}
        began = time.monotonic()
        failure, found = None, None
        try:
            response = self._pools.request(
                "POST",
                self.url + path,
                body=body,
                headers=sent,
                timeout=urllib3.Timeout(connect=min(CONNECT_S, seconds), total=seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            with response:
                found = self._whole(response)
                if found is not None:
                    response.release_conn()
        except (HTTPError, OSError, ValueError) as error:
            failure = _failure(error, seconds)
        if failure is not None:  # not raised in answer to the other, which may hold what came
            raise failure
        if found is None:
            raise Unavailable("too_large", f"sent an answer of more than {self._max_bytes:,} bytes")
        names = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, names, found, time.monotonic() - began)

    def _whole(self, response: urllib3.BaseHTTPResponse) -> bytes | None:
        """The body, None where it is too large: then the rest of it is left alone."""
        pieces, size = [], 0
        for piece in response.stream(_CHUNK, decode_content=True):
            size += len(piece)
            if size > self._max_bytes:
                return None
            pieces.append(piece)
        return b"".join(pieces)


def is_configured() -> bool:
    """Whether a user service answers audiences at all."""
    return bool(settings.USER_SERVICE_URL)


def read_page(audience: Mapping[str, Any], *, as_of: datetime, cursor: str | None, limit: int) -> Page:
    """The page at ``cursor`` (None: the first) of the people whom ``audience`` selects, at most ``limit`` of them.

    ``audience`` is a query as the API takes it; ``as_of`` is one instant for all pages. That a cursor comes again is
    for the caller to notice. Raises ``UserServiceError``.
    """
    return _of_settings().read_page(audience, as_of=as_of, cursor=cursor, limit=limit)


def count(audience: Mapping[str, Any], *, as_of: datetime, timeout_s: float | None = None) -> int:
    """How many people ``audience`` selects, as ``read_page``; at most ``timeout_s``, if it is given.

    Raises ``UserServiceError``.
    """
    return _of_settings().count(audience, as_of=as_of, timeout_s=timeout_s)


def written(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def check_status(answer: Answer, *, has_cursor: bool = False) -> None:
    """Raises ``UserServiceError`` unless the answer is a 200."""
    status = answer.status
    if status == 200:
        return
    if status == 410 and has_cursor:
        raise CursorGone("cursor_gone", "has forgotten the cursor (410)")
    if 300 <= status < 400:
        raise Refused("redirect", f"points to another address ({status}): let USER_SERVICE_URL be that one")
    if status in (401, 403):
        raise Refused("denied", f"does not take the token ({status}): see to USER_SERVICE_TOKEN")
    if status in (404, 405, 410):
        raise Refused("not_found", f"has no such address ({status}): see to USER_SERVICE_URL")
    if status in (408, 425, 429):
        raise Unavailable("throttled", f"asks to come later ({status})", _retry_after(answer.headers))
    if 400 <= status < 500:
        raise Refused("refused", f"refuses the request ({status}){_pointed_at(answer.body)}")
    if status >= 500:
        raise Unavailable("server_error", f"has an error of its own ({status})", _retry_after(answer.headers))
    raise Unavailable("wrong_status", f"answered with {status}, which is not in the contract")


def _of_settings() -> Client:
    if not settings.USER_SERVICE_URL:
        raise Refused("not_configured", "has no address: set USER_SERVICE_URL")
    return _made(settings.USER_SERVICE_URL, settings.USER_SERVICE_TOKEN, settings.USER_SERVICE_TIMEOUT_S, os.getpid())


@lru_cache(maxsize=2)
def _made(url: str, token: str, timeout_s: float, pid: int) -> Client:
    """Kept, and its connections with it. ``pid``: a fork makes its own."""
    return Client(url, token=token, timeout_s=timeout_s)


def _failure(error: Exception, seconds: float) -> UserServiceError:
    """By the error's type: its words may quote what was sent."""
    if isinstance(error, SSLError) and isinstance(cause := _of_certificate(error), ssl.SSLCertVerificationError):
        return Refused("certificate", f"shows a certificate that can't be trusted ({cause.verify_message})")
    if isinstance(error, NewConnectionError | ConnectTimeoutError):
        return Unavailable("unreachable", "can't be reached")
    if isinstance(error, TookTooLong | TimeoutError):
        return Unavailable("timeout", f"did not answer within {seconds:g} s")
    if isinstance(error, DecodeError):
        return Unavailable("no_json", "sent a body that can't be unpacked")
    if isinstance(error, ProtocolError):
        return Unavailable("cut_off", "ended the connection before its answer was whole")
    if isinstance(error, LocationParseError | ValueError):
        return Refused("not_found", "has an address that can't be read: see to USER_SERVICE_URL")
    return Unavailable("unreachable", "can't be reached")


def _of_certificate(error: BaseException) -> BaseException | None:
    return error.args[0] if error.args and isinstance(error.args[0], BaseException) else error.__cause__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3), six hours at most; None where absent or unreadable."""
    with suppress(InvalidHeader, ValueError, OverflowError):
        if (said := headers.get("retry-after")) is not None:
            return float(urllib3.Retry().parse_retry_after(said))
    return None


def _pointed_at(body: bytes) -> str:
    """Where problem details point to (``errors[].pointer``), as words; pointers alone, since words may quote people."""
    with suppress(ValueError, RecursionError, AttributeError, TypeError, KeyError):
        pointers = [each["pointer"] for each in json.loads(body)["errors"]]
        known = [each for each in pointers if isinstance(each, str) and _POINTER.fullmatch(each)]
        return f" for {', '.join(known[:5])}" if known else ""
    return ""

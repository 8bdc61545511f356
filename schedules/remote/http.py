"""Requests to a service of the organisation: one attempt each, answered whole or not at all.

Nothing here is kept or tried again: that is for who asks, and every error tells whether it can help. Neither errors nor
logs hold anything of a person or of the token. Certificates are verified (``SSL_CERT_FILE`` names an authority of one's
own), redirects are not followed, and no proxy is taken from the environment.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import urllib3
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

from schedules.bounded import EncryptedPool, PlainPool
from schedules.remote.errors import Refused, ServiceError, Unavailable

CONNECT_S: Final = 3.0
_CHUNK: Final = 256 * 1024
_CONNECTIONS: Final = 4  # kept open, per process
_TOKEN: Final = re.compile("[!-~]*")


class Kind(NamedTuple):
    """Which service: the beginning of its settings' names, its errors, and what its refusals may be quoted with.

    ``pointer``: JSON pointers into what was sent, so that one can hold nothing else.
    """

    setting: str
    unavailable: type[Unavailable]
    refused: type[Refused]
    pointer: re.Pattern[str]


class Answer(NamedTuple):
    """``headers``: names in lower case. ``seconds`` from the beginning of the request to the end of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


class Caller:
    """One service at its address. Threads share it; a fork must not.

    ``timeout_s`` is for a whole answer, from the connection to the last byte; ``max_bytes`` for its body, unpacked.
    """

    def __init__(self, kind: Kind, url: str, *, token: str, timeout_s: float, max_bytes: int) -> None:
        if not _TOKEN.fullmatch(token):  # the error of whoever writes the header would quote it
            words = f"takes no token with spaces or other than ASCII letters: see to {kind.setting}_TOKEN"
            raise kind.refused("denied", words)
        self.kind = kind
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
        self._pools.pool_classes_by_scheme = {"http": PlainPool, "https": EncryptedPool}

    def ask(self, path: str, said: Mapping[str, Any], *, timeout_s: float | None = None) -> Answer:
        """POST ``said`` as JSON: what came, whatever its status. Raises ``ServiceError`` where nothing whole did."""
        return self.send(path, json.dumps(said).encode(), timeout_s=timeout_s)

    def send(
        self,
        path: str,
        body: bytes | None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """As ``ask``, with a body and headers of one's own; a header's value of "" leaves it out. No body: a GET."""
        seconds = self.timeout_s if timeout_s is None else timeout_s
        sent = {name: value for name, value in {**self._headers, **(headers or {})}.items() if value}
        if body is None:
            sent.pop("Content-Type", None)
        began = time.monotonic()
        failure, found = None, None
        try:
            response = self._pools.request(
                "GET" if body is None else "POST",
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
            failure = _failure(self.kind, error, seconds)
        if failure is not None:  # not raised in answer to the other, which may hold what came
            raise failure
        if found is None:
            raise self.kind.unavailable("too_large", f"sent an answer of more than {self._max_bytes:,} bytes")
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


def check_status(kind: Kind, answer: Answer, *, gone: ServiceError | None = None) -> None:
    """Raises a ``ServiceError`` of ``kind`` unless the answer is a 200; ``gone`` for a 410, where it is given."""
    status, setting = answer.status, kind.setting
    if status == 200:
        return
    if status == 410 and gone is not None:
        raise gone
    if 300 <= status < 400:
        raise kind.refused("redirect", f"points to another address ({status}): let {setting}_URL be that one")
    if status in (401, 403):
        raise kind.refused("denied", f"does not take the token ({status}): see to {setting}_TOKEN")
    if status in (404, 405, 410):
        raise kind.refused("not_found", f"has no such address ({status}): see to {setting}_URL")
    if status in (408, 425, 429):
        raise kind.unavailable("throttled", f"asks to come later ({status})", _retry_after(answer.headers))
    if 400 <= status < 500:
        raise kind.refused("refused", f"refuses the request ({status}){_pointed_at(kind, answer.body)}")
    if status >= 500:
        raise kind.unavailable("server_error", f"has an error of its own ({status})", _retry_after(answer.headers))
    raise kind.unavailable("wrong_status", f"answered with {status}, which is not in the contract")


def _failure(kind: Kind, error: Exception, seconds: float) -> ServiceError:
    """By the error's type: its words may quote what was sent."""
    if isinstance(error, SSLError) and isinstance(cause := _of_certificate(error), ssl.SSLCertVerificationError):
        return kind.refused("certificate", f"shows a certificate that can't be trusted ({cause.verify_message})")
    if isinstance(error, NewConnectionError | ConnectTimeoutError):
        return kind.unavailable("unreachable", "can't be reached")
    if isinstance(error, TookTooLong | TimeoutError):
        return kind.unavailable("timeout", f"did not answer within {seconds:g} s")
    if isinstance(error, DecodeError):
        return kind.unavailable("no_json", "sent a body that can't be unpacked")
    if isinstance(error, ProtocolError):
        return kind.unavailable("cut_off", "ended the connection before its answer was whole")
    if isinstance(error, LocationParseError | ValueError):
        return kind.refused("not_found", f"has an address that can't be read: see to {kind.setting}_URL")
    return kind.unavailable("unreachable", "can't be reached")


def _of_certificate(error: BaseException) -> BaseException | None:
    return error.args[0] if error.args and isinstance(error.args[0], BaseException) else error.__cause__


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3), six hours at most; None where absent or unreadable."""
    with suppress(InvalidHeader, ValueError, OverflowError):
        if (said := headers.get("retry-after")) is not None:
            return float(urllib3.Retry().parse_retry_after(said))
    return None


def _pointed_at(kind: Kind, body: bytes) -> str:
    """Where problem details point to (``errors[].pointer``), as words; pointers alone, since words may quote people."""
    with suppress(ValueError, RecursionError, AttributeError, TypeError, KeyError):
        pointers = [each["pointer"] for each in json.loads(body)["errors"]]
        known = [each for each in pointers if isinstance(each, str) and kind.pointer.fullmatch(each)]
        return f" for {', '.join(known[:5])}" if known else ""
    return ""

"""Pages of people from the user service: one request each, read whole or not at all.

Nothing here is kept or tried again: that is for who asks, and every error tells whether it can help. See
``remote.http`` for what holds of each request.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from django.conf import settings

from schedules.remote import http
from schedules.remote.http import Answer, Caller, Kind
from schedules.remote.reading import MAX_CURSOR
from schedules.user_service.errors import CODES, CursorGone, Refused, Unavailable, UserServiceError
from schedules.user_service.reading import Page, read_count_body, read_page_body, read_profiles

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
# Of what was sent, so that a pointer can hold nothing else.
_POINTER: Final = re.compile(r"(?:/(?:audience|asOf|limit|cursor|all|any|not|field|op|value|[0-9]{1,4})){1,24}")
KIND: Final = Kind("USER_SERVICE", Unavailable, Refused, _POINTER)


class Client(Caller):
    """One user service. Threads share it; a fork must not. ``timeout_s`` is for a whole answer."""

    def __init__(self, url: str, *, token: str = "", timeout_s: float = 10.0, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(KIND, url, token=token, timeout_s=timeout_s, max_bytes=max_bytes)

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
    forgotten = CursorGone("cursor_gone", "has forgotten the cursor (410)")
    http.check_status(KIND, answer, gone=forgotten if has_cursor else None)


def _of_settings() -> Client:
    if not settings.USER_SERVICE_URL:
        raise Refused("not_configured", "has no address: set USER_SERVICE_URL")
    return _made(settings.USER_SERVICE_URL, settings.USER_SERVICE_TOKEN, settings.USER_SERVICE_TIMEOUT_S, os.getpid())


@lru_cache(maxsize=2)
def _made(url: str, token: str, timeout_s: float, pid: int) -> Client:
    """Kept, and its connections with it. ``pid``: a fork makes its own."""
    return Client(url, token=token, timeout_s=timeout_s)

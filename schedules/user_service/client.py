"""Pages of people from the user service: one request each, read whole or not at all.

Nothing here is kept or tried again: that is for who asks, and every answer tells whether it can help. Neither errors
nor logs hold anything of a person: of a body that can't be used they say where, never what.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from schedules.imports.rows import BadLine, Row

MAX_PAGE: Final = 10_000  # profiles
MAX_BYTES: Final = 64 * 1024 * 1024  # of a page, unpacked
MAX_CURSOR: Final = 1000  # characters


class Page(NamedTuple):
    """``rows``: in the order of the page; ``line`` is a profile's place in it, from 1 on. ``updated``: when the service
    says that it last changed the person, by line. ``next_cursor``: None on the last page. ``total``: how many people
    all pages hold together, where the service says so; it may be off."""

    rows: tuple[Row | BadLine, ...]
    updated: Mapping[int, datetime]
    next_cursor: str | None
    total: int | None


class UserServiceError(Exception):
    """No answer that can be used. ``code`` is a slug for metrics and logs; ``reason`` completes “The user service …”."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"The user service {reason}.")
        self.code = code
        self.reason = reason


class Unavailable(UserServiceError):
    """The same request may be answered later: a timeout, a cut connection, 429, 5xx, a body that is cut off or makes
    no sense. ``retry_after_s``: seconds that the service asks to wait, where it does."""

    def __init__(self, code: str, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(code, reason)
        self.retry_after_s = retry_after_s


class CursorGone(UserServiceError):
    """410: the service has forgotten the cursor. The audience is to be asked for again, from its first page."""


class Refused(UserServiceError):
    """It helps nothing to ask again before somebody has changed something: 400, 401, 403, 404, 422, a redirect, a
    certificate that isn't trusted."""


def read_page(audience: Mapping[str, Any], *, as_of: datetime, cursor: str | None, limit: int) -> Page:
    """The page at ``cursor`` (None: the first) of the people whom ``audience`` selects, at most ``limit`` of them.

    ``audience`` is a query as the API takes it; ``as_of`` is one instant for all pages. Raises ``UserServiceError``.
    """
    raise NotImplementedError


def count(audience: Mapping[str, Any], *, as_of: datetime) -> int:
    """How many people ``audience`` selects, as ``read_page``. Raises ``UserServiceError``."""
    raise NotImplementedError

"""Templates of the template service, and messages rendered by it: one request each.

Nothing here is kept or tried again: that is for who asks, and every error tells whether it can help. See
``remote.http`` for what holds of each request. Call nothing of this inside of a transaction.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from django.conf import settings

from schedules.remote.http import Answer, Caller, Kind, check_status
from schedules.template_service.errors import CODES, Gone, Refused, TemplateServiceError, Unavailable
from schedules.template_service.reading import (
    BadTemplate,
    ItemError,
    Message,
    Template,
    Templates,
    read_results_body,
    read_template_body,
    read_templates_body,
)

__all__ = [
    "CODES",
    "LIST_TIMEOUT_S",
    "MAX_ITEMS",
    "MAX_PAGE",
    "Answer",
    "BadTemplate",
    "Client",
    "Gone",
    "Item",
    "ItemError",
    "Message",
    "Refused",
    "Template",
    "TemplateServiceError",
    "Templates",
    "Unavailable",
    "is_configured",
    "read_template",
    "read_templates",
    "render",
]

TEMPLATES: Final = "/templates"
RENDER: Final = "/render"
MAX_PAGE: Final = 200  # templates
MAX_ITEMS: Final = 500  # of one render call
MAX_BYTES: Final = 64 * 1024 * 1024  # of an answer, unpacked
LIST_TIMEOUT_S: Final = 10.0  # of a page of the list, which nobody waits for
_POINTER: Final = re.compile(
    r"(?:/(?:template|version|channel|items|locale|timeZone|tokens|limit|cursor|[0-9]{1,4})){1,6}"
)
KIND: Final = Kind("TEMPLATE_SERVICE", Unavailable, Refused, _POINTER)


class Item(NamedTuple):
    """One message to render. ``locale``: the recipient's, "" if it has none; the service falls back to the template's
    default. ``time_zone``: an IANA name. ``tokens``: values of JSON by the dotted names that the template declares
    (``Template.tokens``), one that is missing or null left out; ``occurrence.at`` is an RFC 3339 text in UTC.
    """

    locale: str
    time_zone: str
    tokens: Mapping[str, Any]


class Client(Caller):
    """One template service. Threads share it; a fork must not. ``timeout_s`` is for a whole answer."""

    def __init__(self, url: str, *, token: str = "", timeout_s: float = 2.0, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(KIND, url, token=token, timeout_s=timeout_s, max_bytes=max_bytes)

    def read_templates(self, *, cursor: str | None, limit: int = MAX_PAGE, timeout_s: float | None = None) -> Templates:
        """See ``read_templates`` below."""
        asked = urlencode({"limit": limit, **({} if cursor is None else {"cursor": cursor})})
        answer = self.send(f"{TEMPLATES}?{asked}", None, timeout_s=timeout_s)
        forgotten = Unavailable("cursor_gone", "has forgotten the cursor (410)")
        check_status(KIND, answer, gone=None if cursor is None else forgotten)
        return read_templates_body(answer.body, limit=limit)

    def read_template(self, template_id: str, *, timeout_s: float | None = None) -> Template:
        """See ``read_template`` below."""
        answer = self.send(path_of(template_id), None, timeout_s=timeout_s)
        check_status(KIND, answer, gone=Gone("gone", "has no such template any more (410)"))
        return read_template_body(answer.body, template_id=template_id)

    def render(
        self, *, template_id: str, version: str, channel: str, items: Sequence[Item], timeout_s: float | None = None
    ) -> list[Message | ItemError]:
        """See ``render`` below."""
        if not items:
            return []
        said = {"template": template_id, "version": version, "channel": channel, "items": [*map(written, items)]}
        answer = self.ask(RENDER, said, timeout_s=timeout_s)
        check_status(KIND, answer, gone=Gone("gone", "has this version of the template no longer (410)"))
        return read_results_body(answer.body, count=len(items))


def is_configured() -> bool:
    """Whether there is a template service at all."""
    return bool(settings.TEMPLATE_SERVICE_URL)


def read_templates(*, cursor: str | None, limit: int = MAX_PAGE) -> Templates:
    """The page of the list at ``cursor`` (None: the first), at most ``limit`` templates in any order.

    That a cursor comes again is for the caller to notice. Raises ``TemplateServiceError``.
    """
    return _of_settings().read_templates(cursor=cursor, limit=limit, timeout_s=LIST_TIMEOUT_S)


def read_template(template_id: str, *, timeout_s: float | None = None) -> Template:
    """The template of that id as it is now. Raises ``TemplateServiceError``: ``Gone`` where there is none (any more).

    ``timeout_s``: the settings' own by itself.
    """
    return _of_settings().read_template(template_id, timeout_s=timeout_s)


def render(
    *, template_id: str, version: str, channel: str, items: Sequence[Item], timeout_s: float | None = None
) -> list[Message | ItemError]:
    """Messages of that version, of each item in their order: each a ``Message``, or an ``ItemError`` for itself.

    At most ``MAX_ITEMS`` items; none, and nobody is asked. Raises ``TemplateServiceError``, and then nothing is
    rendered: ``Gone`` where the version is there no longer, ``Refused`` where an operator must see to it,
    ``Unavailable`` where the same may be asked again.
    """
    return _of_settings().render(
        template_id=template_id, version=version, channel=channel, items=items, timeout_s=timeout_s
    )


def path_of(template_id: str) -> str:
    return f"{TEMPLATES}/{quote(template_id, safe='')}"


def written(item: Item) -> dict[str, Any]:
    """As the contract has it."""
    return {"locale": item.locale, "timeZone": item.time_zone, "tokens": dict(item.tokens)}


def _of_settings() -> Client:
    if not settings.TEMPLATE_SERVICE_URL:
        raise Refused("not_configured", "has no address: set TEMPLATE_SERVICE_URL")
    url, token = settings.TEMPLATE_SERVICE_URL, settings.TEMPLATE_SERVICE_TOKEN
    return _made(url, token, settings.TEMPLATE_SERVICE_TIMEOUT_S, os.getpid())


@lru_cache(maxsize=2)
def _made(url: str, token: str, timeout_s: float, pid: int) -> Client:
    """Kept, and its connections with it. ``pid``: a fork makes its own."""
    return Client(url, token=token, timeout_s=timeout_s)

"""From the body of an answer to templates and messages. Of a body that can't be used it is said where the fault is, not
what is there.

A page of templates is used but for those that can't be read, each of which is told; an answer with messages is used as
a whole or not at all, but for the messages that the service itself says it can't render.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from schedules.content import CHANNELS, CONTROL, PARTS
from schedules.remote.reading import misshapen, next_cursor, object_of, text_of
from schedules.storable import text_fault
from schedules.template_service.errors import Unavailable

MAX_NAME: Final = 200  # characters, of a template's version and name
MAX_LOCALE: Final = 35
MAX_CONTENTS: Final = 500  # of one template
MAX_TOKENS: Final = 200
MAX_TOKEN: Final = 200  # characters
MAX_DETAIL: Final = 200
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:-]{0,199}", re.ASCII)  # of one step of an address
_NAMED: Final = f"a text of 1 to {MAX_NAME} printable characters"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64}){0,5}", re.ASCII)
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)


class Template(NamedTuple):
    """A template as it is now. ``version`` is the service's own, told by nothing but being equal or not.

    ``contents``: pairs of one of our channels and a locale ("" is no locale), each once. ``tokens``: dotted names of
    what it reads (``first_name``, ``recipient.attributes.plan``, ``schedule.name``, ``occurrence.at``), each once.
    """

    id: str
    version: str
    name: str
    default_locale: str
    contents: tuple[tuple[str, str], ...]
    tokens: tuple[str, ...]


class BadTemplate(NamedTuple):
    """A template that can't be read. ``place`` on its page, from 1 on; ``id`` is empty where that is what is wrong.

    ``reason`` completes “The template …” in English.
    """

    place: int
    id: str
    reason: str


class Templates(NamedTuple):
    """A page of the list. ``next_cursor``: None on the last one."""

    templates: tuple[Template | BadTemplate, ...]
    next_cursor: str | None


class Message(NamedTuple):
    """What one recipient reads; a part that it hasn't is the empty string. ``locale``: of the content it came from.

    Neither limits nor line breaks are looked at here: that is as for messages of our own.
    """

    subject: str
    text: str
    html: str
    locale: str


class ItemError(NamedTuple):
    """Why one item can't be rendered. ``code`` is a slug, ``detail`` at most 200 printable characters, maybe none."""

    code: str
    detail: str


def read_templates_body(body: bytes, *, limit: int) -> Templates:
    """Raises ``Unavailable``."""
    content = object_of(text_of(body, Unavailable), Unavailable)
    found = content.get("templates")
    if not isinstance(found, list):
        raise misshapen("templates", "a list", Unavailable)
    if len(found) > limit:
        raise Unavailable("too_many", f"sent {len(found)} templates where at most {limit} were asked for")
    read = tuple(_read(said, place) for place, said in enumerate(found, start=1))
    return Templates(read, next_cursor(content, Unavailable))


def read_template_body(body: bytes, *, template_id: str) -> Template:
    """Raises ``Unavailable``, also where it is another template."""
    found = _read(object_of(text_of(body, Unavailable), Unavailable), 1)
    if isinstance(found, BadTemplate):
        raise Unavailable("wrong_shape", f"sent a template that {found.reason}")
    if found.id != template_id:
        raise Unavailable("wrong_shape", "sent another template than was asked for")
    return found


def read_results_body(body: bytes, *, count: int) -> list[Message | ItemError]:
    """As many as there were items, in their order. Raises ``Unavailable``."""
    content = object_of(text_of(body, Unavailable), Unavailable)
    found = content.get("results")
    if not isinstance(found, list):
        raise misshapen("results", "a list", Unavailable)
    if len(found) != count:
        raise Unavailable("wrong_count", f"sent {len(found)} results for {count} items")
    return [_result(said, place) for place, said in enumerate(found)]


def _read(said: object, place: int) -> Template | BadTemplate:
    if not isinstance(said, dict):
        return BadTemplate(place, "", "is no JSON object")
    template_id = said.get("id")
    if not isinstance(template_id, str) or not _ID.fullmatch(template_id):
        return BadTemplate(
            place, "", "has no id of 1 to 200 letters, digits and . _ ~ : - that begins with one of the first"
        )
    for name in ("version", "name"):
        if not _is_name(said.get(name)):
            return BadTemplate(
                place, template_id, f"has no {name} that is a text of 1 to {MAX_NAME} printable characters"
            )
    default = said.get("defaultLocale")
    if not _is_locale(default) or not default:
        return BadTemplate(place, template_id, f"has no defaultLocale of 1 to {MAX_LOCALE} characters")
    contents = _contents(said.get("contents"))
    if contents is None:
        return BadTemplate(place, template_id, "has no contents that are a list of objects with channel and locale")
    tokens = _tokens(said.get("tokens"))
    if tokens is None:
        return BadTemplate(place, template_id, "has no tokens that are a list of dotted names")
    return Template(template_id, said["version"], said["name"], default, contents, tokens)


def _contents(said: object) -> tuple[tuple[str, str], ...] | None:
    """Channels that are none of ours are left out: another user of the service may have them."""
    if not isinstance(said, list) or len(said) > MAX_CONTENTS:
        return None
    found: dict[tuple[str, str], None] = {}
    for each in said:
        if not isinstance(each, dict) or not isinstance(each.get("channel"), str):
            return None
        if not _is_locale(each.get("locale")):
            return None
        if each["channel"] in CHANNELS:
            found[each["channel"], each["locale"]] = None
    return tuple(found)


def _tokens(said: object) -> tuple[str, ...] | None:
    if not isinstance(said, list) or len(said) > MAX_TOKENS:
        return None
    if not all(isinstance(each, str) and len(each) <= MAX_TOKEN and _TOKEN.fullmatch(each) for each in said):
        return None
    return tuple(dict.fromkeys(said))


def _is_name(value: object) -> bool:
    """One that pages, addresses and logs can show as it is."""
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable() and value == value.strip()


def _is_locale(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_LOCALE and value.isprintable()


def _result(said: object, place: int) -> Message | ItemError:
    if not isinstance(said, dict):
        raise misshapen(f"results/{place}", "an object", Unavailable)
    if "error" in said:
        return _error(said["error"], place)
    subject, text, html = (_part(said, name, place) for name in PARTS)
    locale = said.get("locale")
    if not _is_locale(locale):
        raise misshapen(f"results/{place}/locale", f"a text of at most {MAX_LOCALE} characters", Unavailable)
    if not (subject or text or html):
        return ItemError("empty", "no subject, text or html was sent")
    if any(map(text_fault, (subject, text, html))):
        return ItemError("unkeepable", "a text holds a NUL or half a surrogate pair")
    return Message(subject, text, html, str(locale))


def _part(said: Mapping[str, Any], name: str, place: int) -> str:
    value = said.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise misshapen(f"results/{place}/{name}", "a text or null", Unavailable)
    return value


def _error(said: object, place: int) -> ItemError:
    code = said.get("code") if isinstance(said, dict) else None
    detail = said.get("detail", "") if isinstance(said, dict) else None
    if not isinstance(code, str) or not isinstance(detail, str | None):
        raise misshapen(f"results/{place}/error", "an object with code and detail, both texts", Unavailable)
    words = CONTROL.sub(" ", detail or "")[:MAX_DETAIL]
    return ItemError(code if _CODE.fullmatch(code) else "error", "" if text_fault(words) else words)

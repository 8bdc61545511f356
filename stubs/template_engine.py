"""What the reference of the template service writes its messages with: minijinja, and nothing else.

A source reads tokens by the names under which they are sent: ``{{ first_name }}``, ``{{ recipient.locale }}``,
``{{ occurrence.at }}``. One that is not sent is empty. HTML is escaped, nothing else is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from minijinja import Environment, TemplateError

PARTS: Final = ("subject", "text", "html")
_BARE: Final = Environment()
_FUEL: Final = 100_000


class Said(NamedTuple):
    """What a version says: contents have channel, locale, and some of ``PARTS``."""

    contents: Sequence[Mapping[str, str]]
    default_locale: str


class Item(NamedTuple):
    locale: str
    time_zone: str
    tokens: Mapping[str, Any]


class NotRendered(Exception):
    """One item's own fault; ``code`` is a slug, and the words name nobody."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class Engine(Protocol):
    def tokens(self, said: Said) -> list[str]:
        """The dotted names that its contents read. Raises ValueError for a source that can't be read."""

    def render(self, said: Said, channel: str, items: Sequence[Item]) -> list[dict[str, str] | NotRendered]:
        """Of each item ``PARTS`` and locale, or why not."""


class Minijinja:
    """The reference's own engine."""

    def tokens(self, said: Said) -> list[str]:
        found: set[str] = set()
        for content in said.contents:
            for part in PARTS:
                try:
                    names = _BARE.undeclared_variables_in_str(content.get(part) or "", nested=True)
                except TemplateError as error:
                    raise ValueError(f"{part}: {error.kind} in line {error.line}") from None
                found |= set(names)
        return sorted(name for name in found if name.partition(".")[0] not in _BARE.globals)

    def render(self, said: Said, channel: str, items: Sequence[Item]) -> list[dict[str, str] | NotRendered]:
        made = Environment(fuel=_FUEL, auto_escape_callback=lambda name: name == "html", undefined_behavior="chainable")
        results: list[dict[str, str] | NotRendered] = []
        for item in items:
            content = chosen(said, channel, item.locale)
            if content is None:
                results.append(NotRendered("no_content", f"nothing is said for {channel}"))
                continue
            try:
                tokens = nested(_local(item))
                parts = {part: made.render_str(content.get(part) or "", part, **tokens) for part in PARTS}
            except TemplateError as error:
                results.append(NotRendered("template_error", f"{error.kind} in line {error.line}"))
                continue
            except NotRendered as error:
                results.append(error)
                continue
            if any(each < " " for each in parts["subject"]):
                results.append(NotRendered("header_injection", "the subject contains a line break"))
                continue
            results.append({**parts, "locale": content["locale"]})
        return results


def chosen(said: Said, channel: str, locale: str) -> Mapping[str, str] | None:
    """The content of ``channel`` for ``de-AT``, else for ``de``, else for the default."""
    by_locale = {each["locale"]: each for each in said.contents if each["channel"] == channel}
    for wanted in (locale, locale.partition("-")[0], said.default_locale, said.default_locale.partition("-")[0], ""):
        if wanted in by_locale:
            return by_locale[wanted]
    return None


def _local(item: Item) -> Mapping[str, Any]:
    """The tokens, the instant as the reader's clock shows it. Raises ``NotRendered``."""
    if "occurrence.at" not in item.tokens:
        return item.tokens
    try:
        at = datetime.fromisoformat(item.tokens["occurrence.at"]).astimezone(ZoneInfo(item.time_zone))
    except (TypeError, ValueError, ZoneInfoNotFoundError):
        raise NotRendered("bad_time", "occurrence.at or timeZone can't be read") from None
    return {**item.tokens, "occurrence.at": at.strftime("%Y-%m-%d %H:%M")}


def nested(tokens: Mapping[str, Any]) -> dict[str, Any]:
    """``{"recipient.locale": "de"}`` as ``{"recipient": {"locale": "de"}}``."""
    made: dict[str, Any] = {}
    for name in sorted(tokens):
        *outer, last = name.split(".")
        level = made
        for step in outer:
            inner = level.get(step)
            level[step] = dict(inner) if isinstance(inner, dict) else {}
            level = level[step]
        level[last] = tokens[name]
    return made

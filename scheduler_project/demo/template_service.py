"""The reference of the template service, writing with the engine that is built in here, filters and all.

python -m scheduler_project.demo.template_service --templates templates.ndjson --catalogues catalogues.json --port 0
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from delivery.rendering import Rendered, Shared, render_many
from delivery.rendering_limits import RenderError
from schedules.content import Catalogues, Content, asked_for, read_catalogues, read_contents
from schedules.template_language import FUNCTIONS
from stubs.server import main
from stubs.template_engine import Item, NotRendered, Said, nested
from stubs.template_service import TemplateServiceStub

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class BuiltIn:
    """An ``Engine`` of the stub."""

    def __init__(self) -> None:
        self.catalogues: Catalogues = {}

    def tokens(self, said: Said) -> list[str]:
        """As the contract names them: of ``occurrence.at|date`` and ``occurrence.at.hour`` the instant."""
        asked = {name for content in _contents(said) for name in asked_for(content).variables}
        return sorted({_name(each) for each in asked} - {""})

    def render(self, said: Said, channel: str, items: Sequence[Item]) -> list[dict[str, str] | NotRendered]:
        contents = _contents(said)
        return [_result(each) for item in items for each in self._rendered(contents, said, channel, item)]

    def _rendered(
        self, contents: Sequence[Content], said: Said, channel: str, item: Item
    ) -> Iterable[Rendered | RenderError]:
        tokens = nested(item.tokens)
        schedule, occurrence = tokens.pop("schedule", {}), tokens.pop("occurrence", {})
        own = tokens.pop("recipient", {})
        shared = Shared(
            schedule_name=schedule.get("name", ""),
            schedule_zone=item.time_zone,
            occurrence_at=datetime.fromisoformat(occurrence["at"]) if "at" in occurrence else _LONG_AGO,
            default_locale=said.default_locale,
            catalogues=self.catalogues,
        )
        recipient = {**own, "locale": item.locale, "attributes": {**own.get("attributes", {}), **tokens}}
        return render_many(contents=contents, channel=channel, recipients=[recipient], shared=shared)


def _contents(said: Said) -> tuple[Content, ...]:
    return read_contents(said.contents)


def _name(asked: str) -> str:
    """Under which a token is declared; empty for what isn't sent."""
    head, _, rest = asked.partition(".")
    if head == "occurrence":
        return "occurrence.at" if rest.split(".")[0] == "at" else ""
    if head == "schedule":
        return "schedule.name" if rest == "name" else ""
    return "" if head in FUNCTIONS or asked == "recipient" else asked


def _result(made: Rendered | RenderError) -> dict[str, str] | NotRendered:
    if isinstance(made, RenderError):
        return NotRendered(made.reason, made.detail)
    return {"subject": made.subject, "text": made.text, "html": made.html, "locale": made.locale}


class TemplateService(TemplateServiceStub):
    engine = BuiltIn

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument("--catalogues", type=Path, help="JSON: by locale what t() looks up")

    def opened(self, url: str, options: argparse.Namespace) -> None:
        if options.catalogues:
            self.translate(json.loads(options.catalogues.read_text(encoding="utf-8")))
        super().opened(url, options)

    def translate(self, messages: Mapping[str, Any]) -> None:
        """What ``t()`` looks up from now on, by locale."""
        cast(BuiltIn, self.templates.engine).catalogues = read_catalogues(messages.items())


if __name__ == "__main__":
    main(TemplateService)

"""The service under check."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from schedules.remote.http import Answer, check_status
from schedules.template_service.client import KIND, MAX_PAGE, RENDER, TEMPLATES, Client, Item, path_of, written
from schedules.template_service.errors import Unavailable
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

SAMPLE: Final = 5  # templates
MOST_PAGES: Final = 500
AT: Final = "2026-11-22T10:00:00Z"
VALUE: Final = "Zebra"
_LONGEST: Final = 600  # characters of a request as it is told


class Spoken(NamedTuple):
    """A content to ask for."""

    template: Template
    channel: str
    locale: str


class Subject:
    """``asked``: the last request, as it is told."""

    def __init__(self, client: Client, *, has_token: bool) -> None:
        self.client = client
        self.has_token = has_token
        self.asked = ""
        self._sample: tuple[Template, ...] | None = None
        self._speaking: list[Spoken] | None = None

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Whatever status comes. Raises ``TemplateServiceError``."""
        self.asked = f"GET {path}"
        return self.client.send(path, None, headers=headers)

    def get_list(self, *, limit: int, cursor: str | None = None, **options: Any) -> Answer:
        more = "" if cursor is None else f"&cursor={cursor}"
        return self.get(f"{TEMPLATES}?limit={limit}{more}", **options)

    def post_render(self, said: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> Answer:
        text = json.dumps(said, ensure_ascii=False)
        self.asked = f"POST {RENDER} {text if len(text) <= _LONGEST else f'{text[:_LONGEST]}…'}"
        return self.client.send(RENDER, json.dumps(said).encode(), headers=headers)

    def post_text(self, text: str) -> Answer:
        """As ``post_render``, with a body that needn't be JSON."""
        self.asked = f"POST {RENDER} {text}"
        return self.client.send(RENDER, text.encode())

    def page(self, *, limit: int, cursor: str | None = None) -> Templates:
        """Raises ``TemplateServiceError``, also for a page that isn't shaped as one."""
        answer = self.get_list(limit=limit, cursor=cursor)
        check_status(KIND, answer)
        # More than were asked for are for a check of its own.
        return read_templates_body(answer.body, limit=MAX_PAGE * MOST_PAGES)

    def pages(self, *, limit: int) -> Iterator[Templates]:
        """Each page of the list, as long as there are any, or too many. Raises ``TemplateServiceError``."""
        cursor = None
        for _ in range(MOST_PAGES):
            found = self.page(limit=limit, cursor=cursor)
            yield found
            cursor = found.next_cursor
            if cursor is None:
                return

    def one(self, template_id: str) -> Template:
        """Raises ``TemplateServiceError``."""
        answer = self.get(path_of(template_id))
        check_status(KIND, answer)
        return read_template_body(answer.body, template_id=template_id)

    def sample(self) -> tuple[Template, ...]:
        """Some of the templates on the first page of the list that say something: those that read most."""
        if self._sample is None:
            found = [each for each in self.page(limit=MAX_PAGE).templates if isinstance(each, Template)]
            speaking = [each for each in found if each.contents]
            self._sample = tuple(sorted(speaking, key=lambda each: -len(each.tokens))[:SAMPLE])
        return self._sample

    def contents(self) -> list[Spoken]:
        """What the sample says, each template in its first few channels and locales."""
        return [Spoken(each, channel, locale) for each in self.sample() for channel, locale in each.contents[:SAMPLE]]

    def speaking(self) -> list[Spoken]:
        """The contents that give a message for ``item``, found out once. Raises ``TemplateServiceError``."""
        if self._speaking is None:
            said = self.contents()
            self._speaking = [each for each in said if isinstance(self.message(each, item(each)), Message)]
        return self._speaking

    def render(self, template: Template, channel: str, items: Sequence[Item]) -> list[Message | ItemError]:
        """Raises ``TemplateServiceError``."""
        answer = self.post_render(asking(template, channel, items))
        check_status(KIND, answer)
        return read_results_body(answer.body, count=len(items))

    def message(self, spoken: Spoken, item: Item) -> Message | ItemError:
        """Raises ``TemplateServiceError``."""
        return self.render(spoken.template, spoken.channel, [item])[0]


def asking(template: Template, channel: str, items: Sequence[Item]) -> dict[str, Any]:
    return {
        "template": template.id,
        "version": template.version,
        "channel": channel,
        "items": [written(item) for item in items],
    }


def item(spoken: Spoken, value: object = VALUE, **others: Any) -> Item:
    """Where every attribute has this value; ``locale``, ``time_zone`` and ``at`` as given."""
    locale, zone = others.get("locale", spoken.locale), others.get("time_zone", "UTC")
    of_profile = {
        "recipient.external_id": "check-1",
        "recipient.email": "somebody@example.com",
        "recipient.locale": locale,
        "recipient.time_zone": zone,
        "recipient.attributes": {},
        "schedule.name": "Check",
        "occurrence.at": others.get("at", AT),
    }
    return Item(locale, zone, {name: of_profile.get(name, value) for name in spoken.template.tokens})


def attributes(template: Template) -> list[str]:
    """The tokens that a value of one's own can be given."""
    roots = ("recipient.", "schedule.", "occurrence.")
    return [name for name in template.tokens if not name.startswith(roots) or name.startswith("recipient.attributes.")]


def usable(page: Templates) -> list[Template]:
    return [each for each in page.templates if isinstance(each, Template)]


def flawed(page: Templates) -> list[BadTemplate]:
    return [each for each in page.templates if isinstance(each, BadTemplate)]


def problem_of(answer: Answer) -> Any:
    """The object of a refusal. Raises ``Unavailable``."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unavailable("wrong_shape", "sent a refusal that is no JSON object")
    return found

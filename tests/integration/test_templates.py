"""Templates: what a publication keeps, what counts as new, and that a pinned version never changes its mind."""

from datetime import UTC, datetime
from typing import Any

import pytest

from audit.models import Action, AuditEvent
from delivery.ledger import Claim, Person, Work
from delivery.messages import compose
from schedules import operations, templates
from schedules.definition import Definition
from schedules.models import MessageTemplate, TemplateVersion

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
BY = "user:1"
CONTENTS = [
    {"channel": "email", "locale": "de", "subject": "Hallo", "text": "x"},
    {"channel": "email", "locale": "en", "subject": "Hello", "text": "x"},
]


def save(contents: list[dict[str, str]] = CONTENTS, **more: Any) -> MessageTemplate:
    return templates.save(name="Greeting", contents=contents, by=BY, now=NOW, **more)


def last_publication() -> dict[str, Any]:
    event = AuditEvent.objects.filter(action=Action.TEMPLATE_PUBLISH).latest("pk")
    return {name: change for name, change in event.payload_diff.items() if name not in ("template", "contents")}


def test_a_version_keeps_contents_and_default_locale() -> None:
    version = TemplateVersion.objects.get(template=save(default_locale="de"))
    assert [content["subject"] for content in version.contents] == ["Hallo", "Hello"]
    assert (version.version, version.default_locale) == (1, "de")
    assert last_publication() == {"default_locale": [None, "de"], "version": [0, 1]}


def test_what_says_nothing_new_is_no_new_version() -> None:
    save(default_locale="de")
    assert save(default_locale="de").version == 1
    assert AuditEvent.objects.filter(action=Action.TEMPLATE_PUBLISH).count() == 1


def test_another_default_locale_is_a_new_version() -> None:
    save(default_locale="de")
    assert save(default_locale="en").version == 2
    assert last_publication() == {"default_locale": ["de", "en"], "version": [1, 2]}


def test_another_content_is_a_new_version() -> None:
    save()
    assert save([*CONTENTS[:1], CONTENTS[1] | {"subject": "Hi"}]).version == 2
    assert last_publication() == {"version": [1, 2]}


def test_a_pinned_version_falls_back_to_the_default_locale_of_its_publication() -> None:
    template = save(default_locale="de")
    definition = Definition("Greet", "email", template.pk, "once", {"all": []}, run_at=NOW.replace(hour=12))
    schedule = operations.create(definition=definition, by=BY, now=NOW)
    save(default_locale="en")
    assert [subject_for_a_stranger(schedule.pk, template_version=each) for each in (1, 2)] == ["Hallo", "Hello"]


def subject_for_a_stranger(schedule_id: int, *, template_version: int) -> str:
    """The subject that someone reads in whose language the template says nothing."""
    person = Person(1, NOW, 1, "u-1", "ann@example.com", "fr", "UTC", {}, [], {}, NOW, False, [])
    work = Work(1, NOW.date(), 1, "email", NOW, is_late=False, pending=1)
    composed = compose(Claim(work, None, schedule_id, NOW, 1, template_version, [person], 1), now=NOW)
    (message,) = composed.messages
    return message.subject

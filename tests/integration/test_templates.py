"""Templates: what a publication keeps, what counts as new, and that a pinned version never changes its mind."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from audit.models import Action, AuditEvent
from delivery.ledger import Claim, Person, Work
from delivery.messages import compose
from schedules import operations, templates
from schedules.definition import Definition
from schedules.models import MessageTemplate, TemplateVersion
from schedules.problems import Problem

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
    person = Person(1, NOW, 1, "u-1", "ann@example.com", "fr", "UTC", {}, [], {}, NOW, False, [], (), True, 1)
    work = Work(1, NOW.date(), 1, "email", NOW, is_late=False, pending=1, is_begun=False)
    composed = compose(Claim(work, uuid4(), schedule_id, NOW, 1, template_version, [person], 1, NOW), now=NOW)
    (message,) = composed.messages
    return message.subject


def content(**parts: Any) -> list[Any]:
    return [{"channel": "email", "locale": "en", "subject": "Hello", "text": "x", **parts}]


@pytest.mark.parametrize(
    ("contents", "field"),
    [
        (None, "contents"),
        ("email", "contents"),
        ([], "contents"),
        ([None], "contents/0"),
        (content(channel=None), "contents/0/channel"),
        (content(channel=["email"]), "contents/0/channel"),
        (content(channel="\0"), "contents/0/channel"),
        (content(locale=None), "contents/0/locale"),
        (content(locale="en.\0"), "contents/0/locale"),
        (content(locale="\ud800"), "contents/0/locale"),
        (content(locale="en-" + "x" * 60), "contents/0/locale"),
        (content(text=None), "contents/0/text"),
        (content(text=[]), "contents/0/text"),
        (content(text="a\0"), "contents/0/text"),
        (content(html="\ud800"), "contents/0/html"),
        (content(subject="\ud800"), "contents/0/subject"),
        (content(subject="\0"), "contents/0/subject"),
        ([{"channel": "email", "subject": "Hello", "text": "x"}], "contents/0/locale"),
    ],
)
def test_contents_that_can_not_be_kept_are_refused_in_words(contents: Any, field: str) -> None:
    assert [problem.field for problem in refused(lambda: save(contents))] == [field]
    assert not MessageTemplate.objects.exists()


@pytest.mark.parametrize("locale", [None, [], "", "\0", "en.\ud800", "en-" + "x" * 60])
def test_a_default_locale_that_is_none_is_refused_in_words(locale: Any) -> None:
    assert [problem.field for problem in refused(lambda: save(default_locale=locale))] == ["defaultLocale"]


@pytest.mark.parametrize("name", [None, 3, "", "a\0", "\ud800", "x" * 201])
def test_a_name_that_is_none_is_refused_in_words(name: Any) -> None:
    problems = refused(lambda: templates.save(name=name, contents=CONTENTS, by=BY, now=NOW))
    assert [problem.field for problem in problems] == ["name"]


@pytest.mark.parametrize(
    ("locale", "messages", "field"),
    [
        (None, {}, "locale"),
        (["de"], {}, "locale"),
        ("\ud800", {}, "locale"),
        ("de", None, "messages"),
        ("de", {"a\0": "x"}, "messages/a?"),
        ("de", {"\ud800": "x"}, "messages/?"),
        ("de", {"a": "\0"}, "messages/a"),
        ("de", {"a": {"one": "x", "other": "\udfff"}}, "messages/a"),
    ],
)
def test_a_catalogue_that_can_not_be_kept_is_refused_in_words(locale: Any, messages: Any, field: str) -> None:
    problems = refused(lambda: templates.save_catalogue(locale=locale, messages=messages, by=BY, now=NOW))
    assert [problem.field for problem in problems] == [field]


def test_a_catalogue_s_long_locale_is_kept_by_what_it_means() -> None:
    catalogue = templates.save_catalogue(locale="de-AT-" + "x" * 57, messages={"a": "x"}, by=BY, now=NOW)
    assert catalogue.locale == "de-AT"


def refused(save_it: Callable[[], object]) -> list[Problem]:
    with pytest.raises(templates.InvalidTemplate) as error:
        save_it()
    assert all(problem.message for problem in error.value.problems)
    str(error.value).encode()  # an answer and a log can hold it
    return error.value.problems

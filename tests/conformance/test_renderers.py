"""What holds of whoever renders messages: this service's own engine, and a template service over HTTP."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from delivery import remote_rendering
from delivery.remote_rendering import Remote
from delivery.renderers import BuiltIn, OfService, Renderer
from delivery.rendering import Rendered, Shared
from delivery.rendering_limits import RenderError
from schedules.content import read_contents
from schedules.template_service import client
from stubs.testing import RunningTemplateService
from tests import template_service

AT = datetime(2026, 12, 24, 17, 0, tzinfo=UTC)
Make = Callable[..., Renderer]


@pytest.fixture(scope="module")
def reference() -> Iterator[RunningTemplateService]:
    with template_service.running_reference() as running:
        yield running


@pytest.fixture(params=["built in", "of a service"])
def says(request: pytest.FixtureRequest, settings: Any) -> Iterator[Make]:
    """Makes a renderer of contents, which are an e-mail in English unless they say otherwise."""
    if request.param == "built in":
        yield lambda *contents, default="en": BuiltIn(read_contents(map(_whole, contents)), default)
        return
    remote_rendering.forget()
    with template_service.used_by(settings, request.getfixturevalue("reference")) as service:
        yield lambda *contents, default="en": _kept_by(service, [*map(_whole, contents)], default)


def _whole(content: dict[str, str]) -> dict[str, str]:
    return {"channel": "email", "locale": "en", "subject": "s", "text": "t", **content}


def _kept_by(service: template_service.TemplateService, contents: list[dict[str, str]], default: str) -> Renderer:
    service.put({"id": "suite", "name": "Suite", "defaultLocale": default, "contents": contents})
    said = client.read_template("suite")
    channels = frozenset(channel for channel, _ in said.contents)
    spoken = read_contents({"channel": channel, "locale": locale} for channel, locale in said.contents)
    return OfService(spoken, said.default_locale, Remote(1, said.id, said.version, channels, said.tokens))


def person(external_id: str = "u-1", *, locale: str = "en", zone: str = "Europe/Vienna", **attributes: Any) -> Any:
    address = f"{external_id}@example.org"
    return {
        "external_id": external_id,
        "email": address,
        "locale": locale,
        "time_zone": zone,
        "attributes": attributes,
    }


def shared(renderer: Renderer, **fields: Any) -> Shared:
    return Shared(
        **{"schedule_name": "Spring <sale>", "schedule_zone": "UTC", "occurrence_at": AT, **fields},
        default_locale=renderer.default_locale,
    )


def render(renderer: Renderer, *people: Any, channel: str = "email", **fields: Any) -> Any:
    return renderer.render_many(channel=channel, recipients=people, shared=shared(renderer, **fields))


def texts(results: Any) -> list[str]:
    return [result.text if isinstance(result, Rendered) else result.reason for result in results]


def test_each_recipient_has_a_result_in_the_order_given(says: Make) -> None:
    renderer = says({"text": "{{ recipient.external_id }}"})
    names = [f"u-{number}" for number in range(1_203)]
    assert texts(render(renderer, *map(person, names))) == names
    assert render(renderer) == []


def test_tokens_are_what_the_profile_the_schedule_and_the_run_say(says: Make) -> None:
    source = (
        "{{ first_name }} {{ recipient.attributes.first_name }} {{ recipient.external_id }} {{ recipient.email }}"
        " {{ recipient.locale }} {{ recipient.time_zone }} {{ schedule.name }} {{ address.city }} {{ points }}"
    )
    found = render(says({"text": source}), person(first_name="Ann", address={"city": "Wien"}, points=3))
    assert texts(found) == ["Ann Ann u-1 u-1@example.org en Europe/Vienna Spring <sale> Wien 3"]


def test_what_is_missing_is_empty(says: Make) -> None:
    source = "[{{ missing }}{{ missing.deeper }}{{ recipient.attributes.missing }}{{ null }}]"
    assert texts(render(says({"text": source}), person(null=None))) == ["[]"]


def test_html_is_escaped_and_nothing_else(says: Make) -> None:
    source = "{{ first_name }}"
    (found,) = render(says({"subject": source, "text": source, "html": source}), person(first_name="<b>&"))
    assert (found.subject, found.text, found.html) == ("<b>&", "<b>&", "&lt;b&gt;&amp;")


@pytest.mark.parametrize(
    ("locale", "expected"), [("de-AT", "de"), ("de", "de"), ("en-GB", "en"), ("fr", "en"), ("", "en"), ("??", "en")]
)
def test_the_language_is_the_readers_or_else_the_templates_own(says: Make, locale: str, expected: str) -> None:
    renderer = says({"locale": "de", "text": "de"}, {"locale": "en", "text": "en"})
    (found,) = render(renderer, person(locale=locale))
    assert (found.text, found.locale) == (expected, expected)


def test_instants_and_numbers_are_written_for_the_reader(says: Make) -> None:
    source = "{{ occurrence.at|date('long') }} {{ occurrence.at|time('HH:mm') }} {{ points|number }}"
    renderer = says({"text": source})
    people = [person(points=1234.5), person("u-2", locale="de", zone="Asia/Tokyo", points=1234.5)]
    assert texts(render(renderer, *people)) == ["December 24, 2026 18:00 1,234.5", "25. Dezember 2026 02:00 1.234,5"]


def test_each_has_the_instant_of_his_own_wave(says: Make) -> None:
    renderer = says({"text": "{{ occurrence.at|time('HH:mm') }}"})
    later = AT.replace(hour=19)
    assert texts(render(renderer, person(), {**person("u-2"), "at": later})) == ["18:00", "20:00"]


@pytest.mark.parametrize("zone", ["", "Nowhere/Land"])
def test_without_a_valid_zone_the_schedules_serves(says: Make, zone: str) -> None:
    renderer = says({"text": "{{ occurrence.at|time('HH:mm') }}"})
    assert texts(render(renderer, person(zone=zone), schedule_zone="Asia/Tokyo")) == ["02:00"]


def test_each_channel_has_contents_of_its_own(says: Make) -> None:
    renderer = says({"text": "by mail"}, {"channel": "push", "text": "by push"})
    assert texts(render(renderer, person(), channel="push")) == ["by push"]
    assert texts(render(renderer, person(), channel="in_app")) == ["no_content"]


def test_what_is_wrong_with_one_concerns_nobody_else(says: Make) -> None:
    renderer = says({"subject": "{{ first_name }}", "text": "{{ 1 + points }}"})
    people = [
        person("u-1", first_name="Ann", points=1),
        person("u-2", first_name="Bo", points="none"),
        person("u-3", first_name="A\nBcc: all@example.org", points=1),
        person("u-4", first_name="x" * 20_000, points=1),
        person("u-5", first_name="Cy", points=2),
    ]
    assert texts(render(renderer, *people)) == ["2", "template_error", "header_injection", "too_large", "3"]


def test_a_part_that_is_too_large_for_a_message_is_refused(says: Make) -> None:
    renderer = says({"text": "{% for n in range(100) %}{{ words }}{% endfor %}"})
    assert texts(render(renderer, person(words="x" * 10_000), person(words="x"))) == ["too_large", "x" * 100]


def test_an_error_names_nobody(says: Make) -> None:
    (error,) = render(says({"text": "{{ secret + 1 }}"}), person(secret="the secret of u-1"))
    assert isinstance(error, RenderError)
    assert "secret of" not in error.words + error.detail + str(error)


@pytest.mark.parametrize("text", ["Grüß Gott 👋🏽", "שלום", "a" * 5_000, "{{ '{{' }}", "line\nline\ttab"])
def test_words_come_as_they_are(says: Make, text: str) -> None:
    assert texts(render(says({"text": text}), person())) == [text.replace("{{ '{{' }}", "{{")]


def test_a_preview_tells_which_tokens_the_reader_lacks(says: Make) -> None:
    renderer = says({"text": "{{ first_name }} {{ plan }}"})
    found = renderer.preview(channel="email", recipient=person(plan="pro"), shared=shared(renderer))
    assert (found.text, found.missing_tokens) == (" pro", {"first_name"})


def test_a_preview_of_what_cannot_be_rendered_raises(says: Make) -> None:
    renderer = says({"text": "{{ points + 1 }}"})
    with pytest.raises(RenderError, match="template_error"):
        renderer.preview(channel="email", recipient=person(), shared=shared(renderer))


def test_it_is_known_whether_the_address_is_read(says: Make) -> None:
    assert says({"text": "{{ recipient.email }}"}).reads("email", channel="email")
    assert not says({"text": "{{ recipient.external_id }}"}).reads("email", channel="email")

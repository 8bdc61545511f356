"""What functions and filters write: in the reader's language, by its customs and its clock."""

import threading
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from delivery import formats
from delivery.rendering import Rendered, compile_content, render_many
from delivery.rendering_limits import RenderError
from schedules.content import Content
from schedules.template_language import FUNCTIONS, OWN_FILTERS
from tests.unit.reading import CATALOGUES, SHARED, person, read, reason


def test_a_missing_parameter_of_a_translation_is_empty() -> None:
    assert read("{{ t('points', count=missing, name=missing.x) }}", person(locale="de")) == " Punkte für "


def test_a_translation_counts_in_the_recipients_language() -> None:
    source = "{{ t('points', count=points, name=first_name) }}"
    assert read(source, person(locale="de-AT", points=1, first_name="Ann")) == "1 Punkt für Ann"
    assert read(source, person(locale="de-AT", points=1234, first_name="Ann")) == "1.234 Punkte für Ann"
    assert read(source, person(locale="fr", points=2, first_name="{name}")) == "2 points for {name}"


def test_a_missing_catalogue_key_is_empty_and_named() -> None:
    compiled = compile_content(
        content=Content("in_app", "en", text="[{{ t('no.such') }}{{ t('only') }}{{ t('nor.this') }}]")
    )
    rendered = compiled.render(recipient=person(locale="de"), shared=SHARED)
    assert rendered.text == "[<only> in English]"
    assert rendered.missing_keys == {"no.such", "nor.this"}
    assert (
        compile_content(content=Content("in_app", "en", text="{{ t('only') }}"))
        .render(recipient=person(), shared=SHARED)
        .missing_keys
        == set()
    )


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ n|number }}", "1.234,5"),
        ("{{ '1234.5'|number }}", "1.234,5"),
        ("{{ n|currency('EUR') }}", "1.234,50\xa0€"),
        ("{{ 0.25|percent }}", "25\xa0%"),
        ("{{ day|date }}", "24.12.2026"),
        ("{{ day|date('full') }}", "Donnerstag, 24. Dezember 2026"),
        ("{{ day|date(format='d. MMM') }}", "24. Dez."),
        ("{{ occurrence.at|datetime('short') }}", "29.03.26, 09:30"),
        ("{{ occurrence.at|time('short') }}", "09:30"),
        ("{{ occurrence.at }}", "2026-03-29 09:30:00+02:00"),
        ("{{ '2026-03-28T23:30:00Z'|date }} {{ '2026-03-28T23:30:00'|time }}", "29.03.2026 00:30:00"),
        (
            "{{ 2.345|round(2) }} {{ 2.5|round }} {{ '7.9'|int }} {{ n|int|times('2.5') }} {{ -3|abs }}",
            "2.34 2 7 3085 3",
        ),
        ("{{ [1, 2]|join(', ') }} {{ 'a b'|urlencode }} {{ \"don't stop\"|title }}", "1, 2 a%20b Don't Stop"),
    ],
)
def test_formats_follow_locale_and_zone_of_the_recipient(source: str, text: str) -> None:
    assert read(source, person(locale="de-DE", n=1234.5, day="2026-12-24")) == text


def test_one_instant_is_written_for_each_readers_zone_one_after_the_other() -> None:
    source = "{{ occurrence.at|time('HH:mm') }} {{ '2026-03-28T23:30:00Z'|datetime('d HH:mm') }}"
    for _ in range(2):
        assert read(source, person(zone="Europe/Vienna")) == "09:30 29 00:30"
        assert read(source, person(zone="Asia/Tokyo")) == "16:30 29 08:30"
        assert read(source, person(zone="UTC")) == "07:30 28 23:30"


def test_a_date_attribute_may_be_a_date() -> None:
    assert read("{{ day|date }}", person(day=date(2026, 12, 24))) == "Dec 24, 2026"


@pytest.mark.parametrize(
    "value", ["abc", "1e999999999", "1e-999999999", "nan", "-inf", "9" * 70, 10**40, [], {}, True, "2026-02-30", ""]
)
def test_a_value_that_a_format_cannot_read_is_an_empty_string(value: Any) -> None:
    source = "{{ v|number }}{{ v|currency('EUR') }}{{ v|percent }}{{ v|date }}{{ v|time }}{{ v|datetime }}{{ v|round }}"
    assert read(source, person(v=value)) == ""


@pytest.mark.parametrize(
    "source",
    [
        "{{ 3|currency('EURO') }}",
        "{{ 3|currency }}",
        "{{ 3|currency(['EUR']) }}",
        "{{ 3|currency(3) }}",
        "{{ occurrence.at|date(1, 2) }}",
    ],
)
def test_an_argument_that_a_format_cannot_use_is_an_error(source: str) -> None:
    assert reason(source) == "template_error"


def test_every_filter_and_function_of_the_language_exists() -> None:
    assert set(formats.FILTERS) == OWN_FILTERS
    assert set(formats.FUNCTIONS) == FUNCTIONS


def test_threads_do_not_mix_their_recipients() -> None:
    looking_up, go_on = threading.Event(), threading.Event()

    class SlowCatalogues(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            looking_up.set()
            assert go_on.wait(60)
            return super().get(key, default)

    slow = replace(SHARED, catalogues=SlowCatalogues(CATALOGUES))
    content = Content("in_app", "en", text="{{ t('only') }} {{ n|number }} {{ occurrence.at|time('HH:mm') }}")
    seen: list[Rendered | RenderError] = []

    def render_slowly() -> None:
        recipients = [person(locale="de", zone="Asia/Tokyo", n=1234)]
        seen.extend(render_many(contents=[content], channel="in_app", recipients=recipients, shared=slow))

    thread = threading.Thread(target=render_slowly)
    thread.start()
    assert looking_up.wait(60)
    assert read("{{ n|number }}", person(locale="en", n=1234)) == "1,234"
    go_on.set()
    thread.join(60)
    assert [each.text for each in seen if isinstance(each, Rendered)] == ["<only> in English 1.234 16:30"]

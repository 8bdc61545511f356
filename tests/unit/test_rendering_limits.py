"""What a template cannot do to the worker that renders it, nor to the header of a message."""

import time
from typing import Any

import pytest

from delivery.rendering import Rendered, render_many
from delivery.rendering_limits import FUEL, MAX_PART, MAX_VALUE
from schedules.content import Content
from tests.unit.reading import SHARED, person, read, reason


@pytest.mark.parametrize("character", ["\n", "\r", "\r\n", "\x00", "\t", "\x1b", "\x85", "\u2028", "\u2029"])
def test_a_control_character_in_a_subject_is_refused(character: str) -> None:
    assert (
        reason("Hi {{ name }}", person(name=f"Ann{character}Bcc: all@example.org"), part="subject")
        == "header_injection"
    )
    assert reason(f"Hi{character}", part="subject") == "header_injection"
    assert character in read("Hi {{ name }}", person(name=f"Ann{character}"))


def test_a_line_break_made_inside_the_subject_is_refused() -> None:
    assert reason("{{ 'a\\nb' }}", part="subject") == "header_injection"
    assert reason("{{ t('two') }}", person(locale="de"), part="subject") == "header_injection"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% for i in range(10000000000) %}x{% endfor %}", "fuel_exhausted"),
        ("{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}", "fuel_exhausted"),
        ("{% for i in range(1000) %}" + "x" * 90_000 + "{% endfor %}", "fuel_exhausted"),
        ("{% for i in range(1000) %}{{ long }}{% endfor %}", "too_large"),
        (
            "{% for i in range(1000) %}{% for j in range(9) %}{% if long|title %}{% endif %}{% endfor %}{% endfor %}",
            "too_large",
        ),
        ("{{ long }}" * 60, "too_large"),
        ("{{ long }}" * 40, "too_large"),
        ("{% for i in range(1000) %}{{ " + " ~ ".join(["long"] * 11) + " }}{% endfor %}", "too_large"),
        ("{% set a = 'aa' %}" + "{% set a = a|replace('a', 'aa') %}" * 60 + "{{ a }}", "too_large"),
        ("{% set a = '%' %}" + "{% set a = a|urlencode|replace('%', '%%') %}" * 60 + "{{ a }}", "too_large"),
        ("{% set a = 'a' %}" + "{% set a = t('twice', x=a) %}" * 60 + "{{ a }}", "too_large"),
        ("{{ many|join(long) }}", "too_large"),
        ("{{ longer }}", "too_large"),
        ("{{ nested.longer }}", "too_large"),
        ("{{ 1 // 0 }}", "template_error"),
        ("{{ missing + 1 }}", "template_error"),
        ("{% for x in number %}{% endfor %}", "template_error"),
        ("{{ t('only', 1) }}", "template_error"),
    ],
)
def test_a_template_that_asks_for_too_much_ends_in_an_error_and_soon(source: str, expected: str) -> None:
    recipient = person(
        long="ä" * MAX_VALUE,
        longer="x" * (MAX_VALUE + 1),
        nested={"longer": "x" * (MAX_VALUE + 1)},
        many=[1] * 20,
        number=5,
    )
    start = time.thread_time()
    assert reason(source, recipient) == expected
    assert time.thread_time() - start < 5


def test_a_real_newsletter_is_far_from_the_limits() -> None:
    row = "<tr><td>{{ item.name|title }}</td><td>{{ item.price|currency('EUR') }}</td></tr>"
    source = "{% for item in items %}" + row + "{% endfor %}"
    items = [{"name": f"thing {n}", "price": n + 0.5} for n in range(500)]
    html = read(source, person(items=items), part="html")
    assert html.count("<tr>") == 500
    assert "<td>Thing 499</td><td>€499.50</td>" in html


def test_text_and_html_may_have_512_kilobytes() -> None:
    source = "{% for n in range(" + str(MAX_PART // 1024 - 1) + ") %}" + "x" * 1024 + "{% endfor %}"
    assert len(read(source)) == MAX_PART - 1024
    assert reason(source.replace("x" * 1024, "ä" * 1024)) == "too_large"


def test_a_subject_has_at_most_998_characters() -> None:
    assert len(read("{{ long }}", person(long="x" * 998), part="subject")) == 998
    assert reason("{{ long }}", person(long="x" * 999), part="subject") == "too_large"


def test_deep_attributes_do_not_exhaust_the_stack() -> None:
    deep: Any = "bottom"
    for _ in range(20_000):
        deep = [deep]
    assert read("{{ deep == other }}", person(deep=deep, other=[deep])) in ("True", "False")


def test_fuel_is_granted_anew_to_each_recipient() -> None:
    content = Content("in_app", "en", text="{% for n in range(1000) %}{{ n }}{% endfor %}")
    rendered = render_many(contents=[content], channel="in_app", recipients=[person()] * (FUEL // 1000), shared=SHARED)
    assert all(isinstance(each, Rendered) for each in rendered)

"""What recipients read: tokens, locales, formats, and what a template cannot do to the worker that renders it."""

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from delivery import rendering
from delivery.rendering import (
    FUEL,
    MAX_PART,
    MAX_VALUE,
    Rendered,
    RenderError,
    Shared,
    compile_content,
    preview,
    render_many,
)
from schedules.content import Content, read_catalogues
from schedules.template_language import OWN_FILTERS

CATALOGUES = read_catalogues(
    [
        ("de", {"points": {"one": "{count} Punkt für {name}", "other": "{count} Punkte für {name}"}, "two": "a\nb"}),
        ("en", {"points": "{count} points for {name}", "only": "<only> in English", "twice": "{x}{x}"}),
    ]
)
# Half past nine in Vienna: an hour and a half after the clocks went forward there.
SHARED = Shared(
    schedule_name="Spring <sale>",
    schedule_zone="Asia/Kathmandu",
    occurrence_at=datetime(2026, 3, 29, 7, 30, tzinfo=UTC),
    default_locale="en",
    catalogues=CATALOGUES,
)


def person(locale: str = "en", zone: str = "Europe/Vienna", **attributes: Any) -> dict[str, Any]:
    return {
        "external_id": "u-1",
        "locale": locale,
        "time_zone": zone,
        "email": "ann@example.org",
        "attributes": attributes,
    }


def read(source: str, recipient: Mapping[str, Any] | None = None, *, part: str = "text") -> str:
    content = Content("in_app", "en", **{part: source})
    compiled = compile_content(content=content)
    text: str = getattr(compiled.render(recipient=recipient or person(), shared=SHARED), part)
    return text


def reason(source: str, recipient: Mapping[str, Any] | None = None, *, part: str = "text") -> str:
    with pytest.raises(RenderError) as failed:
        read(source, recipient, part=part)
    return failed.value.reason


# Tokens


def test_tokens_are_replaced() -> None:
    source = (
        "{{ first_name }} {{ recipient.attributes.first_name }} {{ recipient.attributes['first_name'] }}"
        " {{ recipient.external_id }} {{ recipient.email }} {{ recipient.locale }} {{ recipient.time_zone }}"
        " {{ schedule.name }} {{ address.city[:2] }} {{ tags[1:][0] }} {{ true }}"
    )
    recipient = person(first_name="Ann", address={"city": "Wien"}, tags=["a", "b"])
    assert read(source, recipient) == ("Ann Ann Ann u-1 ann@example.org en Europe/Vienna Spring <sale> Wi b True")


@pytest.mark.parametrize(
    "token",
    [
        "{{ missing }}",
        "{{ missing.a.b.c }}",
        "{{ missing[0]['x'] }}",
        "{{ recipient.missing }}",
        "{{ recipient.attributes.missing.deeper }}",
        "{{ recipient.attributes.items }}{{ recipient.attributes.keys }}{{ thing.pop }}{{ list.append }}",
        "{{ schedule.missing }}",
        "{{ null }}",
        "{{ thing.null }}",
        "{{ list[1] }}",
        "{% for item in list %}{{ item.x }}{% endfor %}",
        "{% for item in missing %}{{ item }}{% endfor %}",
        *(f"{{{{ missing|{name} }}}}" for name in sorted(OWN_FILTERS - {"currency", "times", "replace"})),
        "{{ missing|currency('EUR') }}{{ 3|currency(missing) }}{{ missing|times(2) }}{{ 2|times(missing) }}",
        "{{ missing|replace('a', missing) }}{{ missing|join(missing) }}{{ 3|date(format=missing) }}",
        "{{ missing|upper|trim|default('') }}",
        "{{ missing ~ missing.x }}",
        "{{ t(missing) }}",
        "{% for n in range(missing) %}{{ n }}{% endfor %}",
    ],
)
@pytest.mark.parametrize("part", ["subject", "text", "html"])
def test_a_missing_token_is_an_empty_string(token: str, part: str) -> None:
    recipient = person(null=None, thing={"null": None, "a": 1}, list=[1, None])
    assert read(f"[{token}]", recipient, part=part) == "[]"


def test_a_missing_parameter_of_a_translation_is_empty() -> None:
    assert read("{{ t('points', count=missing, name=missing.x) }}", person(locale="de")) == " Punkte für "


def test_a_default_replaces_a_missing_and_a_null_token() -> None:
    assert read("{{ a|default('x') }}{{ b|default('x') }}{{ b or 'y' }}", person(b=None)) == "xxy"


def test_a_token_is_found_although_it_is_reassigned_or_used_in_a_loop() -> None:
    source = "{% set plan = plan|default('free') %}{{ plan }}{% for city in cities %} {{ city }}{% endfor %} {{ city }}"
    assert read(source, person(plan="pro", cities=["Linz"], city="Graz")) == "pro Linz Graz"


def test_reserved_names_hide_attributes() -> None:
    recipient = person(recipient="x", schedule="x", occurrence="x", t="x", range="x")
    assert read("{{ recipient.external_id }} {{ schedule.name }} {{ t('only') }}", recipient) == (
        "u-1 Spring <sale> <only> in English"
    )


def test_html_is_escaped_and_text_and_subject_are_not() -> None:
    recipient = person(name="<b>&\"'")
    assert read("{{ name }}", recipient, part="html") == "&lt;b&gt;&amp;&quot;&#x27;"
    assert read("{{ name|upper }}", recipient, part="html") == "&lt;B&gt;&amp;&quot;&#x27;"
    assert read("{{ t('points', count=2, name=name) }}", recipient, part="html").endswith(
        "for &lt;b&gt;&amp;&quot;&#x27;"
    )
    assert read("{{ t('only') }}", part="html") == "&lt;only&gt; in English"
    assert read("{{ name }}", recipient) == read("{{ name }}", recipient, part="subject") == "<b>&\"'"


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


# Locales, translations, formats


def test_each_recipient_reads_its_own_locale() -> None:
    contents = [Content("email", "en", "Hello", "x"), Content("email", "de", "Hallo", "x")]
    recipients = [person(locale=each) for each in ("de-AT", "de_CH", "fr", "", "en-GB")]
    rendered = render_many(contents=contents, channel="email", recipients=recipients, shared=SHARED)
    assert [each.subject for each in rendered if isinstance(each, Rendered)] == [
        "Hallo",
        "Hallo",
        "Hello",
        "Hello",
        "Hello",
    ]
    assert [each.locale for each in rendered if isinstance(each, Rendered)] == ["de", "de", "en", "en", "en"]


def test_a_channel_without_content_is_an_error_of_each_recipient() -> None:
    (error,) = render_many(contents=[], channel="push", recipients=[person()], shared=SHARED)
    assert isinstance(error, RenderError)
    assert error.reason == "no_content"
    assert "push" in error.detail


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


def test_an_unknown_zone_falls_back_to_the_schedules() -> None:
    for zone in ("", "Mars/Olympus", "../../etc/passwd", "Factory"):
        assert read("{{ occurrence.at|time('HH:mm') }}", person(zone=zone)) == "13:15"


def test_the_occurrence_is_shown_at_the_recipients_own_instant() -> None:
    recipient = person() | {"at": datetime(2026, 12, 24, 17, 0, tzinfo=UTC)}
    assert read("{{ occurrence.at|time('HH:mm') }}", recipient) == "18:00"


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


def test_every_filter_of_the_language_exists() -> None:
    assert set(rendering._FILTERS) == OWN_FILTERS


# Bounds


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
    start = time.perf_counter()
    assert reason(source, recipient) == expected
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "source",
    [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% include 'x' %}",
        "{{ 'x' * 1000 }}",
        "{% if %}",
        "{{ x|safe }}",
    ],
)
def test_a_source_outside_the_language_is_never_compiled(source: str) -> None:
    assert reason(source) == "template_error"


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


def engine_that_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> RenderError | Rendered:
    class Engine:
        def render_template(self, _part: str, **_context: Any) -> str:
            raise error

    content = Content("in_app", "en", text=f"{{{{ {type(error).__name__} }}}}")
    monkeypatch.setattr(compile_content(content=content), "_environment", Engine())
    return render_many(contents=[content], channel="in_app", recipients=[person()], shared=SHARED)[0]


def test_a_panic_of_the_engine_is_one_recipients_error(monkeypatch: pytest.MonkeyPatch) -> None:
    panic = type("PanicException", (BaseException,), {})
    assert isinstance(engine_that_raises(monkeypatch, panic()), RenderError)


def test_a_worker_that_is_told_to_stop_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        engine_that_raises(monkeypatch, KeyboardInterrupt())


# Many


def test_one_recipients_failure_is_that_recipients_alone() -> None:
    content = Content("email", "en", "Hi {{ name }}", "{{ 10 // number }}")
    recipients = [
        person(name="Ann", number=5),
        person(name="A\nBcc: x", number=5),
        person(name="Bob", number=0),
        person(name="Cid", number=2),
    ]
    rendered = render_many(contents=[content], channel="email", recipients=recipients, shared=SHARED)
    assert [getattr(each, "reason", None) or each.text for each in rendered] == [
        "2",
        "header_injection",
        "template_error",
        "5",
    ]


def test_a_broken_template_fails_all_and_raises_nothing() -> None:
    content = Content("email", "en", "Hi", "line one\n{% if %}")
    rendered = render_many(contents=[content], channel="email", recipients=[person()] * 3, shared=SHARED)
    assert [each.reason for each in rendered if isinstance(each, RenderError)] == ["template_error"] * 3
    assert "line 2" in str(rendered[0])


def test_an_error_carries_no_personal_data() -> None:
    (error,) = render_many(
        contents=[Content("in_app", "en", text="{{ salary // 0 }}")],
        channel="in_app",
        recipients=[person(salary=71234)],
        shared=SHARED,
    )
    assert isinstance(error, RenderError)
    assert "71234" not in str(error)
    assert len(error.detail) <= 200


def test_a_content_without_tokens_is_handed_out_as_it_is() -> None:
    content = Content("email", "en", "Hi } }", "a\n", "<p>\n")
    first, second = render_many(contents=[content], channel="email", recipients=[person()] * 2, shared=SHARED)
    assert first == Rendered("Hi } }", "a\n", "<p>\n", "en")
    assert first is second


def test_a_content_is_compiled_once() -> None:
    content = Content("email", "en", "Hi {{ name }}", "x")
    assert compile_content(content=content) is compile_content(content=Content("email", "en", "Hi {{ name }}", "x"))


def test_recipients_are_left_as_they_were() -> None:
    recipient = person(items=[{"a": None}], name="Ann")
    before = repr(recipient)
    read("{% for item in items %}{{ item.a }}{% endfor %}{{ name|upper }}{{ recipient.attributes }}", recipient)
    assert repr(recipient) == before


def test_threads_do_not_mix_their_recipients() -> None:
    looking_up, go_on = threading.Event(), threading.Event()

    class SlowCatalogues(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            looking_up.set()
            assert go_on.wait(10)
            return super().get(key, default)

    slow = replace(SHARED, catalogues=SlowCatalogues(CATALOGUES))
    content = Content("in_app", "en", text="{{ t('only') }} {{ n|number }} {{ occurrence.at|time('HH:mm') }}")
    seen: list[Rendered | RenderError] = []

    def render_slowly() -> None:
        recipients = [person(locale="de", zone="Asia/Tokyo", n=1234)]
        seen.extend(render_many(contents=[content], channel="in_app", recipients=recipients, shared=slow))

    thread = threading.Thread(target=render_slowly)
    thread.start()
    assert looking_up.wait(10)
    assert read("{{ n|number }}", person(locale="en", n=1234)) == "1,234"
    go_on.set()
    thread.join(10)
    assert [each.text for each in seen if isinstance(each, Rendered)] == ["<only> in English 1.234 16:30"]


# Preview


def test_a_preview_names_the_missing_tokens_and_keys() -> None:
    content = Content(
        "email",
        "en",
        "{{ first_name }} {{ surname }}",
        "{% for item in items %}{{ item.x }}{{ loop.index }}{% endfor %}{{ t('no.such', n=count) }}",
        "{{ recipient.email }} {{ recipient.attributes.city.name|default('x') }}"
        "{{ schedule.name }} {{ occurrence.at.year }} {{ schedule.x }}",
    )
    recipient = person(first_name="Ann", items=[{"x": 1}])
    shown = preview(contents=[content], channel="email", recipient=recipient, shared=SHARED)
    assert shown.missing_tokens == {"surname", "count", "recipient.attributes.city.name", "schedule.x"}
    assert shown.missing_keys == {"no.such"}
    assert shown.subject == "Ann "


def test_a_preview_of_a_broken_template_raises() -> None:
    with pytest.raises(RenderError, match="template_error"):
        preview(contents=[Content("email", "en", "{{")], channel="email", recipient=person(), shared=SHARED)
    with pytest.raises(RenderError, match="no_content"):
        preview(contents=[], channel="email", recipient=person(), shared=SHARED)


def test_a_date_attribute_may_be_a_date() -> None:
    assert read("{{ day|date }}", person(day=date(2026, 12, 24))) == "Dec 24, 2026"

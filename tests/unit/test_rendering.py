"""What recipients read: tokens, locales and escaping, each for itself, whatever becomes of the others."""

from datetime import UTC, datetime
from typing import Any

import pytest

from delivery.rendering import Rendered, compile_content, preview, render_many
from delivery.rendering_limits import RenderError
from schedules.content import Content
from schedules.template_language import OWN_FILTERS
from tests.unit.reading import SHARED, person, read, reason

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


def test_a_list_is_read_as_people_write_it_and_fields_are_read_one_by_one() -> None:
    recipient = person(
        tags=["a", None, 3, "<b>"], address={"city": "Wien", "lines": ["x", {"y": 1}, ["z"]]}, empty=[], nothing={}
    )
    assert read("{{ tags }}|{{ tags|upper }}|{{ empty }}", recipient) == "a, 3, <b>|A, 3, <B>|"
    assert read("{{ 'of ' ~ tags }}", recipient) == "of a, 3, <b>"
    assert read("{{ tags }}", recipient, part="html") == "a, 3, &lt;b&gt;"
    bare = "{{ address }}{{ address|upper }}{{ '' ~ address }}{{ recipient.attributes }}{{ recipient }}{{ nothing }}"
    assert read(f"[{bare}]", recipient) == "[]"
    assert read("{% if address %}{{ address.city }}: {{ address.lines }}{% endif %}", recipient) == "Wien: x, z"
    counted = "{% for n in range(2) %}{{ tags }}{{ address }};{% endfor %}"
    assert read(counted, recipient) == "a, 3, <b>;a, 3, <b>;"


@pytest.mark.parametrize(
    "token",
    [
        *(f"{{{{ occurrence.at.{name} }}}}" for name in ("utcoffset", "astimezone", "max", "_at", "tzinfo.utcoffset")),
        "{{ occurrence['at']['replace'] }}{{ (occurrence.at).now }}",
        "{{ occurrence.at.isoformat ~ schedule.x }}{{ occurrence.at.utcoffset|upper }}",
        "{% set at = occurrence.at %}{{ at.strftime }}{{ at.weekday|replace('x', 'y') }}",
        "{{ when.utcoffset }}{{ day.isoformat }}{{ list.0.weekday }}{{ number.bit_length }}{{ name.upper }}",
        "{{ t }}{{ range }}{{ t|upper }}{{ range ~ t }}{% set f = t %}{{ f }}{{ t.__call__ }}{{ t('none') }}",
        "{{ cycler }}{{ joiner }}{{ dict }}{{ namespace }}{{ debug }}{{ self }}",
        "{{ recipient }}{{ schedule }}{{ occurrence }}{{ recipient.__class__ }}",
        "{% for n in range(1) %}{{ range }}{{ occurrence.at.ctime }}{{ loop.cycle }}{{ loop }}{% endfor %}",
    ],
)
def test_what_python_can_do_with_a_value_is_no_token(token: str) -> None:
    when = datetime(2026, 12, 24, 17, 0, tzinfo=UTC)
    recipient = person(when=when, day=when.date(), list=[when], number=10**40, name="Ann")
    assert read(f"[{token}]", recipient) == "[]"


def test_a_moment_is_printed_taken_apart_and_formatted() -> None:
    source = (
        "{{ occurrence.at }} {{ occurrence.at.year }}-{{ occurrence.at.month + 1 }} {{ occurrence.at.tzinfo }}"
        "{% if occurrence.at.hour < 10 %} early{% endif %}"
        " {{ when|datetime('HH:mm') }} {{ occurrence.at|time('HH:mm') }}"
    )
    recipient = person(when=datetime(2026, 12, 24, 17, 0, tzinfo=UTC))
    assert read(source, recipient) == "2026-03-29 09:30:00+02:00 2026-4 Europe/Vienna early 18:00 09:30"


def test_what_has_fields_prints_as_little_in_a_loop_as_beside_it() -> None:
    source = "{{ home }}{% for each in homes %} {{ each }}{{ each.city }}{% endfor %}"
    home = {"city": "Wien"}
    assert read(source, person(home=home, homes=[home])) == " Wien"


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


# Locales


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


def test_an_unknown_zone_falls_back_to_the_schedules() -> None:
    for zone in ("", "Mars/Olympus", "../../etc/passwd", "Factory"):
        assert read("{{ occurrence.at|time('HH:mm') }}", person(zone=zone)) == "13:15"


def test_the_occurrence_is_shown_at_the_recipients_own_instant() -> None:
    recipient = person() | {"at": datetime(2026, 12, 24, 17, 0, tzinfo=UTC)}
    assert read("{{ occurrence.at|time('HH:mm') }}", recipient) == "18:00"


# The engine


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


def test_a_preview_names_what_python_could_do_and_a_template_can_not() -> None:
    content = Content("in_app", "en", text="{{ occurrence.at.utcoffset }}{{ range }}{{ t }}{{ t('only') }}{{ cycler }}")
    shown = preview(contents=[content], channel="in_app", recipient=person(), shared=SHARED)
    assert shown.text == "<only> in English"
    assert shown.missing_tokens == {"occurrence.at.utcoffset", "range", "t", "cycler"}


def test_a_preview_names_what_has_fields_where_it_is_printed_as_a_whole() -> None:
    content = Content("in_app", "en", text="{{ address }}{% if home %}{{ home.city }}{% endif %}{{ recipient }}")
    recipient = person(address={"city": "Wien"}, home={"city": "Graz"})
    shown = preview(contents=[content], channel="in_app", recipient=recipient, shared=SHARED)
    assert (shown.text, shown.missing_tokens) == ("Graz", {"address", "recipient"})


def test_a_preview_of_a_broken_template_raises() -> None:
    with pytest.raises(RenderError, match="template_error"):
        preview(contents=[Content("email", "en", "{{")], channel="email", recipient=person(), shared=SHARED)
    with pytest.raises(RenderError, match="no_content"):
        preview(contents=[], channel="email", recipient=person(), shared=SHARED)

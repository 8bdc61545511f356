"""Whatever a profile holds and a source says: an answer or a RenderError, escaped, and one line in a subject."""

import re
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from delivery.rendering import Rendered, Shared, render_many
from delivery.rendering_limits import RenderError
from schedules.content import CONTROL, Content, read_catalogues, validate_catalogue, validate_content
from schedules.template_language import FILTERS, TAGS, TESTS

SHARED = Shared(
    schedule_name="<Sale> & more",
    schedule_zone="UTC",
    occurrence_at=datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
    catalogues=read_catalogues(
        [
            ("en", {"k": {"one": "{count} <thing> for {name}", "other": "{count} things for {name}"}}),
            (
                "ar",
                {"k": {"zero": "0 {name}", "two": "2 {name}", "few": "{count}", "many": "{count}", "other": "{name}"}},
            ),
        ]
    ),
)

ATTRIBUTES = ("name", "other", "items")
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**30, max_value=10**50)
    | st.floats()
    | st.text()
    | st.text(alphabet="<>&\"'{}%\r\n\x00\u2028\ud800ß1.,-:TZ")
    | st.sampled_from(
        ["2026-03-29", "2026-03-29T02:30:00+01:00", "1e9999999", "EUR", "{{ name }}", "9999-12-31T23:59:59"]
    )
)
JSON = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["name", "items", "keys", "x", "_x", "é"]), inner, max_size=4)
    ),
    max_leaves=12,
)
RECIPIENTS = st.fixed_dictionaries(
    {
        "external_id": st.text(min_size=1),
        "locale": st.sampled_from(["", "ar", "de-AT", "zh_Hant_TW", "xx-YY", "x" * 40]) | st.text(max_size=8),
        "time_zone": st.sampled_from(["", "Australia/Lord_Howe", "Nowhere", "../x"]) | st.text(max_size=8),
        "email": st.none() | st.text(),
        "attributes": st.dictionaries(st.sampled_from([*ATTRIBUTES, "self", "t", "recipient"]), JSON, max_size=5),
    }
)

USES = (
    *(f"{{{{ name|{name} }}}}" for name in sorted(FILTERS - {"currency", "times", "replace", "default", "d"})),
    *(f"{{{{ name is {name} }}}}" for name in sorted(TESTS - {"divisibleby"})),
    "{{ name }}",
    "{{ other.name.x }}{{ items[0] }}{{ items[:2] }}{{ other.items }}",
    "{{ name|currency('EUR') }}{{ name|currency(other) }}{{ name|times(other) }}{{ name|replace(other, items) }}",
    "{{ name|default('x') }}{{ items|join(name) }}{{ name|date(other) }}{{ name|round(other) }}",
    "{{ t('k', count=name, name=other) }}{{ t(name, x=items) }}",
    "{% for item in items %}{{ item }}{{ item.x }}{{ loop.index }}{% endfor %}",
    "{% for item in range(name) %}{{ item }}{% endfor %}",
    "{% if name == other or name in items %}a{% else %}{{ name ~ other ~ items }}{% endif %}",
    "{% set name = other|title %}{{ name }}",
    "{{ recipient.attributes }}{{ recipient.external_id }}{{ recipient.email }}{{ recipient.attributes.items.keys }}",
    "{{ schedule.name }}{{ occurrence.at|datetime }}{{ self }}",
    "{{ name < other }}{{ -name }}{{ name + other }}",
)
SOURCES = st.lists(st.sampled_from(USES), min_size=1, max_size=3).map("".join)
# What an author might type, well or badly: pieces of the language in any order.
PIECES = [
    *"- + ] ( ) , = ~ * | { } % é \\",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "==",
    "[0]",
    "[:",
    ".x",
    "'a'",
    '"',
    "1.5",
]
PIECES += [
    *TESTS,
    *TAGS,
    "name",
    "items",
    "in",
    "is",
    "not",
    "t(",
    "range(",
    "(name)",
    "loop.index",
    "upper",
    "raw",
    "macro",
]
WHOLE = ["{{ name }}", "{% for x in items %}", "{% endfor %}", "|upper", "|", "{% if name %}", "{% endif %}", " ", "\n"]
SCRAPS = st.lists(st.sampled_from(PIECES).map("{} ".format) | st.sampled_from(PIECES + WHOLE), max_size=25).map("".join)


def render(source: str, recipient: dict[str, Any]) -> list[Rendered | RenderError]:
    """The source as subject, as text and as HTML, each on its own so that one's error does not hide the others."""
    return [
        render_many(
            contents=[Content("in_app", "en", **{part: source})],
            channel="in_app",
            recipients=[recipient],
            shared=SHARED,
        )[0]
        for part in ("subject", "text", "html")
    ]


@settings(max_examples=300, deadline=None)
@given(source=SOURCES, recipient=RECIPIENTS)
def test_no_profile_raises_injects_or_shows_a_placeholder(source: str, recipient: dict[str, Any]) -> None:
    subject, _, html = render(source, recipient)
    if isinstance(subject, Rendered):
        assert not CONTROL.search(subject.subject)
    if isinstance(html, Rendered):
        assert not re.search("[<>\"']", html.html)


@settings(max_examples=100, deadline=None)
@given(recipient=RECIPIENTS)
def test_nothing_missing_shows_its_placeholder(recipient: dict[str, Any]) -> None:
    recipient["attributes"] = {}
    use = "[{{ name }}{{ other.x.y }}{{ items[0].z }}{{ recipient.attributes.items }}{{ name|upper }}{{ t(other) }}]"
    for part, rendered in zip(("subject", "text", "html"), render(use, recipient), strict=True):
        assert isinstance(rendered, Rendered)
        assert getattr(rendered, part) == "[]"


@settings(max_examples=400, deadline=None)
@given(source=SCRAPS, recipient=RECIPIENTS)
def test_what_passes_validation_compiles_and_what_does_not_is_an_error(source: str, recipient: dict[str, Any]) -> None:
    problems = validate_content(channel="in_app", text=source)
    rendered = render(source, recipient)[1]
    if any(problem.code != "required" for problem in problems):
        assert isinstance(rendered, RenderError)
        assert rendered.reason == "template_error"


@settings(max_examples=200, deadline=None)
@given(locale=st.sampled_from(["de", "pl", "ar-EG", "nope"]) | st.text(max_size=6), messages=JSON)
def test_any_json_can_be_checked_as_a_catalogue(locale: str, messages: Any) -> None:
    for problem in validate_catalogue(locale=locale, messages=messages):
        assert problem.field
        assert problem.message

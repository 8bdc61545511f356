"""Locales, contents and catalogues as plain data: what fits a reader, and what is refused."""

import pytest
from babel import Locale

from schedules.content import (
    MAX_TRANSLATION,
    Content,
    babel_locale,
    locale_chain,
    normalise_locale,
    pick_content,
    read_catalogues,
    read_contents,
    translate,
    validate_catalogue,
    validate_content,
)

CATALOGUES = read_catalogues(
    [
        ("de_AT", {"month": "Jänner"}),
        ("de", {"month": "Januar", "points": {"one": "{count} Punkt", "other": "{count} Punkte"}}),
        ("en", {"month": "January", "hello": "Hello {name}!", "files": {"one": "one file", "other": "{count} files"}}),
        (
            "pl",
            {
                "files": {
                    "one": "{count} plik",
                    "few": "{count} pliki",
                    "many": "{count} plików",
                    "other": "{count} pliku",
                }
            },
        ),
    ]
)


def say(key: str, locale: str | None, **params: object) -> str | None:
    return translate(catalogues=CATALOGUES, key=key, locale=locale, default_locale="en", params=params)


def codes(**parts: str) -> list[tuple[str, str]]:
    return [(problem.field, problem.code) for problem in validate_content(**{"channel": "email", **parts})]


@pytest.mark.parametrize(
    ("locale", "chain"),
    [
        ("de-AT", ("de-AT", "de", "en", "")),
        ("de_at", ("de-AT", "de", "en", "")),
        ("DE-at", ("de-AT", "de", "en", "")),
        ("de_AT.UTF-8", ("de-AT", "de", "en", "")),
        ("ca-ES-valencia", ("ca-ES", "ca", "en", "")),
        ("zh-Hant-TW", ("zh-Hant-TW", "zh-Hant", "zh", "en", "")),
        ("es-419", ("es-419", "es", "en", "")),
        ("en-GB", ("en-GB", "en", "")),
        ("", ("en", "")),
        (None, ("en", "")),
        ("default", ("en", "")),
        ("deutsch!", ("en", "")),
    ],
)
def test_a_locale_falls_back_from_the_most_specific_to_the_default(locale: str | None, chain: tuple[str, ...]) -> None:
    assert locale_chain(locale=locale, default_locale="en") == chain


def test_a_locale_is_written_one_way() -> None:
    assert [normalise_locale(each) for each in ("DE_at", "zh_hant_tw", "x", "")] == ["de-AT", "zh-Hant-TW", "", ""]


def test_a_locale_unknown_to_cldr_formats_as_english() -> None:
    assert babel_locale(locale="xx-YY", default_locale="") == Locale("en")
    assert babel_locale(locale="de-XX", default_locale="fr") == Locale("de")


def test_the_most_specific_content_of_the_channel_is_picked() -> None:
    contents = read_contents(
        [
            {"channel": "push", "locale": "de-AT", "subject": "push", "text": None},
            {"channel": "email", "locale": "en", "subject": "english", "text": "x"},
            {"channel": "email", "locale": "DE", "subject": "deutsch", "text": "x"},
        ]
    )
    for locale, subject in (("de-AT", "deutsch"), ("fr", "english"), ("", "english"), (None, "english")):
        picked = pick_content(contents=contents, channel="email", locale=locale, default_locale="en")
        assert picked is not None
        assert picked.subject == subject


def test_a_content_without_a_locale_serves_whom_no_other_fits() -> None:
    contents = [Content("email", "default", "for all"), Content("email", "de", "deutsch")]
    picked = pick_content(contents=contents, channel="email", locale="fr", default_locale="en")
    assert picked is contents[0]


def test_no_content_is_picked_when_not_even_the_default_is_there() -> None:
    contents = [Content("email", "de", "deutsch")]
    assert pick_content(contents=contents, channel="email", locale="fr", default_locale="en") is None
    assert pick_content(contents=contents, channel="push", locale="de", default_locale="en") is None


def test_a_message_is_found_by_the_same_fallback() -> None:
    assert [say("month", each) for each in ("de-AT", "de-CH", "fr", None)] == ["Jänner", "Januar", "January", "January"]
    assert say("nowhere", "de") is None


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 plik"), (3, "3 pliki"), (5, "5 plików"), (22, "22 pliki"), (1.5, "1,5 pliku")]
)
def test_the_plural_form_follows_the_rules_of_the_locale(count: float, text: str) -> None:
    assert say("files", "pl-PL", count=count) == text


def test_the_plural_rules_are_those_of_the_locale_in_which_the_key_was_found() -> None:
    assert say("files", "de", count=1) == "one file"
    assert say("files", "ja", count=1) == "one file"  # Japanese itself has no "one"
    assert say("points", "de-AT", count=12_345) == "12.345 Punkte"


@pytest.mark.parametrize("count", ["many", None, True, float("nan"), float("inf"), 10**400])
def test_a_count_that_is_no_usable_number_takes_a_form_all_the_same(count: object) -> None:
    text = say("points", "de", count=count)
    assert text is not None
    assert "Punkt" in text


def test_a_placeholder_reaches_no_attribute_and_a_missing_one_is_empty() -> None:
    assert say("hello", "en", name="{0.__class__}{name}") == "Hello {0.__class__}{name}!"
    assert say("hello", "en") == "Hello !"
    evil = read_catalogues([("en", {"evil": "{name.__class__} {0[x]} {name!r}"})])
    text = translate(catalogues=evil, key="evil", locale="en", default_locale="en", params={"name": "Ann"})
    assert text == "{name.__class__} {0[x]} {name!r}"


def test_a_message_does_not_grow_without_bound() -> None:
    bomb = read_catalogues([("en", {"bomb": "{x}" * 3000})])
    with pytest.raises(ValueError, match="grows past"):
        translate(
            catalogues=bomb, key="bomb", locale="en", default_locale="en", params={"x": "y" * (MAX_TRANSLATION // 3)}
        )


def test_a_problem_names_field_and_line() -> None:
    (problem,) = validate_content(channel="email", subject="s", text="one\ntwo {% if %}", html="")
    assert (problem.field, problem.code) == ("text", "template_syntax")
    assert problem.message.startswith("line 2: ")


def test_a_block_left_open_is_found_at_save() -> None:
    assert codes(subject="s", text="{% if a %}") == [("text", "template_syntax")]
    assert codes(subject="s", text="{# a") == [("text", "template_syntax")]
    assert codes(subject="s", text="{{ " + "(" * 110 + "1 }}") == [("text", "template_syntax")]


def test_a_subject_is_one_line() -> None:
    for character in ("\n", "\r", "\x00", "\t", "\x85", "\u2028", "\u2029"):
        assert codes(subject=f"a{character}Bcc: b", text="x") == [("subject", "header_injection")]


def test_each_channel_needs_its_parts() -> None:
    assert codes(subject="s", html="<p>") == []
    assert codes(text="x") == [("subject", "required")]
    assert codes(subject="s", text=" ") == [("text", "required")]
    assert codes(channel="push", text="x") == []
    assert codes(channel="push") == [("text", "required")]
    assert codes(channel="push", subject="s", html="<p>") == [("html", "not_shown")]
    assert codes(channel="in_app", html="<p>") == []
    assert codes(channel="in_app") == [("text", "required")]
    assert codes(channel="fax") == [("channel", "unknown_channel")]


@pytest.mark.parametrize(
    ("subject", "text", "expected"),
    [
        ("x" * 96, "y" * 4000, []),
        ("x" * 97, "y" * 4000, [("text", "too_large")]),
        ("x" * 900, "ä" * 1600, [("text", "too_large")]),
        ("ä" * 900, "y" * 1790 + "{{ name }}" * 60 + "{# " + "z" * 5000 + " #}" + "y" * 506, []),
        ("ä" * 900, "y" * 1790 + "{{ name }}" * 60 + "{# " + "z" * 5000 + " #}" + "y" * 507, [("text", "too_large")]),
        ("Hi", "{{- name }}" + " " * 5000 + "{{- name }}", []),
        ("Hi", "{% if a %}" + "y" * 4000 + "{% else %}" + "z" * 4000 + "{% endif %}", []),
        ("{% if a %}" + "x" * 500 + "{% endif %}", "y" * 4097, [("text", "too_large")]),
    ],
)
def test_a_push_notification_that_can_never_fit_is_refused_at_save(
    subject: str, text: str, expected: list[tuple[str, str]]
) -> None:
    assert codes(channel="push", subject=subject, text=text) == expected
    assert codes(channel="in_app", subject=subject, text=text) == []


def test_a_push_notification_that_can_never_fit_names_the_sizes_and_the_longer_part() -> None:
    (problem,) = validate_content(channel="push", subject="x" * 900, text="y" * 4000)
    assert problem.field == "text"
    assert problem.message == "a push notification has at most 4,096 bytes; subject and text have 4,900: shorten it"


def test_parts_have_a_greatest_length() -> None:
    assert codes(subject="s" * 999, text="x" * 100_001, html="x" * 250_001) == [
        ("subject", "too_large"),
        ("text", "too_large"),
        ("html", "too_large"),
    ]


def test_a_good_catalogue_has_no_problems() -> None:
    messages = {"a": "Hello {name}", "b": {"one": "one", "few": "few", "many": "many", "other": "other"}}
    assert validate_catalogue(locale="pl_PL", messages=messages) == []


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], ("messages", "type")),
        ({"a": 3}, ("messages/a", "type")),
        ({"a": {"other": 3}}, ("messages/a", "type")),
        ({"a": {"one": "x"}}, ("messages/a", "plural_other")),
        ({"a": {"few": "x", "other": "y"}}, ("messages/a", "plural_category")),
        ({"a": "Hi {{ name }}"}, ("messages/a", "placeholder")),
        ({"a": "x" * 10_001}, ("messages/a", "too_large")),
        ({" ": "x"}, ("messages/ ", "key")),
    ],
)
def test_a_bad_message_is_named(messages: object, expected: tuple[str, str]) -> None:
    assert [(problem.field, problem.code) for problem in validate_catalogue(locale="de", messages=messages)] == [
        expected
    ]


def test_a_catalogue_of_an_unknown_locale_is_refused() -> None:
    for locale in ("", "xx", "deutsch"):
        assert [problem.field for problem in validate_catalogue(locale=locale, messages={})] == ["locale"]

"""What people read is in the German catalogue, whole; and no page has words that can't be translated."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog, Message
from django.utils import translation

from scheduler_project import catalogue

# For programmers, as the API is.
IN_ENGLISH = {"problems.html", "redoc.html"}
TEMPLATES = [
    path for path in sorted((catalogue.ROOT / "frontend" / "templates").rglob("*.html")) if path.name not in IN_ENGLISH
]
# Named alike in both languages.
NAMES = {"UTC", "API", "JSON", "CSV", "HTML", "Notification scheduler"}
SPOKEN = ("title", "aria-label", "placeholder", "alt")
Messages = dict[tuple[Any, Any], Message]


@pytest.fixture(scope="module")
def found() -> Messages:
    return by_key(catalogue.find())


@pytest.fixture(scope="module")
def kept() -> Messages:
    return by_key(catalogue.read())


def by_key(messages: Catalog) -> Messages:
    return {(message.context, message.id): message for message in messages if message.id}


def names(text: str) -> set[str]:
    """Placeholders of either kind, tags included: what a translation must hold too."""
    return set(re.findall(r"%\(\w+\)[sd]|\{\w*\}|<\w+[^>]*>|%[sd%]", text))


def forms(message: Message) -> list[tuple[str, str]]:
    """Each form of the translation with the original of it."""
    if isinstance(message.id, str):
        return [(message.id, str(message.string))]
    strings = message.string if isinstance(message.string, tuple) else (message.string, "")
    return list(zip(message.id, map(str, strings), strict=True))


def test_the_catalogue_has_every_string_and_no_other(found, kept):
    assert found.keys() - kept.keys() == set(), "make messages"
    assert kept.keys() - found.keys() == set(), "make messages"


def test_a_string_in_a_filter_or_an_include_is_found_too(found):
    assert (None, "Welcome back to") in found  # in an include of unfold
    assert (None, "Select record") in found  # in its code


def test_every_string_is_translated_with_the_same_placeholders(kept):
    untranslated = [message.id for message in kept.values() if message.fuzzy or not all(t for _, t in forms(message))]
    assert untranslated == []
    spoilt = [
        (original, german)
        for message in kept.values()
        for original, german in forms(message)
        if names(original) != names(german) and names(forms(message)[-1][0]) != names(german)
    ]
    assert spoilt == []


def test_a_translation_begins_and_ends_with_a_blank_where_the_original_does(kept):
    def edges(text: str) -> tuple[bool, bool]:
        return text[:1].isspace(), text[-1:].isspace()

    assert [pair for message in kept.values() for pair in forms(message) if edges(pair[0]) != edges(pair[1])] == []


def test_django_reads_what_was_compiled():
    with translation.override("de"):
        assert translation.gettext("Skip to content") == "Zum Inhalt springen"
        assert translation.gettext("Log out") == "Abmelden"


class _Words(HTMLParser):
    """Text and spoken attributes of a template from which Django's own marks were taken."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._is_silent = False

    def handle_starttag(self, tag, attributes):
        is_icon = "material-symbols-outlined" in (dict(attributes).get("class") or "")
        self._is_silent = is_icon or tag == "code"
        self.found += [value for name, value in attributes if name in SPOKEN and value]

    def handle_endtag(self, tag):
        self._is_silent = False

    def handle_data(self, data):
        if not self._is_silent:
            self.found.append(data)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_no_words_beside_those_that_are_translated(path: Path):
    source = path.read_text()
    for block in ("blocktranslate", "comment", "verbatim"):
        source = re.sub(rf"{{% {block}\b.*?{{% end{block} %}}", "", source, flags=re.S)
    source = re.sub(r"(</?)({%.*?%}.*?{% end\w+ %}|{{.*?}})", r"\1div", source)  # a tag that depends
    source = re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "", source, flags=re.S)
    parser = _Words()
    parser.feed(source)
    words = {text.strip(" \n·:.,()|#–—/") for text in parser.found}
    assert {text for text in words if re.search(r"[A-Za-z]{2}", text)} - NAMES == set()

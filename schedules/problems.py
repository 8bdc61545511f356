"""What can be wrong with something a person wrote, said in a way that a form, the API and a log can all show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Saying(str):
    """An English sentence that knows how it was made, so that a page can say it in another language.

    Whoever stores, logs or answers it has plain English and needs to know nothing of that. ``text`` is the key of the
    catalogue, with a ``%(name)s`` for each of ``values``, which may be sayings themselves. Without values the text
    holds no placeholders, and a ``%`` in it is one.
    """

    text: str
    values: Mapping[str, object]

    def __str__(self) -> str:
        return self  # else str(error) would forget how it was made


def say(text: str, /, **values: object) -> Saying:
    """``text`` with ``values`` in their places. An int is a quantity, grouped as the language does: 1,204."""
    shown = {name: f"{value:,}" if type(value) is int else value for name, value in values.items()}
    saying = Saying(text % shown if values else text)
    saying.text, saying.values = text, values
    return saying


def packed(words: str) -> Any:
    """JSON to keep a saying as, so that it can be said in each reader's language; any other text as it is."""
    if not isinstance(words, Saying):
        return words
    values = {name: packed(value) if isinstance(value, str) else value for name, value in words.values.items()}
    return [words.text, values]


def unpacked(kept: Any) -> str:
    """The inverse of ``packed``."""
    if not isinstance(kept, list):
        return str(kept)
    text, values = kept
    return say(text, **{name: unpacked(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a schedule, a template or a catalogue.

    `field` is the public name ("cron", "runAt", "email.de.subject", ...), `code` is stable and meant for
    programs, `message` says what is wrong and what to write instead.
    """

    field: str
    code: str
    message: str

"""What programs keep of a person besides the profile's own fields: their names and values, as people read them.

The names are the programs' own and have no translation: ``last_order_at`` is told as “Last order at”.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

from babel.dates import format_date
from django.utils.formats import number_format
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from frontend.instants import show

# Between the words of a name: what joins them, or a small letter before a capital.
_JOINTS = re.compile(r"[_\-\s.]+|(?<=[a-z0-9])(?=[A-Z])")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)")
# Years and short numbers stay as they are; longer ones are read by thousands.
_GROUPED_FROM = 10_000


class Attribute(NamedTuple):
    """``at``: the instant that the value is, if it is one; else ``words`` tell the value."""

    name: str
    label: str
    words: str
    at: datetime | None

    @property
    def is_renamed(self) -> bool:
        """Whether the name can't be told from the label."""
        return self.label.lower() != self.name.lower()


def in_words(attributes: Mapping[str, Any]) -> list[Attribute]:
    """Each by its label, in the order of their names."""
    return [
        Attribute(name, label(name), value_in_words(value), instant_of(value))
        for name, value in sorted(attributes.items())
    ]


def spoken(name: str) -> str:
    """Inside a sentence: ``lastOrderAt`` and ``last_order_at`` as “last order at”; “VIP” stays what it is."""
    words = [each if each.isupper() and len(each) > 1 else each.lower() for each in _JOINTS.split(name) if each]
    return " ".join(words) or name


def label(name: str) -> str:
    """Before a value, on its own: “Last order at”."""
    words = spoken(name)
    return words[0].upper() + words[1:]


def instant_of(value: Any) -> datetime | None:
    """The instant, where the value is written as one with its offset."""
    if not (isinstance(value, str) and _INSTANT.fullmatch(value)):
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def value_in_words(value: Any) -> str:
    """Any value that JSON has, without JSON; nothing is “—”."""
    if value in (None, "", [], {}):
        return "—"
    match value:
        case bool():
            return _("yes") if value else _("no")
        case int() | float():
            is_whole = isinstance(value, float) and value.is_integer()
            return str(number_format(int(value) if is_whole else value, force_grouping=abs(value) >= _GROUPED_FROM))
        case list():
            is_flat = not any(isinstance(each, list | dict) for each in value)
            return (", " if is_flat else "; ").join(map(value_in_words, value))
        case dict():
            return ", ".join(f"{spoken(str(name))}: {value_in_words(each)}" for name, each in value.items())
    at = instant_of(value)
    return show(at) if at else _day(str(value))


def _day(text: str) -> str:
    """A day as “November 21, 2026”; any other text as it is."""
    if not _DAY.fullmatch(text):
        return text
    try:
        return format_date(date.fromisoformat(text), "long", locale=(get_language() or "en").replace("-", "_"))
    except ValueError:
        return text

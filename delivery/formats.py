"""What a template's functions and filters write for one reader: in its language, by its customs and its clock.

A *value* that a filter cannot read gives an empty string, as if it were missing; an *argument* it cannot read
(a currency that does not exist) is an error.
"""

import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote

from babel import Locale, dates, numbers
from minijinja import Environment

from delivery.rendering_limits import MAX_RANGE, MAX_VALUE, RenderError, spend
from schedules.content import Catalogues, babel_locale, translate
from schedules.problems import say


class _Reader(threading.local):
    locale: str | None = None
    zone: tzinfo = UTC
    default_locale: str = ""
    catalogues: Catalogues = MappingProxyType({})
    missing: set[str] | None = None

    @property
    def spoken(self) -> Locale:
        return babel_locale(locale=self.locale, default_locale=self.default_locale)


_reader = _Reader()


class Moment:
    """A point in time as a template has it: printed, formatted, or one of its parts.

    Of a ``datetime`` itself each method would be a token that prints where in memory it lies.
    """

    _PARTS: Final = frozenset({"year", "month", "day", "hour", "minute", "second", "microsecond"})

    def __init__(self, at: datetime) -> None:
        self._at = at

    def __getattr__(self, name: str) -> Any:
        if name in self._PARTS:
            return getattr(self._at, name)
        if name == "tzinfo":
            return str(self._at.tzinfo or "")
        raise AttributeError(name)

    def __str__(self) -> str:
        return str(self._at)


def write_for(*, locale: str | None, zone: tzinfo, default_locale: str, catalogues: Catalogues) -> None:
    """From here on this thread writes for a reader of ``locale`` in ``zone``; no key is missing yet."""
    _reader.locale = locale
    _reader.zone = zone
    _reader.default_locale = default_locale
    _reader.catalogues = catalogues
    _reader.missing = None


def missing_keys() -> frozenset[str]:
    """Keys asked of ``t()`` since ``write_for`` that no catalogue has."""
    return frozenset(_reader.missing or ())


def add_to(environment: Environment) -> None:
    """Give the environment ``t``, ``range`` and the filters; what they write is charged to the part."""
    for name, function in FILTERS.items():
        environment.add_filter(name, _charged(function))
    for name, function in FUNCTIONS.items():
        environment.add_global(name, function)


def _charged(function: Callable[..., Any]) -> Callable[..., Any]:
    def charge(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, str):
            spend(len(result))
        return result

    return charge


# Functions


def _t(key: Any = None, /, **params: Any) -> str:
    if not isinstance(key, str):
        return ""
    try:
        text = translate(
            catalogues=_reader.catalogues,
            key=key,
            locale=_reader.locale,
            default_locale=_reader.default_locale,
            params=params,
        )
    except ValueError as error:
        raise RenderError("too_large", str(error)) from None
    if text is None:
        _reader.missing = {key} | (_reader.missing or set())
    spend(len(text or ""))
    return text or ""


def _range(*bounds: Any) -> list[int]:
    steps = range(*(0 if bound is None else bound for bound in bounds))
    if len(steps) > MAX_RANGE:
        raise RenderError("fuel_exhausted", say("range() has at most %(most)s steps", most=MAX_RANGE))
    return list(steps)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {"t": _t, "range": _range}


# Filters. A value they cannot read is an empty string; an argument they cannot read is an error.


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(text := str(value)) > 64:
        return None
    try:
        read = Decimal(text.strip())
    except InvalidOperation:
        return None
    # Babel writes out every digit: "1e999999999" would take all memory.
    return read if read.is_finite() and -30 < read.adjusted() < 30 else None


def _moment(value: Any) -> date | datetime | None:
    """A date, or a datetime in the recipient's zone, from itself or ISO 8601; without offset it is UTC."""
    try:
        if isinstance(value, Moment):
            value = value._at
        if isinstance(value, str):
            value = date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value[:40])
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(_reader.zone)
    except (ValueError, OverflowError):
        return None
    return value if isinstance(value, date) else None


def _formatted(kind: str, value: Any, argument: str | None) -> str:
    if value is None or argument is None:
        return ""
    try:
        return _format(kind, value, getattr(value, "tzinfo", None), _reader.spoken, argument)
    except (numbers.UnknownCurrencyError, ValueError, KeyError, AttributeError, TypeError) as error:
        # Neither value nor argument is named: both may come from the recipient.
        raise RenderError(
            "template_error", say("|%(kind)s cannot use its argument: %(error)s", kind=kind, error=type(error).__name__)
        ) from None


# Babel takes 10 to 40 us a value, and the recipients of a call share locales, zones and most dates. An instant is equal
# to itself in another zone, where it is written in another way: hence the zone.
@lru_cache(maxsize=8192)
def _format(kind: str, value: Any, _zone: tzinfo | None, locale: Locale, argument: str) -> str:
    return _FORMATS[kind](value, argument, locale)


def _currency(value: Any, code: str | None) -> str:
    return _formatted("currency", _number(value), code)


def _in_currency(value: Decimal, code: str, locale: Locale) -> str:
    numbers.validate_currency(code)
    return numbers.format_currency(value, code, locale=locale)


_FORMATS: Final[Mapping[str, Callable[[Any, str, Locale], str]]] = {
    "number": lambda value, _, locale: numbers.format_decimal(value, locale=locale),
    "percent": lambda value, _, locale: numbers.format_percent(value, locale=locale),
    "currency": _in_currency,
    "date": lambda value, style, locale: dates.format_date(value, style, locale=locale),
    "time": lambda value, style, locale: dates.format_time(value, style, tzinfo=value.tzinfo, locale=locale),
    "datetime": lambda value, style, locale: dates.format_datetime(value, style, tzinfo=value.tzinfo, locale=locale),
}


def _in_style(kind: str) -> Callable[..., str]:
    def write(value: Any, format: str | None = "medium") -> str:  # the name that template authors write
        moment = _moment(value)
        if isinstance(moment, datetime) or kind == "date":
            return _formatted(kind, moment, format if format is None else str(format)[:64])
        return ""

    return write


def _int(value: Any) -> int | str:
    read = _number(value)
    return "" if read is None else int(read)


def _float(value: Any) -> float | str:
    read = _number(value)
    return "" if read is None else float(read)


def _round(value: Any, digits: Any = 0) -> int | float | str:
    read, places = _number(value), _number(digits)
    if read is None or places is None or not 0 <= places <= 15:
        return ""
    return float(round(read, int(places))) if places else round(read)


def _abs(value: Any) -> int | float | str:
    read = _number(value)
    return "" if read is None else _plain(abs(read))


def _times(value: Any, factor: Any) -> int | float | str:
    read, by = _number(value), _number(factor)
    return "" if read is None or by is None else _plain(read * by)


def _plain(read: Decimal) -> int | float:
    return int(read) if read == read.to_integral_value() else float(read)


def _end(index: int) -> Callable[[Any], Any]:
    return lambda value: value[index] if isinstance(value, list | str) and len(value) else ""


_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # str.title() would write "Don'T"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _trim(value: Any, characters: str | None = None) -> str:
    return _text(value).strip(characters)


def _join(value: Any, separator: Any = "") -> str:
    return _bounded(_text(separator), [_text(item) for item in value]) if isinstance(value, list) else _text(value)


def _replace(value: Any, old: Any, new: Any) -> str:
    text, sought = _text(value), _text(old)
    return _bounded(_text(new), text.split(sought)) if sought else text


def _urlencode(value: Any) -> str:
    return _bounded("", [quote(_text(value), errors="replace")])


def _bounded(separator: str, pieces: list[str]) -> str:
    if sum(map(len, pieces)) + len(separator) * len(pieces) > MAX_VALUE:
        raise RenderError("too_large", say("a filter's result is longer than %(most)s characters", most=MAX_VALUE))
    return separator.join(pieces)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "number": lambda value: _formatted("number", _number(value), ""),
    "percent": lambda value: _formatted("percent", _number(value), ""),
    "currency": _currency,
    "upper": lambda value: _text(value).upper(),
    "lower": lambda value: _text(value).lower(),
    "capitalize": lambda value: _text(value).capitalize(),
    "title": lambda value: _WORD.sub(lambda word: word[0].capitalize(), _text(value)),
    "trim": _trim,
    "date": _in_style("date"),
    "time": _in_style("time"),
    "datetime": _in_style("datetime"),
    "first": _end(0),
    "last": _end(-1),
    "int": _int,
    "float": _float,
    "round": _round,
    "abs": _abs,
    "times": _times,
    "join": _join,
    "replace": _replace,
    "urlencode": _urlencode,
}

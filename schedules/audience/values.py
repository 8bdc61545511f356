"""Reads the value of a clause: type, bounds, and what to do about a wrong one.

Values are never repeated in a message: they may be somebody's data, and messages end in logs.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from schedules.audience.instants import read_instant
from schedules.audience.tree import Kind, Scalar, Value
from schedules.problems import say

CHANNELS = ("email", "push", "in_app")
MAX_TEXT = 256  # characters; longer than any column that can be asked about
MAX_VALUES = 1_000  # of one list
MAX_TAGS = 50  # of one list; a profile's tags are compared with each of them
MAX_NUMBER = 2**53 - 1  # what every JSON implementation reads alike (RFC 7493, section 2.2)
MAX_DURATION = timedelta(days=3_660)

_DURATION = re.compile("([1-9][0-9]{0,6})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class BadValue(ValueError):
    """`faults` are (pointer below the value, code, message); the pointer is `""` for the value as a whole."""

    def __init__(self, *faults: tuple[str, str, str]) -> None:
        self.faults = faults
        super().__init__(faults)


def read_value(kind: Kind, value: object) -> Value:
    """`value` as `kind` wants it. Raises BadValue with every fault of it."""
    return _READERS[kind](value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _wrong_type(Kind.TEXT)
    if not value:
        raise BadValue(("", "empty_value", say("The text is empty; to find who has none, use exists with false.")))
    return _checked(value)


def _checked(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise BadValue(
            (
                "",
                "too_long",
                say("The text has %(size)s characters; at most %(most)s are allowed.", size=len(text), most=MAX_TEXT),
            )
        )
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        message = say("The text holds a NUL or half a surrogate pair, which no profile can hold; remove it.")
        raise BadValue(("", "invalid_text", message))
    return text


def _scalar(value: object) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked(value)
    if isinstance(value, int | float):
        return _number(value)
    if value is None:
        message = say("null can't be compared; to find who has no such attribute, use exists with false.")
        raise BadValue(("", "wrong_type", message))
    raise _wrong_type(Kind.SCALAR)


def _number(value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(Kind.NUMBER)
    if isinstance(value, float) and not math.isfinite(value):
        raise BadValue(("", "not_finite", say("NaN and Infinity are no numbers of JSON; give a finite number.")))
    if abs(value) > MAX_NUMBER:
        message = say("The number must lie between -%(most)s and %(most)s.", most=str(MAX_NUMBER))
        raise BadValue(("", "out_of_range", message))
    # 1.0 and 1 are one number in JSON, and shall give one digest.
    return int(value) if value == int(value) else value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(Kind.BOOLEAN)
    return value


def _instant(value: object) -> datetime:
    instant = read_instant(value) if isinstance(value, str) else None
    if instant is None:
        raise _wrong_type(Kind.INSTANT)
    try:
        return instant.astimezone(UTC)
    except OverflowError:  # the last hours of the year 9999, west of Greenwich
        raise _wrong_type(Kind.INSTANT) from None


def _duration(value: object) -> timedelta:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise _wrong_type(Kind.DURATION)
    duration = int(found[1]) * _UNITS[found[2]]
    if duration > MAX_DURATION:
        message = say("The duration is longer than %(days)s days; shorten it.", days=MAX_DURATION.days)
        raise BadValue(("", "out_of_range", message))
    return duration


def _channel(value: object) -> str:
    if isinstance(value, str) and value in CHANNELS:
        return value
    raise BadValue(("", "unknown_channel", say("A channel is one of %(known)s.", known=", ".join(CHANNELS))))


def _list(
    kind: Kind, read_item: Callable[[object], Scalar], value: object, *, most: int = MAX_VALUES
) -> tuple[Scalar, ...]:
    if not isinstance(value, list):
        raise _wrong_type(kind)
    if not value:
        message = say("The list is empty; give at least one value, or leave the clause out.")
        raise BadValue(("", "empty_list", message))
    if len(value) > most:
        message = say(
            "The list has %(size)s values; at most %(most)s are allowed: give those people one tag.",
            size=len(value),
            most=most,
        )
        raise BadValue(("", "too_many_values", message))
    items: list[Scalar] = []
    faults: list[tuple[str, str, str]] = []
    for index, each in enumerate(value):
        try:
            items.append(read_item(each))
        except BadValue as bad:
            faults += [(f"/{index}{below}", code, message) for below, code, message in bad.faults]
    if faults:
        raise BadValue(*faults)
    # Python holds True == 1; JSON doesn't.
    return tuple({(isinstance(item, bool), item): item for item in items}.values())


def _wrong_type(kind: Kind) -> BadValue:
    return BadValue(("", "wrong_type", say("The value must be %(kind)s.", kind=kind.value)))


_READERS: Mapping[Kind, Callable[[object], Value]] = {
    Kind.TEXT: _text,
    Kind.TEXTS: lambda value: _list(Kind.TEXTS, _text, value),
    Kind.TAGS: lambda value: _list(Kind.TAGS, _text, value, most=MAX_TAGS),
    Kind.SCALAR: _scalar,
    Kind.SCALARS: lambda value: _list(Kind.SCALARS, _scalar, value),
    Kind.NUMBER: _number,
    Kind.BOOLEAN: _boolean,
    Kind.INSTANT: _instant,
    Kind.DURATION: _duration,
    Kind.CHANNEL: _channel,
    Kind.CHANNELS: lambda value: _list(Kind.CHANNELS, _channel, value),
}

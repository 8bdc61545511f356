"""What PostgreSQL can hold of texts and JSON, said before it is asked to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from schedules.problems import say

# More than anything that could run or be shown has.
DEEPEST = 32  # levels of nesting
LARGEST = 100_000  # keys and values in all
MAX_INTEGER = 2**53 - 1  # what every JSON implementation reads alike (RFC 7493, section 2.2)

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def text_fault(text: str) -> str:
    """What is wrong with a text and what to do; empty when it can be kept."""
    if _UNSTORABLE.search(text):
        return say("A text holds a NUL or half a surrogate pair, which can't be kept: remove it.")
    return ""


def json_fault(data: object) -> str:
    """What is wrong with decoded JSON of any type, depth and size, and what to do; empty when it can be kept."""
    for met, (value, depth) in enumerate(_walk(data)):
        if met >= LARGEST:
            return say("There are more than %(most)s keys and values: use fewer.", most=LARGEST)
        if depth > DEEPEST:
            return say("It is nested more than %(deepest)s levels deep: flatten it.", deepest=DEEPEST)
        if fault := _value_fault(value):
            return fault
    return ""


def _walk(data: object) -> Iterator[tuple[object, int]]:
    """Every key and value with its depth; no recursion, as the depth is anybody's."""
    waiting = [(data, 1)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                yield object(), depth
            waiting += [(each, depth + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list):
            waiting += [(each, depth + 1) for each in value]


def _value_fault(value: object) -> str:
    match value:
        case str():
            return text_fault(value)
        case float() if not math.isfinite(value):
            return say("NaN and Infinity are no numbers of JSON: give a finite number.")
        case int() if abs(value) > MAX_INTEGER:
            return say(
                "Whole numbers must lie between -%(most)s and %(most)s: use a text instead.", most=str(MAX_INTEGER)
            )
        case None | int() | float() | list() | dict():
            return ""
    return say("Use objects with texts as keys, lists, texts, numbers, true, false and null alone.")

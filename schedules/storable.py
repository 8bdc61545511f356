"""What PostgreSQL can hold of texts and JSON, said before it is asked to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

from schedules.problems import Problem, say

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
    return next((problem.message for problem in json_problems(data)), "")


def json_problems(data: object) -> Iterator[Problem]:
    """Each part of decoded JSON that can't be kept, at its JSON pointer (RFC 6901), as ``step`` writes it.

    A name that can't be kept is told at its member. What is too deep or too much ends it.
    """
    for met, (value, depth, place) in enumerate(_walk(data)):
        if met >= LARGEST:
            words = say("There are more than %(most)s keys and values: use fewer.", most=LARGEST)
            yield Problem("", "too_large", words)
            return
        if depth > DEEPEST:
            words = say("It is nested more than %(deepest)s levels deep: flatten it.", deepest=DEEPEST)
            yield Problem(_pointer(place), "too_deep", words)
            return
        if fault := _value_fault(value):
            yield Problem(_pointer(place), "invalid", fault)


def step(name: object) -> str:
    """A name as a step of a JSON pointer: its first 80 characters, with ? for halves of surrogate pairs."""
    return str(name)[:80].encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")


# The names and numbers that lead to a value, the last one first; None for the whole.
_Place = tuple["_Place", object] | None


def _pointer(place: _Place) -> str:
    steps = []
    while place:
        place, name = place
        steps.append(f"/{step(name)}")
    return "".join(reversed(steps))


def _walk(data: object) -> Iterator[tuple[object, int, _Place]]:
    """Every key and value with its depth and place; no recursion, as the depth is anybody's."""
    waiting: list[tuple[object, int, _Place]] = [(data, 1, None)]
    while waiting:
        value, depth, place = waiting.pop()
        yield value, depth, place
        inner: Iterable[tuple[object, object]] = ()
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                yield object(), depth, place
            inner = ((key, each) for key, pair in value.items() for each in (key, pair))
        elif isinstance(value, list):
            inner = enumerate(value)
        waiting += reversed([(each, depth + 1, (place, name)) for name, each in inner])


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

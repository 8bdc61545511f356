"""The audience language as docs/contracts/audience.md describes it: an evaluation without a line of the service's.

test = read({"field": "attributes.plan", "op": "eq", "value": "pro"}, now=now)
[person for person in people if test(person)]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

CHANNELS: Final = ("email", "push", "in_app")
_COLUMNS: Final = {"external_id": "external_id", "locale": "locale", "time_zone": "time_zone"}
_GROUPS: Final = frozenset({"all", "any", "not"})
_OPPOSITES: Final = {"ne": "eq", "not_in": "in"}
_DATED: Final = frozenset({"before", "after", "within_last"})
_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "gt": lambda held, value: held > value,
    "gte": lambda held, value: held >= value,
    "lt": lambda held, value: held < value,
    "lte": lambda held, value: held <= value,
}
_INSTANT: Final = re.compile(
    r"[1-9]\d{3}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d))?", re.ASCII
)
_DURATION: Final = re.compile(r"([1-9]\d{0,6})([mhdw])", re.ASCII)
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DEEPEST: Final = 20


class BadAudience(ValueError):
    """A query that isn't understood; `pointer` leads to where (RFC 6901)."""

    def __init__(self, pointer: str, words: str) -> None:
        super().__init__(words)
        self.pointer = pointer


class Person(NamedTuple):
    """What a query may ask of somebody. `channels`: those with an address and without an objection."""

    external_id: str
    locale: str
    time_zone: str
    created_at: datetime
    tags: frozenset[str]
    channels: frozenset[str]
    attributes: Mapping[str, Any]


Test = Callable[[Person], bool]


def read(query: object, *, now: datetime) -> Test:
    """Who belongs to the audience. Raises BadAudience."""
    return _node(query, now, "")


def instant(text: object) -> datetime | None:
    """An instant with its offset, or a date, which is its midnight in UTC; None for anything else."""
    if not isinstance(text, str) or not _INSTANT.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:  # the 30th of February
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _node(query: object, now: datetime, at: str) -> Test:
    if not isinstance(query, dict) or not query:
        raise BadAudience(at, "an object with something in it is needed")
    groups = query.keys() & _GROUPS
    if not groups:
        return _clause(query, now, at)
    if len(query) > 1 or at.count("/") > _DEEPEST:
        raise BadAudience(at, "a group is the only member of its object, and not nested without end")
    (group,) = groups
    if group == "not":
        inner = _node(query["not"], now, f"{at}/not")
        return lambda person: not inner(person)
    parts = query[group]
    if not isinstance(parts, list) or (group == "any" and not parts):
        raise BadAudience(f"{at}/{group}", "a list is needed, and any has at least one part")
    tests = [_node(part, now, f"{at}/{group}/{number}") for number, part in enumerate(parts)]
    if group == "all":
        return lambda person: all(test(person) for test in tests)
    return lambda person: any(test(person) for test in tests)


def _clause(query: Mapping[str, Any], now: datetime, at: str) -> Test:
    if query.keys() != {"field", "op", "value"}:
        raise BadAudience(at, "a clause has the members field, op and value, and no others")
    field, op, value = query["field"], query["op"], query["value"]
    if not isinstance(field, str) or not isinstance(op, str):
        raise BadAudience(at, "field and op are texts")
    test = _test(field, _OPPOSITES.get(op, op), value, now, at)
    return (lambda person: not test(person)) if op in _OPPOSITES else test


def _test(field: str, op: str, value: Any, now: datetime, at: str) -> Test:
    head, dot, name = field.partition(".")
    if head == "attributes" and dot and name:
        holds = _on_attribute(op, value, now, at)
        return lambda person: holds(person.attributes.get(name))
    if field == "created_at":
        holds = _on_instant(op, value, now, at)
        return lambda person: holds(person.created_at)
    if field in ("tags", "channels"):
        holds = _on_many(field, op, value, at)
        return lambda person: holds(getattr(person, field))
    if field in _COLUMNS:
        holds = _on_text(field, op, value, at)
        return lambda person: holds(getattr(person, field))
    raise BadAudience(f"{at}/field", "there is no such field")


def _on_text(field: str, op: str, value: Any, at: str) -> Callable[[Any], bool]:
    if op == "exists" and field != "external_id":
        wanted = _boolean(value, at)
        return lambda held: bool(held) is wanted
    if op == "in":
        among = frozenset(_texts(value, at))
        return lambda held: held in among
    if op == "eq":
        text = _text(value, at)
        return lambda held: bool(held == text)
    if op == "contains":
        text = _text(value, at)
        return lambda held: text in held
    if op == "starts_with":
        text = _text(value, at)
        return lambda held: bool(held.startswith(text))
    raise _no_such(op, at)


def _on_many(field: str, op: str, value: Any, at: str) -> Callable[[Any], bool]:
    if op == "exists" and field == "tags":
        wanted = _boolean(value, at)
        return lambda held: bool(held) is wanted
    if op not in ("contains", "in"):
        raise _no_such(op, at)
    among = frozenset(_texts(value, at) if op == "in" else [_text(value, at)])
    if field == "channels" and not among <= set(CHANNELS):
        raise BadAudience(f"{at}/value", "there is no such channel")
    return lambda held: not among.isdisjoint(held)


def _on_instant(op: str, value: Any, now: datetime, at: str) -> Callable[[Any], bool]:
    if op not in _DATED:
        raise _no_such(op, at)
    if op == "within_last":
        found = _DURATION.fullmatch(value) if isinstance(value, str) else None
        if not found:
            raise BadAudience(f"{at}/value", "a duration such as 30m, 24h, 7d or 2w is needed")
        try:
            since = now - timedelta(**{_UNITS[found[2]]: int(found[1])})
        except OverflowError:
            raise BadAudience(f"{at}/value", "a duration of at most a few thousand years is needed") from None
        return lambda held: bool(since <= held <= now)
    limit = instant(value)
    if limit is None:
        raise BadAudience(f"{at}/value", "an instant with its offset is needed")
    return (lambda held: bool(held < limit)) if op == "before" else (lambda held: bool(held > limit))


def _on_attribute(op: str, value: Any, now: datetime, at: str) -> Callable[[Any], bool]:
    if op in _DATED:
        holds = _on_instant(op, value, now, at)
        return lambda held: (found := instant(held)) is not None and holds(found)
    if op in _ORDERS:
        compare = _ORDERS[op]
        if not _is_number(value):
            raise BadAudience(f"{at}/value", "a number is needed")
        return lambda held: _is_number(held) and compare(held, value)
    if op == "exists":
        wanted = _boolean(value, at)
        return lambda held: (held is not None) is wanted
    if op == "starts_with":
        text = _text(value, at)
        return lambda held: isinstance(held, str) and held.startswith(text)
    if op == "in":
        if not isinstance(value, list) or not value:
            raise BadAudience(f"{at}/value", "a list of values is needed")
        return lambda held: any(_same(held, each) for each in value)
    if isinstance(value, list | dict) or value is None:
        raise BadAudience(f"{at}/value", "a text, a number, true or false is needed")
    if op == "eq":
        return lambda held: _same(held, value)
    if op == "contains":
        return lambda held: _contains(held, value)
    raise _no_such(op, at)


def _contains(held: Any, value: Any) -> bool:
    if isinstance(held, list):
        return any(_same(each, value) for each in held)
    return isinstance(held, str) and isinstance(value, str) and value in held


def _same(held: Any, value: Any) -> bool:
    """Of one JSON type and equal: 1 is 1.0, and neither "1" nor true."""
    if _is_number(held) and _is_number(value):
        return bool(held == value)
    return type(held) is type(value) and isinstance(held, str | bool) and held == value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadAudience(f"{at}/value", "a text that isn't empty is needed")
    return value


def _texts(value: Any, at: str) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) and each for each in value):
        raise BadAudience(f"{at}/value", "a list of texts is needed")
    return value


def _boolean(value: Any, at: str) -> bool:
    if not isinstance(value, bool):
        raise BadAudience(f"{at}/value", "true or false is needed")
    return value


def _no_such(op: str, at: str) -> BadAudience:
    return BadAudience(f"{at}/op", "this field has no such operator")

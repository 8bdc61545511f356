"""An audience query as a frozen tree, and the rules of its language.

A node is a group (`AllOf`, `AnyOf`, `Not`) or a `Clause`: one field, one operator, one value. Trees are made
by `parser.parse` alone, which has checked every bound, so whoever walks a tree may recurse. What the
operators mean is written down in `matching`; `compiler` says the same in SQL.

Nodes compare by value, and Python holds `1 == True`: compare two queries by `digest`, never by `==`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import assert_never

from schedules.problems import say

Scalar = str | bool | int | float
Value = Scalar | datetime | timedelta | tuple[Scalar, ...]


class Field(StrEnum):
    """What can be asked about. Addresses and device tokens are no fields, so that none reaches the audit."""

    EXTERNAL_ID = "external_id"
    LOCALE = "locale"
    TIME_ZONE = "time_zone"
    CREATED_AT = "created_at"
    TAGS = "tags"
    CHANNELS = "channels"
    ATTRIBUTE = "attributes"


class Operator(StrEnum):
    EQ = "eq"
    NE = "ne"
    IN = "in"
    NOT_IN = "not_in"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"
    EXISTS = "exists"
    BEFORE = "before"
    AFTER = "after"
    WITHIN_LAST = "within_last"


class Kind(Enum):
    """Type of an operator's value, as the parser reads it."""

    TEXT = say("a text that isn't empty")
    TEXTS = say("a list of texts")
    TAGS = say("a list of tags")
    SCALAR = say("a text, a number, true or false")
    SCALARS = say("a list of texts, numbers, true or false")
    NUMBER = say("a number")
    BOOLEAN = say("true or false")
    INSTANT = say('an instant with its offset, such as "2026-03-01T09:00:00Z"')
    DURATION = say('a number of minutes, hours, days or weeks, such as "30m", "24h", "7d" or "2w"')
    CHANNEL = say("a channel")
    CHANNELS = say("a list of channels")


_COMPARED = {
    Operator.EQ: Kind.TEXT,
    Operator.NE: Kind.TEXT,
    Operator.IN: Kind.TEXTS,
    Operator.NOT_IN: Kind.TEXTS,
    Operator.CONTAINS: Kind.TEXT,
    Operator.STARTS_WITH: Kind.TEXT,
}
_DATED = {
    Operator.BEFORE: Kind.INSTANT,
    Operator.AFTER: Kind.INSTANT,
    Operator.WITHIN_LAST: Kind.DURATION,
}

# Which operator fits which field, and what its value must be. Anything else is refused.
RULES: Mapping[Field, Mapping[Operator, Kind]] = MappingProxyType(
    {
        Field.EXTERNAL_ID: _COMPARED,
        Field.LOCALE: _COMPARED | {Operator.EXISTS: Kind.BOOLEAN},
        Field.TIME_ZONE: _COMPARED | {Operator.EXISTS: Kind.BOOLEAN},
        Field.CREATED_AT: _DATED,
        Field.TAGS: {
            Operator.CONTAINS: Kind.TEXT,
            Operator.IN: Kind.TAGS,
            Operator.NOT_IN: Kind.TAGS,
            Operator.EXISTS: Kind.BOOLEAN,
        },
        Field.CHANNELS: {
            Operator.CONTAINS: Kind.CHANNEL,
            Operator.IN: Kind.CHANNELS,
            Operator.NOT_IN: Kind.CHANNELS,
        },
        Field.ATTRIBUTE: {
            Operator.EQ: Kind.SCALAR,
            Operator.NE: Kind.SCALAR,
            Operator.IN: Kind.SCALARS,
            Operator.NOT_IN: Kind.SCALARS,
            Operator.GT: Kind.NUMBER,
            Operator.GTE: Kind.NUMBER,
            Operator.LT: Kind.NUMBER,
            Operator.LTE: Kind.NUMBER,
            Operator.CONTAINS: Kind.SCALAR,
            Operator.STARTS_WITH: Kind.TEXT,
            Operator.EXISTS: Kind.BOOLEAN,
            **_DATED,
        },
    }
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One test. `attribute` is the attribute's name where `field` is ATTRIBUTE, else empty."""

    field: Field
    operator: Operator
    value: Value
    attribute: str = ""


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part holds. Without parts: everyone."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part holds. Never without parts."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    part: "Node"


Node = AllOf | AnyOf | Not | Clause
EVERYONE = AllOf(())


def to_json(node: Node) -> dict[str, object]:
    """The canonical JSON of a tree: `parse(to_json(node))` gives the same tree again."""
    match node:
        case AllOf(parts):
            return {"all": [to_json(part) for part in parts]}
        case AnyOf(parts):
            return {"any": [to_json(part) for part in parts]}
        case Not(part):
            return {"not": to_json(part)}
        case Clause():
            name = f"{node.field}.{node.attribute}" if node.attribute else str(node.field)
            return {"field": name, "op": str(node.operator), "value": _value_to_json(node.value)}
    assert_never(node)


def digest(node: Node) -> str:
    """SHA-256 of the canonical JSON, in hex: queries with one digest and one `now` share one audience."""
    text = json.dumps(to_json(node), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _value_to_json(value: Value) -> object:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return _duration_to_json(value)
    return value


def _duration_to_json(value: timedelta) -> str:
    minutes = int(value.total_seconds()) // 60
    if minutes % (24 * 60) == 0:
        return f"{minutes // (24 * 60)}d"
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"

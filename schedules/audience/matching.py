"""Whether one profile belongs to an audience: the meaning of the language, in memory.

`compiler` says the same in SQL; a property test holds the two equal. A test is true or false, never unknown:

| operator | on an attribute | elsewhere |
|---|---|---|
| eq | equal and of one JSON type: 1 is 1.0, but neither "1" nor true | equal |
| ne | not eq, hence true where absent | not eq |
| in | eq to one of the values | equal to one; tags, channels: has one of them |
| not_in | not in, hence true where absent | not in |
| gt gte lt lte | a number, compared | - |
| contains | a text with this part, or a list with this element | has this part; tags, channels: has it |
| starts_with | a text that begins so | begins so |
| exists | present and not null; with false: absent or null | not empty; with false: empty |
| before after | an instant strictly before, after; a date is its midnight in UTC | likewise |
| within_last | now - value <= the instant <= now | likewise |

An attribute that is absent or of another type fails the test, whence `ne` and `not_in` are true of it. Texts
are compared as they are, by code point: case counts, and nothing is normalised. Lists and objects equal
nothing. An empty locale or time zone is absent.
"""

import operator as python
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never, cast

from schedules.audience.instants import read_instant_or_date
from schedules.audience.tree import AllOf, AnyOf, Clause, Field, Node, Not, Operator, Scalar

# Each of these is the plain opposite of another, so that nothing is neither.
OPPOSITES: Mapping[Operator, Operator] = {Operator.NE: Operator.EQ, Operator.NOT_IN: Operator.IN}

_COMPARISONS: Mapping[Operator, Callable[[float, float], bool]] = {
    Operator.GT: python.gt,
    Operator.GTE: python.ge,
    Operator.LT: python.lt,
    Operator.LTE: python.le,
}
_DATED = frozenset((Operator.BEFORE, Operator.AFTER, Operator.WITHIN_LAST))


@dataclass(frozen=True, slots=True)
class Profile:
    """What an audience query may see of a recipient. `channels` come from `reachable_channels`."""

    external_id: str
    locale: str
    time_zone: str
    created_at: datetime
    tags: Collection[str]
    channels: Collection[str]
    attributes: Mapping[str, object]


def reachable_channels(*, has_email: bool, has_device: bool, consent: Mapping[str, object]) -> frozenset[str]:
    """The channels that a recipient can be reached on: addressable (in-app always is) and not opted out of.

    `consent` maps a channel to a boolean; absent means no objection. `has_device`: at least one is active.
    """
    addressable = {"email": has_email, "push": has_device, "in_app": True}
    return frozenset(name for name, given in addressable.items() if given and consent.get(name) is not False)


def matches(node: Node, profile: Profile, *, now: datetime) -> bool:
    """Whether `profile` belongs to the audience at `now` (aware), which only `within_last` looks at."""
    match node:
        case AllOf(parts):
            return all(matches(part, profile, now=now) for part in parts)
        case AnyOf(parts):
            return any(matches(part, profile, now=now) for part in parts)
        case Not(part):
            return not matches(part, profile, now=now)
        case Clause(operator=operator) if operator in OPPOSITES:
            return not _holds(node, OPPOSITES[operator], profile, now)
        case Clause():
            return _holds(node, node.operator, profile, now)
    assert_never(node)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one node of a query is true of a profile. `pointer` leads to it in the query's JSON (RFC 6901).

    `decides`: the answer of the whole query hangs on it: of a group that fails, the parts that fail. `held` is what the
    profile has where a clause asks, None for groups.
    """

    pointer: str
    node: Node
    holds: bool
    decides: bool
    held: object = None


def verdicts(node: Node, profile: Profile, *, now: datetime) -> list[Verdict]:
    """The verdict of each node of a query as canonical JSON has them, the whole query first."""
    found: list[Verdict] = []
    _judge(node, profile, now, pointer="", decides=True, found=found)
    return found


def _judge(node: Node, profile: Profile, now: datetime, *, pointer: str, decides: bool, found: list[Verdict]) -> None:
    holds = matches(node, profile, now=now)
    held = _held(node, profile) if isinstance(node, Clause) else None
    found.append(Verdict(pointer, node, holds, decides, held))
    for below, part in _parts(node):
        # Of all that must hold, one that fails decides, and with none that fails each; of any, the other way round.
        agrees = isinstance(node, Not) or matches(part, profile, now=now) is holds
        _judge(part, profile, now, pointer=f"{pointer}/{below}", decides=decides and agrees, found=found)


def _parts(node: Node) -> list[tuple[str, Node]]:
    match node:
        case AllOf(parts):
            return [(f"all/{index}", part) for index, part in enumerate(parts)]
        case AnyOf(parts):
            return [(f"any/{index}", part) for index, part in enumerate(parts)]
        case Not(part):
            return [("not", part)]
        case Clause():
            return []
    assert_never(node)


def _held(clause: Clause, profile: Profile) -> object:
    if clause.field is Field.ATTRIBUTE:
        return profile.attributes.get(clause.attribute)
    value: object = getattr(profile, clause.field.value)
    return sorted(cast("Collection[str]", value)) if clause.field in (Field.TAGS, Field.CHANNELS) else value


def _holds(clause: Clause, operator: Operator, profile: Profile, now: datetime) -> bool:
    match clause.field:
        case Field.ATTRIBUTE:
            return _attribute_holds(clause, operator, profile.attributes.get(clause.attribute), now)
        case Field.TAGS:
            return _collection_holds(clause, operator, profile.tags)
        case Field.CHANNELS:
            return _collection_holds(clause, operator, profile.channels)
        case Field.CREATED_AT:
            return _instant_holds(clause, operator, profile.created_at, now)
        case Field.EXTERNAL_ID:
            return _text_holds(clause, operator, profile.external_id)
        case Field.LOCALE:
            return _text_holds(clause, operator, profile.locale)
        case Field.TIME_ZONE:
            return _text_holds(clause, operator, profile.time_zone)
    assert_never(clause.field)


def _text_holds(clause: Clause, operator: Operator, text: str) -> bool:
    match operator:
        case Operator.EQ:
            return text == clause.value
        case Operator.IN:
            return text in cast("tuple[str, ...]", clause.value)
        case Operator.CONTAINS:
            return cast("str", clause.value) in text
        case Operator.STARTS_WITH:
            return text.startswith(cast("str", clause.value))
        case Operator.EXISTS:
            return bool(text) is clause.value
    raise TypeError(f"the parser lets no {operator} through on {clause.field}")


def _collection_holds(clause: Clause, operator: Operator, held: Collection[str]) -> bool:
    match operator:
        case Operator.CONTAINS:
            return clause.value in held
        case Operator.IN:
            return any(value in held for value in cast("tuple[str, ...]", clause.value))
        case Operator.EXISTS:
            return bool(held) is clause.value
    raise TypeError(f"the parser lets no {operator} through on {clause.field}")


def _instant_holds(clause: Clause, operator: Operator, instant: datetime, now: datetime) -> bool:
    match operator:
        case Operator.BEFORE:
            return instant < cast("datetime", clause.value)
        case Operator.AFTER:
            return instant > cast("datetime", clause.value)
        case Operator.WITHIN_LAST:
            return now - cast("timedelta", clause.value) <= instant <= now
    raise TypeError(f"the parser lets no {operator} through on {clause.field}")


def _attribute_holds(clause: Clause, operator: Operator, held: object, now: datetime) -> bool:
    if operator in _COMPARISONS:
        # Exact between int and float. A query's numbers are bounded, so that it makes no difference that
        # PostgreSQL compares what is written, and Python a float's bits.
        return _is_number(held) and _COMPARISONS[operator](cast("float", held), cast("float", clause.value))
    if operator in _DATED:
        instant = read_instant_or_date(held) if isinstance(held, str) else None
        return instant is not None and _instant_holds(clause, operator, instant, now)
    match operator:
        case Operator.EQ:
            return _same(held, clause.value)
        case Operator.IN:
            values = cast("tuple[Scalar, ...]", clause.value)
            return held in values if isinstance(held, str) else any(_same(held, value) for value in values)
        case Operator.CONTAINS if isinstance(held, list):
            return any(_same(element, clause.value) for element in held)
        case Operator.CONTAINS:
            return isinstance(held, str) and isinstance(clause.value, str) and clause.value in held
        case Operator.STARTS_WITH:
            return isinstance(held, str) and held.startswith(cast("str", clause.value))
        case Operator.EXISTS:
            return (held is not None) is clause.value
    raise TypeError(f"the parser lets no {operator} through on {clause.field}")


def _same(held: object, value: object) -> bool:
    """Equality of JSON scalars. Python's own holds True == 1."""
    if _is_number(held) and _is_number(value):
        return held == value
    return type(held) is type(value) and isinstance(held, str | bool) and held == value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

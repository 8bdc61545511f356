"""What profiles say, so that whoever writes a query is offered what there is: names of attributes, values, zones.

Read off the latest profiles, never all of them: it suggests and decides nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from schedules.audience.parser import InvalidAudience, parse
from schedules.models import Recipient

READ = 1_000
# Values offered for one field; a text that nearly everybody has another value of (a name) is not suggested.
OFFERED = 30
_TOO_MANY = 200


@dataclass(frozen=True)
class Vocabulary:
    """``attributes``: name to the types of its values (``str``, ``bool``, ``float`` for any number, ``list``).

    ``values``: by field as in a query (``locale``, ``tags``, ``attributes.plan``), texts, the most frequent first.
    """

    attributes: Mapping[str, frozenset[type]] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def seen() -> Vocabulary:
    """One statement on the primary key's end."""
    kinds: dict[str, set[type]] = defaultdict(set)
    values: dict[str, Counter[str]] = defaultdict(Counter)
    rows = Recipient.objects.order_by("-pk").values_list("locale", "time_zone", "tags", "attributes")
    for locale, time_zone, tags, attributes in rows[:READ]:
        values["locale"][locale] += 1
        values["time_zone"][time_zone] += 1
        values["tags"].update(tags)
        for name, value in attributes.items():
            kinds[name].add(_kind(value))
            if isinstance(value, str):
                values[f"attributes.{name}"][value] += 1
    known = {name: frozenset(types) for name, types in sorted(kinds.items()) if _is_askable(name)}
    return Vocabulary(known, {name: _frequent(counted) for name, counted in values.items()})


def _kind(value: object) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _is_askable(name: str) -> bool:
    try:
        parse({"field": f"attributes.{name}", "op": "exists", "value": True})
    except InvalidAudience:
        return False
    return True


def _frequent(counted: Counter[str]) -> tuple[str, ...]:
    if len(counted) > _TOO_MANY:
        return ()
    return tuple(value for value, _ in counted.most_common(OFFERED) if value)

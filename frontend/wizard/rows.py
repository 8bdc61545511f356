"""An audience query as rows on a page: field, operator, value, with ALL or ANY and one nested level.

The tree of ``schedules.audience`` stays the one source of truth: rows are made from a query and become one again, and
a query that would not come back the same is not shown as rows. What a reader types for an attribute is a text, a
number or true and false as the profiles have it; in double quotes it is a text for certain.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from schedules.audience.parser import MAX_NODES, InvalidAudience, parse
from schedules.audience.tree import RULES, AllOf, AnyOf, Field, Kind, Node, Operator, digest
from schedules.audience.vocabulary import Vocabulary
from schedules.recurrence import due_instant, zone

ATTRIBUTE = f"{Field.ATTRIBUTE}."
OTHER = f"{ATTRIBUTE}*"  # an attribute whose name is typed
UNITS = {"m": 1, "h": 60, "d": 24 * 60, "w": 7 * 24 * 60}
_LISTS = frozenset({Kind.TEXTS, Kind.TAGS, Kind.SCALARS, Kind.CHANNELS})
_NUMBER = re.compile(r"[+-]?(\d{1,16}|\d{1,16}[.,]\d{1,16})")
_MINUTE = "%Y-%m-%dT%H:%M"


@dataclass(frozen=True)
class Row:
    """``group``: 0 for the top level, else the number of a nested group. ``attribute`` where ``field`` is OTHER."""

    field: str = ""
    op: str = ""
    value: str = ""
    unit: str = "d"
    attribute: str = ""
    group: int = 0

    @property
    def name(self) -> str:
        """The field as a query names it."""
        return f"{ATTRIBUTE}{self.attribute.strip()}" if self.field == OTHER else self.field

    @property
    def rules(self) -> Mapping[Operator, Kind]:
        base = Field.ATTRIBUTE if self.field.startswith(ATTRIBUTE) else self.field
        return RULES[Field(base)] if base in list(Field) else {}

    @property
    def kind(self) -> Kind | None:
        return self.rules.get(Operator(self.op)) if self.op in list(Operator) else None


@dataclass(frozen=True)
class Rows:
    """``matches``: “all” or “any” of the top level and of each nested group, in their order."""

    rows: tuple[Row, ...] = ()
    matches: tuple[str, ...] = ("all",)

    def of(self, group: int) -> list[tuple[int, Row]]:
        return [(number, row) for number, row in enumerate(self.rows) if row.group == group]

    def with_row(self, group: int) -> "Rows":
        return replace(self, rows=(*self.rows, Row(group=group)))

    def with_group(self) -> "Rows":
        grown = replace(self, matches=(*self.matches, "any" if self.matches[0] == "all" else "all"))
        return grown.with_row(len(self.matches))

    def without_row(self, number: int) -> "Rows":
        """A nested group goes with its last row."""
        left = tuple(row for index, row in enumerate(self.rows) if index != number)
        gone = {row.group for row in self.rows} - {row.group for row in left} - {0}
        return replace(self, rows=left).without_group(gone.pop()) if gone else replace(self, rows=left)

    def without_group(self, group: int) -> "Rows":
        left = (row for row in self.rows if row.group != group)
        rows = tuple(replace(row, group=row.group - 1) if row.group > group else row for row in left)
        return Rows(rows, tuple(each for number, each in enumerate(self.matches) if number != group))


@dataclass(frozen=True)
class Read:
    """A query made of rows; ``places``: which row stands at which JSON pointer."""

    query: dict[str, Any]
    places: Mapping[str, int] = field(default_factory=dict)

    def row_at(self, pointer: str) -> int | None:
        found = [place for place in self.places if pointer == place or pointer.startswith(f"{place}/")]
        return self.places[max(found, key=len)] if found else None


def to_query(rows: Rows, *, vocabulary: Vocabulary, time_zone: str) -> Read:
    """The query that ``rows`` mean, right or wrong: the parser says what is wrong with it, by pointer."""
    places: dict[str, int] = {}
    parts: list[dict[str, Any]] = []
    for number, row in rows.of(0):
        places[f"/{rows.matches[0]}/{len(parts)}"] = number
        parts.append(_clause(row, vocabulary, time_zone))
    for group, match in enumerate(rows.matches[1:], start=1):
        inside = rows.of(group)
        if not inside:
            continue
        for position, (number, _row) in enumerate(inside):
            places[f"/{rows.matches[0]}/{len(parts)}/{match}/{position}"] = number
        parts.append({match: [_clause(row, vocabulary, time_zone) for _, row in inside]})
    return Read({rows.matches[0]: parts}, places)


def to_rows(query: Mapping[str, Any], *, vocabulary: Vocabulary, time_zone: str) -> Rows | None:
    """The rows that show ``query``; None where rows can't say what it says."""
    try:
        tree = parse(query)
        rows = _rows(query, vocabulary, time_zone)
        if rows is None or len(rows.rows) > MAX_NODES:
            return None
        again = parse(to_query(rows, vocabulary=vocabulary, time_zone=time_zone).query)
    except (InvalidAudience, ValueError, TypeError, OverflowError):
        return None
    top = parse({"all": [query]}) if "all" not in query and "any" not in query else tree
    return rows if _meaning(again) == _meaning(top) else None


def _meaning(tree: Node) -> str:
    """The same for two trees that differ in the order within their groups alone."""
    if not isinstance(tree, AllOf | AnyOf):
        return digest(tree)
    return json.dumps([type(tree).__name__, *sorted(_meaning(part) for part in tree.parts)])


def _rows(query: Mapping[str, Any], vocabulary: Vocabulary, time_zone: str) -> Rows | None:
    match = next((key for key in ("all", "any") if key in query), "")
    parts = query[match] if match else [query]
    found: list[Row] = []
    matches = [match or "all"]
    for part in parts:
        nested = next((key for key in ("all", "any") if key in part), "")
        if "not" in part or any("field" not in each for each in (part[nested] if nested else [part])):
            return None
        if nested:
            matches.append(nested)
        group = len(matches) - 1 if nested else 0
        for each in part[nested] if nested else [part]:
            row = _row(each, group, vocabulary, time_zone)
            if row is None:
                return None
            found.append(row)
    return Rows(tuple(found), tuple(matches))


def _row(clause: Mapping[str, Any], group: int, vocabulary: Vocabulary, time_zone: str) -> Row | None:
    row = Row(field=clause["field"], op=clause["op"], group=group)
    if row.field.startswith(ATTRIBUTE) and row.field.removeprefix(ATTRIBUTE) not in vocabulary.attributes:
        row = replace(row, field=OTHER, attribute=row.field.removeprefix(ATTRIBUTE))
    value = clause["value"]
    match row.kind:
        case None:
            return None
        case Kind.BOOLEAN:
            return replace(row, value="yes" if value else "no")
        case Kind.DURATION:
            return replace(row, value=value[:-1], unit=value[-1])
        case Kind.INSTANT:
            local = datetime.fromisoformat(value).astimezone(zone(time_zone))
            return replace(row, value=local.strftime(_MINUTE))
        case kind if kind in _LISTS:
            return replace(row, value=_joined([_shown(each, kind, row, vocabulary) for each in value]))
        case kind:
            return replace(row, value=_shown(value, kind, row, vocabulary))


def _clause(row: Row, vocabulary: Vocabulary, time_zone: str) -> dict[str, Any]:
    return {"field": row.name, "op": row.op, "value": _value(row, vocabulary, time_zone)}


def _value(row: Row, vocabulary: Vocabulary, time_zone: str) -> Any:
    """As the operator wants it; what can't be read stays a text, which the parser refuses in words."""
    text, types = row.value.strip(), vocabulary.attributes.get(row.name.removeprefix(ATTRIBUTE), frozenset())
    match row.kind:
        case Kind.BOOLEAN:
            return {"yes": True, "no": False}.get(text, text)
        case Kind.NUMBER:
            return _number(text)
        case Kind.DURATION:
            return f"{text}{row.unit}"
        case Kind.INSTANT:
            return _instant(text, time_zone)
        case Kind.SCALAR:
            return _scalar(text, types)
        case Kind.SCALARS:
            return [_scalar(each, types, quoted=quoted) for each, quoted in _split(text)]
        case Kind.TEXTS | Kind.TAGS | Kind.CHANNELS:
            return [each for each, _ in _split(text)]
    return text


def _number(text: str) -> int | float | str:
    if not _NUMBER.fullmatch(text):
        return text
    text = text.replace(",", ".")
    return float(text) if "." in text else int(text)


def _instant(text: str, time_zone: str) -> str:
    try:
        wall = datetime.fromisoformat(text)
        return due_instant(wall, time_zone).astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return text


def _scalar(text: str, types: frozenset[type], *, quoted: bool = False) -> str | bool | int | float:
    if quoted:
        return text
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    if text in ("true", "false") and types != {str}:
        return text == "true"
    return _number(text) if types != {str} else text


def _shown(value: Any, kind: Kind, row: Row, vocabulary: Vocabulary) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    types = vocabulary.attributes.get(row.name.removeprefix(ATTRIBUTE), frozenset())
    if kind in (Kind.SCALAR, Kind.SCALARS) and (_scalar(value, types) != value or value != value.strip()):
        return f'"{value}"'
    return value


def _split(text: str) -> list[tuple[str, bool]]:
    """Values between commas, and whether they stood in quotes, where a comma is one of their own."""
    found = []
    for match in re.finditer(r'\s*(?:"((?:[^"]|"")*)"|([^,]*))\s*(?:,|$)', text):
        quoted, plain = match.groups()
        if quoted is not None or plain.strip():
            found.append((quoted.replace('""', '"'), True) if quoted is not None else (plain.strip(), False))
    return found


def _joined(values: Sequence[str]) -> str:
    """The inverse of ``_split``: a value with a comma stands in quotes."""
    return ", ".join(
        value if value[:1] == value[-1:] == '"' or "," not in value else '"' + value.replace('"', '""') + '"'
        for value in values
    )

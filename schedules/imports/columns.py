"""What the header of a CSV file means.

A name is read without regard to case, spaces, `_`, `-` and `.`: "External ID" is `external_id`. What is none of ours
is an attribute of that name, with its type behind a colon: `age:number`. Consent to a topic in a channel has both
behind dots: `consent.news.email`; `consent` alone holds all of it as a JSON object.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from schedules.audience.parser import ATTRIBUTE_NAME
from schedules.consents import TOPIC_KEY, key
from schedules.imports.lines import Unreadable
from schedules.imports.rows import Column
from schedules.imports.values import CHANNELS, TYPES, AttributeReader, as_inferred, as_text
from schedules.problems import say

# A field's own name first: where it stands, the synonyms beside it are attributes.
NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "external_id": ("externalid", "id", "userid", "customerid", "contactid", "subscriberid", "recipientid"),
    "email": ("email", "emailaddress", "mail"),
    "locale": ("locale", "language"),
    "time_zone": ("timezone", "tz"),
    "tags": ("tags",),
    "quiet_hours": ("quiethours",),
    "devices": ("devices",),
    "attributes": ("attributes",),
    "consent": ("consent",),
    **{f"consent_{channel}": (f"consent{channel.replace('_', '')}",) for channel in CHANNELS},
}
_FIELD_OF = {plain: field for field, names in NAMES.items() for plain in names}
_PREFIX = "attributes."
_OF_TOPIC = re.compile(rf"consent\.({TOPIC_KEY.pattern})\.({'|'.join(CHANNELS)})", re.ASCII)
_OF_CHANNEL = "consent_"


@dataclass(frozen=True, slots=True)
class Attribute:
    index: int
    name: str
    read: AttributeReader


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a record each field stands. ``renamed``: column to attribute, where the two names differ."""

    fields: Mapping[str, int]
    attributes: tuple[Attribute, ...]
    nameless: tuple[int, ...]
    renamed: Mapping[str, str]
    columns: tuple[Column, ...]


@lru_cache(maxsize=1_000)  # NDJSON asks for each key of each line
def field_of(name: str) -> str | None:
    """The field of ours that ``name`` means, if any."""
    if found := _OF_TOPIC.fullmatch(name.strip().casefold()):
        return found[0]
    return _FIELD_OF.get(_plain(name))


def consent_key(field: str) -> str:
    """Under which a profile's consent has what stands in this field; empty for one that is no consent."""
    if found := _OF_TOPIC.fullmatch(field):
        return key(found[2], found[1])
    return field.removeprefix(_OF_CHANNEL) if field.startswith(_OF_CHANNEL) else ""


def read_header(cells: Sequence[str], *, infer_types: bool) -> Layout:
    """The layout that a header gives. Raises ``Unreadable``, naming the column and the remedy."""
    names = [cell.strip() for cell in cells]
    fields = _fields(names)
    if "external_id" not in fields:
        raise Unreadable(
            say(
                "has no column external_id (columns: %(shown)s): name the one that identifies a person so, or "
                "%(known)s",
                shown=_shown(names),
                known=", ".join(_spelt(NAMES["external_id"][1:])),
            )
        )
    taken = set(fields.values())
    attributes = tuple(
        _attribute(index, name, infer_types) for index, name in enumerate(names) if name and index not in taken
    )
    _refuse_repeated(attributes, names)
    return Layout(
        fields=fields,
        attributes=attributes,
        nameless=tuple(index for index, name in enumerate(names) if not name),
        renamed={names[each.index]: each.name for each in attributes if each.name not in _bare(names[each.index])},
        columns=_columns(names, fields, attributes),
    )


def _columns(names: Sequence[str], fields: Mapping[str, int], attributes: Sequence[Attribute]) -> tuple[Column, ...]:
    kinds = {read: kind for kind, read in TYPES.items()}
    found = {index: (field, "") for field, index in fields.items()}
    found |= {each.index: (f"{_PREFIX}{each.name}", kinds.get(each.read, "inferred")) for each in attributes}
    return tuple(Column(name, *found.get(index, ("", ""))) for index, name in enumerate(names))


def _fields(names: Sequence[str]) -> dict[str, int]:
    found: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        if field := field_of(name):
            found.setdefault(field, []).append(index)
    return {field: _the_one(field, indexes, names) for field, indexes in found.items()}


def _the_one(field: str, indexes: list[int], names: Sequence[str]) -> int:
    own = [index for index in indexes if field in NAMES and _plain(names[index]) == NAMES[field][0]]
    candidates = own or indexes
    if len(candidates) > 1:
        columns = ", ".join(f"{names[index]!r} (column {index + 1})" for index in candidates)
        raise Unreadable(
            say(
                "has several columns that could be %(field)s: %(columns)s; rename all but one",
                field=field,
                columns=columns,
            )
        )
    return candidates[0]


def _attribute(index: int, column: str, infer_types: bool) -> Attribute:
    own, typed, kind = column.removeprefix(_PREFIX).rpartition(":")
    name = own if typed else kind
    if typed and kind not in TYPES:
        raise Unreadable(
            say(
                "has a column %(column)s whose type %(kind)s is unknown: use %(known)s, or end it in :text to keep "
                "the colon",
                column=f"{_cut(column)!r}",
                kind=f"{_cut(kind)!r}",
                known=", ".join(TYPES),
            )
        )
    if typed and field_of(name):
        raise Unreadable(
            say(
                "has a column %(column)s, but %(field)s takes no type: leave it away",
                column=f"{_cut(column)!r}",
                field=str(field_of(name)),
            )
        )
    if not column.startswith(_PREFIX) and _plain(name).startswith("consent"):
        raise Unreadable(
            say(
                "has a column %(column)s: say for which channel, %(known)s",
                column=f"{_cut(column)!r}",
                known=", ".join(_consents()),
            )
        )
    name = re.sub(r"[^\w-]+", "_", name.strip()).strip("_")
    if not ATTRIBUTE_NAME.fullmatch(name):
        raise Unreadable(
            say(
                "has a column %(column)s that can't name an attribute: use 1 to 64 letters or digits",
                column=f"{_cut(column)!r}",
            )
        )
    return Attribute(index, name, TYPES[kind] if typed else as_inferred if infer_types else as_text)


def _refuse_repeated(attributes: Sequence[Attribute], names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for each in attributes:
        column = names[each.index]
        if each.name in seen:
            raise Unreadable(
                say(
                    "has two columns for the attribute %(name)s: %(column)s and %(other)s",
                    name=each.name,
                    column=f"{seen[each.name]!r}",
                    other=f"{column!r}",
                )
            )
        seen[each.name] = column


def _bare(column: str) -> tuple[str, str]:
    """The names that a column may give its attribute as it is spelt: with a type behind it, and without."""
    name = column.removeprefix(_PREFIX)
    return name, name.rpartition(":")[0]


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", name.casefold())


def _consents() -> list[str]:
    return [field for field in NAMES if field.startswith(_OF_CHANNEL)]


def _spelt(plain: Sequence[str]) -> list[str]:
    return [name if name == "id" else f"{name.removesuffix('id')}_id" for name in plain]


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(_cut(name) for name in names[:12])
    return f"{shown}, …" if len(names) > 12 else shown


def _cut(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:40]}…"

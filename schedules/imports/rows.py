"""What a file of people is read into, whichever its format."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from schedules.imports.values import MAX_ATTRIBUTES, Refused
from schedules.problems import say


class Row(NamedTuple):
    """One person as the file has it, ready for COPY; texts of JSON for JSON columns. None: the file says nothing.

    ``dropped`` is a PostgreSQL array of the attributes that the file says are empty. ``quiet_hours`` of ``null`` says
    that there are none.
    """

    line: int
    external_id: str
    email: str | None = None
    locale: str | None = None
    time_zone: str | None = None
    tags: str | None = None
    consent: str | None = None
    quiet_hours: str | None = None
    attributes: str | None = None
    dropped: str | None = None
    devices: str | None = None


class BadLine(NamedTuple):
    """``field`` is empty where the line as a whole is bad; ``reason`` completes “line 7: field …”. Holds no values."""

    line: int
    field: str
    reason: str


class Column(NamedTuple):
    """A column of a CSV file as it was understood.

    ``field`` is one of ours or ``attributes.NAME``, empty where the column has no name; ``kind`` is an attribute's:
    one of ``values.TYPES``, or ``inferred`` where each cell says it by itself.
    """

    name: str
    field: str
    kind: str = ""


class Rows(Protocol):
    """The rows of a file, in its order. To be read once; raises ``lines.Unreadable``.

    ``renamed`` tells under which name a column is kept where its own could not be queried, ``number_like`` the columns
    kept as texts though their first cells are all numbers. ``columns`` is empty where each line names its own fields.
    """

    @property
    def columns(self) -> tuple[Column, ...]: ...

    @property
    def renamed(self) -> dict[str, str]: ...

    @property
    def number_like(self) -> tuple[str, ...]: ...

    def __iter__(self) -> Iterator[Row | BadLine]: ...


def attributes_of(kept: list[str], dropped: list[str]) -> tuple[str | None, str | None]:
    """The columns ``attributes`` and ``dropped`` of a row, from members of an object and from names.

    Raises ``Refused`` when they are too much for one person.
    """
    document = "{" + ", ".join(kept) + "}"
    if len(document) - 2 * len(kept) > MAX_ATTRIBUTES:  # spaces are nobody's
        raise Refused(
            "attributes", say("are longer than %(most)s characters together: shorten them", most=MAX_ATTRIBUTES)
        )
    return document, '{"' + '","'.join(dropped) + '"}' if dropped else None

"""Lists by keyset: a cursor says after which row to go on, so that rows which come and go move no others.

A cursor is opaque, belongs to one order, and never runs out. API and pages read their lists by it.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet

from frontend.instants import instant
from schedules import storable

Row = TypeVar("Row", bound=Model)


class BrokenCursor(ValueError):
    """It can't be read, or belongs to another order."""


@dataclass(frozen=True)
class Order:
    """An order of rows: by ``field``, then by id the same way. ``nullable`` fields have their empty rows at the end."""

    field: str = "id"
    descending: bool = True
    nullable: bool = False
    parse: Callable[[Any], Any] = int


def by_instant(field: str, *, descending: bool, nullable: bool = False) -> Order:
    return Order(field, descending, nullable, datetime.fromisoformat)


def read(rows: QuerySet[Row], order: Order, *, cursor: str | None, limit: int) -> tuple[list[Row], str | None]:
    """``limit`` rows past ``cursor`` (from the top without one), and the cursor of the next page; None at the end.

    At most two statements, whatever the page. Raises ``BrokenCursor``.
    """
    found = _after(rows, order, cursor, limit + 1)
    more = found[limit:]
    page = found[:limit]
    return page, cursor_at(order, page[-1]) if more and page else None


def cursor_at(order: Order, row: Model) -> str:
    """The cursor of the page that follows ``row``."""
    value = getattr(row, order.field)
    shown = instant(value) if isinstance(value, datetime) else value
    return encode([_sign(order) + order.field, shown, row.pk])


def encode(place: Sequence[Any]) -> str:
    """A place in a list as a cursor."""
    text = json.dumps(list(place), separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str) -> Any:
    """The inverse of ``encode``. Raises ``BrokenCursor``."""
    try:
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise BrokenCursor from None
    if storable.json_fault(place):  # what can't be kept stands in no row
        raise BrokenCursor
    return place


def _after(rows: QuerySet[Row], order: Order, cursor: str | None, count: int) -> list[Row]:
    value, last_id = _decoded(cursor, order) if cursor else (None, None)
    if order.field == "id":
        return list(_past(rows, "id", last_id, order).order_by(_sign(order) + "id")[:count])
    found: list[Row] = []
    valued = rows.filter(**{f"{order.field}__isnull": False}) if order.nullable else rows
    if last_id is None or value is not None:
        found = list(_tuple_past(valued, order, value, last_id).order_by(*_ordering(order))[:count])
    if order.nullable and len(found) < count:
        empty = rows.filter(**{f"{order.field}__isnull": True})
        after_id = last_id if value is None else None
        found += _past(empty, "id", after_id, order).order_by(_sign(order) + "id")[: count - len(found)]
    return found


def _ordering(order: Order) -> Sequence[Any]:
    return (_sign(order) + order.field, _sign(order) + "id")


def _sign(order: Order) -> str:
    return "-" if order.descending else ""


def _past(rows: QuerySet[Row], field: str, value: Any, order: Order) -> QuerySet[Row]:
    if value is None:
        return rows
    return rows.filter(**{f"{field}__{'lt' if order.descending else 'gt'}": value})


def _tuple_past(rows: QuerySet[Row], order: Order, value: Any, last_id: int | None) -> QuerySet[Row]:
    """Written so that an index on (field, id) starts at the place: the bound on the field, then the tie."""
    if last_id is None:
        return rows
    beyond = "lt" if order.descending else "gt"
    bounded = rows.filter(**{f"{order.field}__{beyond}e": value})
    return bounded.filter(Q(**{f"{order.field}__{beyond}": value}) | Q(**{f"id__{beyond}": last_id}))


def _decoded(cursor: str, order: Order) -> tuple[Any, int]:
    match decode(cursor):
        case [name, value, int(last_id)] if name == _sign(order) + order.field and not isinstance(last_id, bool):
            try:
                return (None if value is None else order.parse(value)), last_id
            except (TypeError, ValueError, OverflowError):
                pass
    raise BrokenCursor

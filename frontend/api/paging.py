"""Pages of the API's lists, by keyset.

``{"items": [...], "nextCursor": "..." or null}``. A cursor is opaque, belongs to one order, and never runs out.
"""

from typing import Any

from django.db.models import QuerySet

from frontend import keysets
from frontend.api.fields import QueryNumberField, QuerySerializer, StrictCharField
from frontend.api.problems import InParameter, invalid
from frontend.keysets import BrokenCursor, Order, Row, by_instant, encode

__all__ = ("Order", "PageQuery", "by_instant", "decode", "encode", "page_of")

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_BROKEN = InParameter("cursor", "invalid", "Use a nextCursor as it came, with the same order, or leave it out.")


class PageQuery(QuerySerializer):
    limit = QueryNumberField(
        min_value=1, max_value=MAX_LIMIT, default=DEFAULT_LIMIT, help_text="At most so many items."
    )
    cursor = StrictCharField(
        max_length=500, required=False, help_text="The `nextCursor` of the page before; leave it out for the first."
    )


def page_of(rows: QuerySet[Row], order: Order, query: dict[str, Any]) -> tuple[list[Row], str | None]:
    """The rows of the page that ``query`` (``PageQuery``) asks for, and the cursor of the next; None at the end.

    At most two statements, whatever the page. Raises ``Refused`` (400) for a cursor of another list.
    """
    try:
        return keysets.read(rows, order, cursor=query.get("cursor"), limit=query["limit"])
    except BrokenCursor:
        raise invalid([_BROKEN]) from None


def decode(cursor: str) -> Any:
    """A place in a list. Raises ``Refused`` (400)."""
    try:
        return keysets.decode(cursor)
    except BrokenCursor:
        raise invalid([_BROKEN]) from None

"""Paging through tables of millions of rows: nobody needs their exact number to look at one of them."""

from typing import Any

from django.core.paginator import Paginator
from django.db import connection
from django.utils.functional import cached_property

# A filtered list is counted so far and no further.
_COUNT_LIMIT = 10_000


class EstimatedPaginator(Paginator):  # type: ignore[type-arg]
    """The planner's estimate for a whole table, and for a filtered one a count that ends at ``_COUNT_LIMIT``.

    A table that looks small is counted: the estimate of a fresh one is far off.
    """

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        query = getattr(rows, "query", None)
        if query is not None and not query.where and (estimate := _estimate(query.model._meta.db_table)) > _COUNT_LIMIT:
            return estimate
        if query is None:
            return len(rows)
        return int(rows.order_by()[:_COUNT_LIMIT].count())


def _estimate(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", [table])
        return int(cursor.fetchone()[0])

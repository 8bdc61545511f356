"""Notes for ``subscribers``, written in the transaction of what happened: what is still to be told.

Nothing is noted, and nothing kept, while there is no endpoint.
"""

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import NamedTuple

from django.db import connection

_SOMEBODY_LISTENS = "EXISTS (SELECT FROM delivery_endpoint)"


class News(NamedTuple):
    """What a provider told of one delivery; ``news`` as ``delivery.models.News`` numbers it."""

    day: date
    occurrence_id: int
    recipient_id: int
    news: int
    at: datetime


def batches(ids: Sequence[int]) -> None:
    """Outcomes of these have changed."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO delivery_toldbatch AS t (batch_id, day, is_changed, told)
            SELECT id, day, true, '{{}}' FROM delivery_batch WHERE id = ANY(%s) AND size > 0 AND {_SOMEBODY_LISTENS}
            ORDER BY id
            ON CONFLICT (batch_id) DO UPDATE SET is_changed = true
            """,
            [list(ids)],
        )


def closed(occurrence_ids: Collection[int]) -> None:
    """These occurrences have ended."""
    if occurrence_ids:
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO delivery_closedrun SELECT unnest(%s::bigint[]) WHERE {_SOMEBODY_LISTENS}"
                " ON CONFLICT DO NOTHING",
                [sorted(occurrence_ids)],
            )


def reported(news: Collection[News]) -> None:
    """Providers have told something new of these deliveries."""
    if news:
        days, occurrences, recipients, kinds, instants = zip(*news, strict=True)
        with connection.cursor() as cursor:
            cursor.execute(
                f"""
                INSERT INTO delivery_report (day, occurrence_id, recipient_id, news, at)
                SELECT * FROM unnest(%s::date[], %s::bigint[], %s::bigint[], %s::smallint[], %s::timestamptz[])
                WHERE {_SOMEBODY_LISTENS}
                """,
                [list(days), list(occurrences), list(recipients), list(kinds), list(instants)],
            )

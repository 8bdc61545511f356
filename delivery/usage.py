"""What the ledger says of a person's caps: the truth of which the counters in Redis are a cache.

A delivery counts from its claim on, unless it is known that nothing was sent: while being sent, while its outcome is
unknown, when sent, when failed because nobody could say (``outcome_unknown``), and, whatever becomes of it then, when
an earlier attempt has, or may have, reached a device.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from enum import Enum
from typing import NamedTuple

from django.db import connection

from delivery.models import OUTCOME_UNKNOWN, State

WEEK = timedelta(days=7)
# Claims of the same moment are judged in any order: an older one's window begins earlier.
MARGIN = timedelta(hours=1)
# An occurrence lives for a week, so a claim of the last seven days may stand under a day that much earlier; a
# user-local one is claimed up to fourteen hours before its day begins.
_EARLIER, _LATER = 2 * WEEK + timedelta(days=1), timedelta(days=1)
_COUNTS = (
    f"d.state IN ({int(State.SENDING)}, {int(State.UNKNOWN)}, {int(State.SENT)})"
    f" OR (d.state = {int(State.FAILED)} AND d.reason = '{OUTCOME_UNKNOWN}')"
    " OR d.reached <> ''"
)


class Use(NamedTuple):
    """A delivery that counts toward a person's caps, by the instant of its claim."""

    recipient_id: int
    day: date
    occurrence_id: int
    claimed_at: datetime


class Standing(Enum):
    """What the ledger says of a delivery that the counters hold."""

    USED = "used"
    IN_FLIGHT = "in_flight"  # being sent: it may yet turn out that nothing was
    FREE = "free"  # nothing was sent, or nothing is any more


def uses(recipient_ids: Sequence[int], *, now: datetime) -> list[Use]:
    """Everything of the last seven days (and an hour) that counts, of schedules that count toward caps."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH used AS MATERIALIZED (
                SELECT d.recipient_id, d.day, d.occurrence_id, d.version,
                    COALESCE(d.claimed_at, d.called_at, d.due_at) AS claimed_at
                FROM delivery_delivery d
                WHERE d.recipient_id = ANY(%(recipients)s::bigint[]) AND d.day BETWEEN %(first)s AND %(last)s
                  AND ({_COUNTS}) AND COALESCE(d.claimed_at, d.called_at, d.due_at) > %(since)s
            ), sources AS MATERIALIZED (
                -- Subqueries of one value: joined, the planner takes every version that there is with every row.
                SELECT k.occurrence_id, k.version, (
                    SELECT COALESCE((v.definition ->> 'countsTowardCaps')::boolean, true)
                    FROM schedules_scheduleversion v
                    WHERE v.version = k.version
                      AND v.schedule_id = (SELECT schedule_id FROM schedules_occurrence WHERE id = k.occurrence_id)
                ) AS counts
                FROM (SELECT DISTINCT occurrence_id, version FROM used) k
            )
            SELECT recipient_id, day, occurrence_id, claimed_at
            FROM used
            WHERE ((occurrence_id, version) IN (SELECT occurrence_id, version FROM sources WHERE counts)) IS TRUE
            """,
            {
                "recipients": list(recipient_ids),
                "first": (now - _EARLIER).date(),
                "last": (now + _LATER).date(),
                "since": now - WEEK - MARGIN,
            },
        )
        return [Use(*row) for row in cursor.fetchall()]


def standings(keys: Iterable[tuple[int, date, int]]) -> dict[tuple[int, date, int], Standing]:
    """By (recipient, day, occurrence). One whose row is gone with its day counts as used: nobody can say otherwise."""
    keys = list(keys)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT d.recipient_id, d.day, d.occurrence_id, d.state, {_COUNTS}
            FROM delivery_delivery d JOIN unnest(%(recipients)s::bigint[], %(days)s::date[], %(occurrences)s::bigint[])
                AS k(recipient_id, day, occurrence_id) USING (recipient_id, day, occurrence_id)
            WHERE d.day = ANY(%(days)s::date[]) AND d.occurrence_id = ANY(%(occurrences)s::bigint[])
              AND d.recipient_id = ANY(%(recipients)s::bigint[])
            """,
            {
                "recipients": [key[0] for key in keys],
                "days": [key[1] for key in keys],
                "occurrences": [key[2] for key in keys],
            },
        )
        found = {row[:3]: _standing(row[3], counts=row[4]) for row in cursor.fetchall()}
    return {key: found.get(key, Standing.USED) for key in keys}


def _standing(state: int, *, counts: bool) -> Standing:
    if state == State.SENDING:
        return Standing.IN_FLIGHT
    return Standing.USED if counts else Standing.FREE

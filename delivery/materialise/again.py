"""Materialising an occurrence that has people already, since an edit changed who they are or when they are due."""

from collections import Counter
from datetime import datetime
from typing import Any, NamedTuple

from delivery import ledger
from delivery.models import State
from schedules.models import Occurrence
from schedules.occurrences import EDITED

# Stands within one transaction only: it tells the rows that the run had from those that an earlier edit cancelled.
WITHDRAWN = "withdrawn"
# SQL over a row: it was waiting until this edit or an earlier one, and may do so again.
COMES_BACK = f"{{0}}.state = {int(State.CANCELLED)} AND {{0}}.reason IN ('{WITHDRAWN}', '{EDITED}')"


class Fate(NamedTuple):
    """What materialising has made of a row."""

    state: State
    reason: str


def withdraw(cursor: Any, occurrence: Occurrence, *, now: datetime) -> None:
    """Take every pending row out of the run; those still meant are taken back by the insertion that follows."""
    cursor.execute(
        "UPDATE delivery_delivery SET state = %s, reason = %s, settled_at = %s"
        " WHERE day = %s AND occurrence_id = %s AND state = %s",
        [int(State.CANCELLED), WITHDRAWN, now, occurrence.day, occurrence.pk, int(State.PENDING)],
    )


def settle_withdrawn(cursor: Any, occurrence: Occurrence) -> Counter[Fate]:
    """Cancel who was not taken back; whoever has the message on one device has been sent it."""
    cursor.execute(
        f"""
        UPDATE delivery_delivery d SET
            state = CASE WHEN {ledger.HAS_MESSAGE} THEN {int(State.SENT)} ELSE d.state END,
            reason = CASE WHEN {ledger.HAS_MESSAGE} THEN '' ELSE %s END
        WHERE d.day = %s AND d.occurrence_id = %s AND d.state = {int(State.CANCELLED)} AND d.reason = %s
        RETURNING d.state, d.reason
        """,
        [EDITED, occurrence.day, occurrence.pk, WITHDRAWN],
    )
    return Counter(Fate(State(state), reason) for state, reason in cursor.fetchall())


def recount(cursor: Any, occurrence: Occurrence) -> int:
    """Count every batch of the occurrence from its rows, and drop those that lost them all; return the rows in all.

    One whose outcomes are in the figures is dropped by ``figures.count``, which takes them out first.

    The batches are locked before the rows are read: an outcome written meanwhile is either seen here, or added to what
    is counted here once these locks are gone. Rows come first, as in every transaction that locks both.
    """
    cursor.execute("SELECT id FROM delivery_batch WHERE occurrence_id = %s ORDER BY id FOR UPDATE", [occurrence.pk])
    sums = ", ".join(f"count(*) FILTER (WHERE d.state = {int(state)}) AS {state.label}" for state in State)
    sets = ", ".join(f"{state.label} = COALESCE(c.{state.label}, 0)" for state in State)
    cursor.execute(
        f"""
        UPDATE delivery_batch b SET {sets}, size = COALESCE(c.size, 0), next_due_at = c.next_due_at,
               expires_at = c.expires_at, queued_at = NULL,
               started_at = COALESCE(b.started_at, c.called_at), is_counted = false,
               wave_at = CASE WHEN c.size IS NOT NULL THEN b.wave_at END
        FROM delivery_batch a LEFT JOIN (
            SELECT d.batch_id, count(*) AS size,
                   min(d.due_at) FILTER (WHERE d.state = {int(State.PENDING)}) AS next_due_at,
                   min(d.expires_at) FILTER (WHERE d.state = {int(State.PENDING)}) AS expires_at,
                   min(d.called_at) AS called_at, {sums}
            FROM delivery_delivery d WHERE d.day = %s AND d.occurrence_id = %s GROUP BY d.batch_id
        ) c ON c.batch_id = a.id
        WHERE a.occurrence_id = %s AND b.id = a.id
        """,
        [occurrence.day, occurrence.pk, occurrence.pk],
    )
    cursor.execute(
        "DELETE FROM delivery_batch WHERE occurrence_id = %s AND size = 0 AND figures = '[]'", [occurrence.pk]
    )
    cursor.execute("SELECT COALESCE(sum(size), 0) FROM delivery_batch WHERE occurrence_id = %s", [occurrence.pk])
    rows: int = cursor.fetchone()[0]
    return rows

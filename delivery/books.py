"""The books: for each occurrence, what it targeted against what became of it, from records kept apart.

Three figures must agree at any moment: ``Occurrence.targeted`` (raised when rows are written), the counters of its
batches (moved with every outcome) and the ledger's rows, counted. Each answer here is one statement, hence one
snapshot.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import Sum

from delivery.models import Batch, State
from schedules.models import Occurrence

# Up to so many people an occurrence's rows are counted at once; above, when somebody asks for it.
AT_ONCE = 20_000
# Batches whose rows ``unbalanced`` counts.
BY_CHANCE = 20
_OUTCOMES = [state.label for state in State if state.is_outcome]


@dataclass(frozen=True)
class Books:
    """``counted`` and ``rows`` map each state's name to people, by the batches' counters and by the rows themselves.

    ``is_open``: rows may still be added or change; the sums agree all the same. ``is_archived``: the rows are past
    their retention, and both are the final count that the occurrence kept.
    """

    occurrence_id: int
    schedule_id: int
    occurrence_at: datetime
    state: str
    targeted: int
    counted: dict[str, int]
    rows: dict[str, int]
    is_open: bool
    is_archived: bool

    @property
    def closes(self) -> bool:
        return not self.differences

    @property
    def differences(self) -> list[str]:
        """What does not agree, one readable line each."""
        found = []
        if self.targeted != sum(self.counted.values()):
            found.append(f"targeted {self.targeted}, counted {sum(self.counted.values())}")
        if self.targeted != sum(self.rows.values()):
            found.append(f"targeted {self.targeted}, rows {sum(self.rows.values())}")
        for name in self.counted:
            if self.counted[name] != self.rows[name]:
                found.append(f"{name}: counted {self.counted[name]}, rows {self.rows[name]}")
        if not self.is_open and (left := sum(self.rows[name] for name in self.rows if name not in _OUTCOMES)):
            found.append(f"closed with {left} rows that have no outcome")
        return found


def of(occurrence_id: int) -> Books:
    """The books of one occurrence. Raises ``LookupError`` where there is none."""
    for books in _read("WHERE o.id = %(id)s", {"id": occurrence_id}):
        return books
    raise LookupError(f"There is no occurrence {occurrence_id}.")


def every(*, since: datetime | None = None) -> Iterable[Books]:
    """The books of every occurrence, or of those from ``since`` on, and of rows whose occurrence is gone."""
    if since is None:
        return _read("", {})
    return _read("WHERE o.occurrence_at >= %(since)s", {"since": since})


def unbalanced() -> int:
    """Occurrences whose books don't agree, of what can be looked at each moment: how many.

    Of every open one, ``targeted`` and the sizes of its batches, whose counters sum up to them by a constraint; of
    ``BY_CHANCE`` batches somewhere in the ledger, the rows. Who looks often sees all of it in time.
    """
    with connection.cursor() as cursor:
        cursor.execute(_PICK, {"some": BY_CHANCE})
        picked = cursor.fetchall()
        days, ids = sorted({day for day, _ in picked}), [pk for _, pk in picked]
        cursor.execute(_UNBALANCED, {"days": days, "ids": ids})
        return int(cursor.fetchone()[0])


def counted(occurrences: Iterable[Occurrence]) -> dict[int, dict[str, int]]:
    """By occurrence, people by state: from the batches' counters alone, in one statement, however many people."""
    occurrences = list(occurrences)
    sums = Batch.objects.filter(occurrence__in=occurrences).order_by().values_list("occurrence_id")
    found = {pk: sums_of for pk, *sums_of in sums.annotate(**{state.label: Sum(state.label) for state in State})}
    names = [state.label for state in State]
    none = [0] * len(names)
    return {
        each.pk: dict(each.outcomes) if each.outcomes else dict(zip(names, found.get(each.pk, none), strict=True))
        for each in occurrences
    }


_COUNTERS = ", ".join(f"COALESCE(sum(b.{state.label}), 0)::bigint AS {state.label}" for state in State)
_ROWS = ", ".join(f"COALESCE(l.s{int(state)}, 0)" for state in State)
_BY_STATE = ", ".join(f"count(*) FILTER (WHERE d.state = {int(state)}) AS s{int(state)}" for state in State)
_COUNTED = ", ".join(f"COALESCE(c.{state.label}, 0)" for state in State)


def _read(condition: str, parameters: dict[str, Any]) -> Iterable[Books]:
    orphans = "" if condition else _ORPHANS
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH o AS MATERIALIZED (
                SELECT o.id, o.schedule_id, o.occurrence_at, o.state, o.targeted, o.closed_at, o.outcomes,
                       (o.occurrence_at AT TIME ZONE 'UTC')::date AS day
                FROM schedules_occurrence o {condition}
            ), c AS (
                SELECT b.occurrence_id, {_COUNTERS} FROM delivery_batch b JOIN o ON o.id = b.occurrence_id
                GROUP BY b.occurrence_id
            ), l AS (
                SELECT d.occurrence_id, {_BY_STATE} FROM delivery_delivery d
                JOIN o ON o.day = d.day AND o.id = d.occurrence_id
                WHERE d.day = ANY(ARRAY(SELECT DISTINCT day FROM o))
                GROUP BY d.occurrence_id
            )
            SELECT o.id, o.schedule_id, o.occurrence_at, o.state, o.targeted, o.closed_at IS NULL, o.outcomes,
                   {_COUNTED}, {_ROWS}
            FROM o LEFT JOIN c ON c.occurrence_id = o.id LEFT JOIN l ON l.occurrence_id = o.id
            {orphans}
            ORDER BY 1
            """,
            parameters,
        )
        rows = cursor.fetchall()
    return [_books(row) for row in rows]


_DIFFERENT = " OR ".join(f"b.{state.label} <> COALESCE(l.s{int(state)}, 0)" for state in State)
_PICK = """
SELECT day, id FROM delivery_batch WHERE id >= (
    SELECT (min(id) + floor(random() * (1 + GREATEST(max(id) - min(id) + 1 - %(some)s, 0))))::bigint FROM delivery_batch
) ORDER BY id LIMIT %(some)s
"""
# One snapshot of counters and rows. Days and ids are values, not subqueries: the planner looks at no other partition.
_UNBALANCED = f"""
WITH l AS (
    SELECT d.batch_id, {_BY_STATE} FROM delivery_delivery d
    WHERE d.day = ANY(%(days)s::date[]) AND d.batch_id = ANY(%(ids)s::bigint[]) GROUP BY d.batch_id
)
SELECT count(*) FROM (
    SELECT b.occurrence_id FROM delivery_batch b LEFT JOIN l ON l.batch_id = b.id
    WHERE b.id = ANY(%(ids)s::bigint[]) AND ({_DIFFERENT})
    UNION
    SELECT o.id FROM schedules_occurrence o LEFT JOIN delivery_batch b ON b.occurrence_id = o.id
    WHERE o.closed_at IS NULL GROUP BY o.id HAVING o.targeted <> COALESCE(sum(b.size), 0)
) AS found
"""
_ZEROES = ", ".join("0" for _ in State)
_ORPHANS = f"""
UNION ALL
SELECT d.occurrence_id, 0, min(d.due_at), 'gone', 0, false, NULL, {_ZEROES}, {_BY_STATE}
FROM delivery_delivery d
WHERE NOT EXISTS (SELECT 1 FROM o WHERE o.id = d.occurrence_id AND o.day = d.day) GROUP BY d.occurrence_id"""


def _books(row: tuple[Any, ...]) -> Books:
    names = [state.label for state in State]
    occurrence_id, schedule_id, occurrence_at, state, targeted, is_open, kept = row[:7]
    counted = dict(zip(names, row[7 : 7 + len(names)], strict=True))
    rows = dict(zip(names, row[7 + len(names) :], strict=True))
    if kept is not None:
        counted = rows = {name: json.loads(kept)[name] for name in names}
    return Books(
        occurrence_id, schedule_id, occurrence_at, state, targeted, counted, rows, is_open, is_archived=kept is not None
    )

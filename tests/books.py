"""The books, counted by statements of their own: a test must not ask the code what to think of the code."""

import json
from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

from django.db import connection

from delivery.models import State


def assert_books_close() -> None:
    """Every occurrence: targeted = its rows = its batches' counters, state by state; nothing due is forgotten."""
    assert differences() == []


def differences() -> list[str]:
    """What does not agree in the books, one line each."""
    found = []
    rows: dict[int, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    due: dict[int, datetime] = {}
    for occurrence_id, batch_id, state, count, least_due in select(
        "SELECT occurrence_id, batch_id, state, count(*), min(due_at) FROM delivery_delivery GROUP BY 1, 2, 3"
    ):
        rows[occurrence_id][batch_id][State(state).label] += count
        if state == State.PENDING:
            due[batch_id] = least_due
    batches: dict[int, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    names = [state.label for state in State]
    for pk, occurrence_id, size, next_due_at, *counts in select(
        f"SELECT id, occurrence_id, size, next_due_at, {', '.join(names)} FROM delivery_batch"
    ):
        batches[occurrence_id][pk] = Counter({name: count for name, count in zip(names, counts, strict=True) if count})
        if size != sum(counts):
            found.append(f"batch {pk}: size {size}, counted {sum(counts)}")
        if pk in due and (next_due_at is None or next_due_at > due[pk]):
            found.append(f"batch {pk}: a row is due at {due[pk]}, the batch at {next_due_at}")
    for pk, targeted, is_closed, kept in select(
        "SELECT id, targeted, closed_at IS NOT NULL, outcomes FROM schedules_occurrence"
    ):
        if kept is not None:  # its day is dropped
            if targeted != sum(json.loads(kept).values()):
                found.append(f"occurrence {pk}: targeted {targeted}, kept {kept}")
            continue
        found += _differences_of(pk, targeted, is_closed, rows.pop(pk, {}), batches.pop(pk, {}))
    found += [f"rows of occurrence {pk}, which does not exist" for pk in rows]
    return found


def _differences_of(
    pk: int, targeted: int, is_closed: bool, rows: dict[int, Counter[str]], batches: dict[int, Counter[str]]
) -> list[str]:
    found = []
    counted = sum(sum(batch.values()) for batch in rows.values())
    if targeted != counted:
        found.append(f"occurrence {pk}: targeted {targeted}, rows {counted}")
    for batch_id in rows.keys() | batches.keys():
        if rows.get(batch_id) != batches.get(batch_id):
            found.append(f"batch {batch_id}: rows {rows.get(batch_id)}, counters {batches.get(batch_id)}")
    if is_closed and (left := {"pending", "sending", "unknown"} & set().union(*rows.values())):
        found.append(f"occurrence {pk}: closed with {left}")
    return found


def select(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()

"""Day partitions of the ledger: made ahead, dropped after the retention, never while a row in them is open."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from django.db import connection, transaction

from delivery import figures
from delivery.models import Batch, State
from schedules.models import Occurrence

TABLES = ("delivery_delivery", "delivery_failedattempt", "delivery_feedback")
_APPENDED = {"delivery_failedattempt"}  # no row of which changes
AHEAD_DAYS = 14
BEHIND_DAYS = 8  # an occurrence may be found late and lives for seven days


class PartitionInUse(Exception):
    """A day still has open books, so its partition stays."""

    names_nobody = True  # as logs ask


def ensure(*, first: date, last: date, tables: Sequence[str] = TABLES) -> list[str]:
    """Make the missing partitions of each day from ``first`` to ``last``; return their names.

    A table is made on its own and attached then, which locks out no reader or writer of the other partitions. Rows
    that fell into the default partition, because their day was missing, move into it: else they'd keep it out.
    """
    made = []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('ledger partitions'))")
        standing = _standing(cursor, tables)
        for table, day in ((table, day) for table in tables for day in _days(first, last)):
            name = _name(table, day)
            if name in standing:
                continue
            fillfactor = 100 if table in _APPENDED else 70
            cursor.execute(
                f"CREATE TABLE {name} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
                f" WITH (fillfactor = {fillfactor})"
            )
            cursor.execute(f"LOCK TABLE {table}_default IN SHARE ROW EXCLUSIVE MODE")
            cursor.execute(
                f"WITH moved AS (DELETE FROM {table}_default WHERE day = %s RETURNING *)"
                f" INSERT INTO {name} SELECT * FROM moved",
                [day],
            )
            cursor.execute(
                f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM (%s) TO (%s)",
                [day, day + timedelta(days=1)],
            )
            made.append(name)
    return made


def ensure_around(*, today: date, tables: Sequence[str] = TABLES) -> list[str]:
    """Make what the coming fortnight and the past week need."""
    return ensure(first=today - timedelta(days=BEHIND_DAYS), last=today + timedelta(days=AHEAD_DAYS), tables=tables)


def drop(*, before: date) -> list[str]:
    """Drop the partitions of the days before ``before`` in which every row has its outcome; return their names.

    Their occurrences keep the final count of each outcome, so that the books go on closing, and the figures what
    happened when. Raises ``PartitionInUse``, after all else is dropped, where a day stays because of something open.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        in_use = _open_days(before)
        old = sorted(name for name in _standing(cursor) if _day_of(name) < before and _day_of(name) not in in_use)
        days = sorted({_day_of(name) for name in old})
        figures.count_days(days)
        for name in old:
            cursor.execute(f"DROP TABLE {name}")
        cursor.execute(_KEEP_OUTCOMES, {"days": days})
        Batch.objects.filter(day__in=days).delete()
    if in_use:
        raise PartitionInUse(f"{min(in_use)} has open deliveries; its ledger stays until they are settled.")
    return old


_OUTCOMES = ", ".join(f"'{state.label}', sum(b.{state.label})" for state in State)
_KEEP_OUTCOMES = f"""
UPDATE schedules_occurrence o SET outcomes = b.outcomes FROM (
    SELECT b.occurrence_id, jsonb_build_object({_OUTCOMES}) AS outcomes FROM delivery_batch b
    WHERE b.day = ANY(%(days)s::date[]) GROUP BY b.occurrence_id
) b WHERE o.id = b.occurrence_id"""


def rows_in_default() -> int:
    """How many rows fell into a default partition, up to 1,000 each: any means that a day was not made in time."""
    with connection.cursor() as cursor:
        total = 0
        for table in TABLES:
            cursor.execute(f"SELECT count(*) FROM (SELECT 1 FROM {table}_default LIMIT 1000) AS strays")
            total += cursor.fetchone()[0]
    return total


def days_ahead(*, today: date) -> int:
    """For how many days in a row, ``today`` the first, rows find their partition in every table."""
    with connection.cursor() as cursor:
        standing = _standing(cursor)
    ahead = 0
    while all(_name(table, today + timedelta(days=ahead)) in standing for table in TABLES):
        ahead += 1
    return ahead


def _open_days(before: date) -> set[date]:
    batches = (
        Batch.objects.filter(day__lt=before).exclude(pending=0, sending=0, unknown=0).values_list("day", flat=True)
    )
    occurrences = Occurrence.objects.open().filter(occurrence_at__date__lt=before)
    return {*batches.distinct(), *(occurrence.day for occurrence in occurrences)}


def _standing(cursor, tables: Sequence[str] = TABLES) -> set[str]:  # type: ignore[no-untyped-def]
    cursor.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = ANY(%s::regclass[]) AND c.relname !~ '_default$'",
        [list(tables)],
    )
    return {name for (name,) in cursor.fetchall()}


def _name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"


def _day_of(name: str) -> date:
    digits = name[-8:]
    return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))


def _days(first: date, last: date) -> Iterator[date]:
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)

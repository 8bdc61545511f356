"""Day partitions of the ledger: made ahead, dropped after the retention, never while a row in them is open."""

from collections.abc import Iterator
from datetime import date, timedelta

from django.db import connection, transaction

from delivery.models import Batch
from schedules.models import Occurrence

TABLES = ("delivery_delivery", "delivery_failedattempt")
AHEAD_DAYS = 14
BEHIND_DAYS = 8  # an occurrence may be found late and lives for seven days


class PartitionInUse(Exception):
    """A day still has open books, so its partition stays."""


def ensure(*, first: date, last: date) -> list[str]:
    """Make the missing partitions of each day from ``first`` to ``last``; return their names.

    A table is made on its own and attached then, which locks out no reader or writer of the other partitions. Rows
    that fell into the default partition, because their day was missing, move into it: else they'd keep it out.
    """
    made = []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('ledger partitions'))")
        standing = _standing(cursor)
        for table, day in ((table, day) for table in TABLES for day in _days(first, last)):
            name = f"{table}_{day:%Y%m%d}"
            if name in standing:
                continue
            fillfactor = 70 if table == "delivery_delivery" else 100
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


def ensure_around(*, today: date) -> list[str]:
    """Make what the coming fortnight and the past week need."""
    return ensure(first=today - timedelta(days=BEHIND_DAYS), last=today + timedelta(days=AHEAD_DAYS))


def drop(*, before: date) -> list[str]:
    """Drop the partitions of the days before ``before``; raise ``PartitionInUse`` and drop none while one is open."""
    with transaction.atomic(), connection.cursor() as cursor:
        old = sorted(name for name in _standing(cursor) if _day_of(name) < before)
        days = {_day_of(name) for name in old}
        if days and (open_day := _open_day(before)):
            raise PartitionInUse(f"{open_day} has open deliveries; its ledger stays until they are settled.")
        for name in old:
            cursor.execute(f"DROP TABLE {name}")
        Batch.objects.filter(day__in=days).delete()
    return old


def rows_in_default() -> int:
    """How many rows fell into a default partition, up to 1,000 each: any means that a day was not made in time."""
    with connection.cursor() as cursor:
        total = 0
        for table in TABLES:
            cursor.execute(f"SELECT count(*) FROM (SELECT 1 FROM {table}_default LIMIT 1000) AS strays")
            total += cursor.fetchone()[0]
    return total


def _open_day(before: date) -> date | None:
    batch = Batch.objects.filter(day__lt=before).exclude(pending=0, sending=0, unknown=0).order_by("day").first()
    if batch:
        return batch.day
    occurrence = Occurrence.objects.open().filter(occurrence_at__date__lt=before).order_by("occurrence_at").first()
    return occurrence.day if occurrence else None


def _standing(cursor) -> set[str]:  # type: ignore[no-untyped-def]
    cursor.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = ANY(%s::regclass[]) AND c.relname !~ '_default$'",
        [list(TABLES)],
    )
    return {name for (name,) in cursor.fetchall()}


def _day_of(name: str) -> date:
    digits = name[-8:]
    return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))


def _days(first: date, last: date) -> Iterator[date]:
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)

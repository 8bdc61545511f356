"""What the benchmarks share: a migrated database, figures on standard output, medians, people to send to."""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.management import call_command
from django.db import connection

import benchmarks.environment  # noqa: F401 - private servers, before any model is imported
from delivery import partitions
from schedules import clock


def prepare() -> None:
    """Make the tables, and the ledger's days around today."""
    call_command("migrate", verbosity=0)
    partitions.ensure_around(today=clock.now().date())


def emit(
    benchmark: str, figure: str, value: float, unit: str, *, peer: str | None = None, ratio: float | None = None
) -> None:
    """Write one figure as a line of JSON. ``ratio``: how many times better than ``peer`` (1.0: the same)."""
    line = {
        "benchmark": benchmark,
        "figure": figure,
        "value": _rounded(value),
        "unit": unit,
        "peer": peer,
        "ratio": None if ratio is None else _rounded(ratio),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """What a reader at the terminal wants to know meanwhile; not a figure."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def median_ms(action: Callable[[], Any], *, runs: int, before: Callable[[], Any] | None = None) -> float:
    """Milliseconds that ``action`` takes, the median of ``runs``, each after ``before``."""
    taken = []
    for _ in range(runs):
        if before:
            before()
        started = time.perf_counter()
        action()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1000


class DatabaseTime:
    """Seconds spent in statements while ``measured`` is open.

    Seen from the client: the way there and back is in it, the commit is not.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        with connection.execute_wrapper(self._timed):
            yield

    def _timed(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        started = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self.seconds += time.perf_counter() - started


def execute(sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> int:
    """Run a statement and return the rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)


def query(sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows

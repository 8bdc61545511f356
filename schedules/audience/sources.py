"""Where an audience comes from: the recipients kept here.

Every read is one statement in a read-only transaction with a time limit, because the condition is a user's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models import BigIntegerField, Count, F, Func, QuerySet, Value
from psycopg.errors import QueryCanceled

from schedules.audience import compiler
from schedules.audience.tree import Node
from schedules.models import Recipient

_LIMIT = "SELECT set_config('transaction_read_only', 'on', true), set_config('statement_timeout', %s, true)"

MAX_PAGE = 10_000
MAX_SAMPLE = 5_000


class AudienceTooSlow(Exception):
    """The audience wasn't found within `timeout_ms`."""

    def __init__(self, *, timeout_ms: int) -> None:
        self.timeout_ms = timeout_ms
        super().__init__(
            f"The audience wasn't found within {timeout_ms} ms. Add a clause that an index serves (a tag, or "
            "eq or in on an attribute, locale or time zone), or raise AUDIENCE_STATEMENT_TIMEOUT_MS."
        )


@dataclass(frozen=True, slots=True)
class LocalSource:
    """Answers from the Recipient table. `timeout_ms` limits each statement.

    Every method that reads raises AudienceTooSlow. `now` is aware; only `within_last` looks at it.
    """

    timeout_ms: int = field(default_factory=lambda: settings.AUDIENCE_STATEMENT_TIMEOUT)

    def queryset(self, node: Node, *, now: datetime) -> QuerySet[Recipient]:
        """The recipients, unread and in no order: reading it is neither limited nor read-only."""
        return Recipient.objects.filter(compiler.compile(node, now=now)).order_by()

    def sql(self, node: Node, *, now: datetime) -> tuple[str, tuple[Any, ...]]:
        """`SELECT id, time_zone FROM … WHERE …` and its parameters, to stand inside a larger statement."""
        return self.queryset(node, now=now).values_list("id", "time_zone").query.sql_with_params()

    def count(self, node: Node, *, now: datetime) -> int:
        with limited(timeout_ms=self.timeout_ms):
            return self.queryset(node, now=now).count()

    def zones(self, node: Node, *, now: datetime) -> dict[str, int]:
        """People per time zone, as the profiles have it: `""` and invalid names too."""
        rows = self.queryset(node, now=now).values_list("time_zone").annotate(people=Count("id"))
        with limited(timeout_ms=self.timeout_ms):
            return dict(rows)

    def sample(self, node: Node, *, now: datetime, n: int, seed: int = 0) -> list[int]:
        """Ids of at most `n` recipients, in an order of chance that `seed` fixes."""
        if not 0 < n <= MAX_SAMPLE:
            raise ValueError(f"n is {n}; ask for 1 to {MAX_SAMPLE} recipients")
        chance = Func(
            F("id"),
            Value(seed, output_field=BigIntegerField()),
            function="hashint8extended",
            output_field=BigIntegerField(),
        )
        rows = self.queryset(node, now=now).order_by(chance, "id").values_list("id", flat=True)
        with limited(timeout_ms=self.timeout_ms):
            return list(rows[:n])

    def page(self, node: Node, *, now: datetime, after_id: int = 0, limit: int = MAX_PAGE) -> list[int]:
        """The next `limit` ids above `after_id`, ascending; fewer than `limit` on the last page."""
        if not 0 < limit <= MAX_PAGE:
            raise ValueError(f"limit is {limit}; ask for 1 to {MAX_PAGE} recipients")
        rows = self.queryset(node, now=now).filter(id__gt=after_id).order_by("id").values_list("id", flat=True)
        with limited(timeout_ms=self.timeout_ms):
            return list(rows[:limit])


@contextmanager
def limited(*, timeout_ms: int) -> Iterator[None]:
    """A read-only transaction whose statements end after `timeout_ms`, then with AudienceTooSlow.

    It may stand inside another transaction, which keeps its own rights and limit.
    """
    if timeout_ms <= 0:  # PostgreSQL would take 0 for no limit
        raise ValueError(f"timeout_ms is {timeout_ms}; give a positive number of milliseconds")
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(_LIMIT, [str(timeout_ms)])
            yield
            # Nothing was written, and of the two endings only this one takes both settings back from the
            # transaction around.
            transaction.set_rollback(True)
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise AudienceTooSlow(timeout_ms=timeout_ms) from error
        raise

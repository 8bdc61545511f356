"""The counts on the batches and those at ``/metrics``, moved in the transaction that moves the rows."""

from collections import Counter, defaultdict
from datetime import date, datetime

from django.db import connection

from delivery import counts
from delivery.counts import Histogram, Key
from delivery.ledger import rows as terms
from delivery.models import State

_STATES = [state.label for state in State]


class Tally:
    """Moves of rows between states, gathered per batch and written by ``flush`` at the end of the transaction.

    A transaction that is tried again needs a fresh one. ``is_holder``: this is the worker that holds the batches, and
    shows by this that it lives; nobody else may put off that a dead one's batches are published again.
    """

    def __init__(self, *, is_holder: bool = True) -> None:
        self._is_holder = is_holder
        self._moves: dict[int, Counter[str]] = defaultdict(Counter)
        self._due: dict[int, datetime] = {}
        self._claimed: dict[int, datetime] = {}
        self._released: dict[int, date] = {}
        self._outcomes: dict[int, Counter[tuple[str, str]]] = defaultdict(Counter)
        self._counts: dict[Key, float] = defaultdict(float)

    def move(self, batch_id: int, source: State, target: State, count: int = 1, *, reason_class: str = "") -> None:
        """Rows of a batch go from one state to another; an outcome is counted by its ``counts.reason_class``."""
        self._moves[batch_id][source.label] -= count
        self._moves[batch_id][target.label] += count
        if target.is_outcome:
            self._outcomes[batch_id][counts.OUTCOMES[target], reason_class] += count
        elif target is State.UNKNOWN:
            self._outcomes[batch_id][counts.UNKNOWN, reason_class] += count

    def count(self, name: str, channel: str = "", label: str = "", amount: int = 1) -> None:
        """Raise a counter of ``delivery.counts`` by what this transaction does."""
        self._counts[Key(name, channel, label)] += amount

    def observe(self, histogram: Histogram, channel: str, seconds: float, times: int = 1) -> None:
        """Add ``times`` observations of ``seconds`` to a histogram."""
        for key, amount in histogram.observed(channel, seconds, times).items():
            self._counts[key] += amount

    def due(self, batch_id: int, at: datetime) -> None:
        """A row of the batch is pending again and due at ``at``."""
        self._due[batch_id] = min(at, self._due.get(batch_id, at))

    def release(self, batch_id: int, day: date) -> None:
        """Let go of the batch: it is published again when its next pending row is due."""
        self.move(batch_id, State.PENDING, State.PENDING, 0)
        self._released[batch_id] = day

    def claimed(self, batch_id: int, at: datetime) -> None:
        self._claimed[batch_id] = at

    def flush(self) -> None:
        """Write the counts, batches in the order of their ids, so that two workers can't lock each other out.

        Last of all what ``/metrics`` shows: no row is locked after those of ``counts``.
        """
        with connection.cursor() as cursor:
            for batch_id in sorted(self._moves):
                moves = {name: self._moves[batch_id].get(name, 0) for name in _STATES}
                claimed_at = self._claimed.get(batch_id)
                cursor.execute(
                    _COUNT,
                    {
                        **moves,
                        "batch": batch_id,
                        "due": self._due.get(batch_id),
                        "claimed": claimed_at,
                        "lease": terms.LEASE_S,
                        "holder": self._is_holder and batch_id not in self._released,
                        "released": batch_id in self._released,
                    },
                )
                channel, pending = cursor.fetchone() or ("", 0)
                if pending and batch_id in self._released:
                    release_locked(batch_id, day=self._released[batch_id])
                for (name, reason_class), count in self._outcomes[batch_id].items():
                    self._counts[Key(name, channel, reason_class)] += count
        counts.add(self._counts)
        self._moves.clear()
        self._due.clear()
        self._claimed.clear()
        self._released.clear()
        self._outcomes.clear()
        self._counts.clear()


_COUNT = f"""
UPDATE delivery_batch SET
    {", ".join(f"{name} = {name} + %({name})s" for name in _STATES)},
    next_due_at = CASE WHEN pending + %(pending)s > 0 THEN LEAST(next_due_at, %(due)s::timestamptz) END,
    started_at = COALESCE(started_at, %(claimed)s::timestamptz),
    lease_until = CASE WHEN %(claimed)s::timestamptz IS NULL THEN lease_until
                       ELSE clock_timestamp() + make_interval(secs => %(lease)s) END,
    queued_at = CASE WHEN %(released)s THEN NULL
                     WHEN %(holder)s AND queued_at IS NOT NULL THEN clock_timestamp() ELSE queued_at END
WHERE id = %(batch)s
RETURNING channel, pending
"""


def release_locked(batch_id: int, *, day: date) -> None:
    """Let go of a batch that this transaction has locked."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE delivery_batch SET queued_at = NULL, next_due_at = CASE WHEN pending > 0 THEN (
                SELECT min(due_at) FROM delivery_delivery
                WHERE day = %(day)s AND batch_id = %(batch)s AND state = {int(State.PENDING)}
            ) END WHERE id = %(batch)s
            """,
            {"batch": batch_id, "day": day},
        )

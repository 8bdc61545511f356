"""The counts on the batches and those at ``/metrics``, moved in the transaction that moves the rows."""

from collections import Counter, defaultdict
from datetime import date, datetime

import orjson
from django.db import connection

from delivery import counts
from delivery.counts import Histogram, Key
from delivery.ledger import rows as terms
from delivery.models import State

_STATES = [state.label for state in State]
_OUTCOMES = {state.label for state in State if state.is_outcome}


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
        self._let_go: dict[int, date] = {}
        self._handed_back: dict[int, date] = {}
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

    def let_go(self, batch_id: int, day: date) -> None:
        """Let go of the batch: it is published again when its next pending row is due."""
        self.move(batch_id, State.PENDING, State.PENDING, 0)
        self._let_go[batch_id] = day

    def hand_back(self, batch_id: int, day: date) -> None:
        """Rows of the batch are as if they had not been claimed, and so is the batch where that was all of it."""
        self._handed_back[batch_id] = day

    def claimed(self, batch_id: int, at: datetime) -> None:
        self._claimed[batch_id] = at

    def flush(self) -> None:
        """Write the counts, batches in the order of their ids, so that two workers can't lock each other out.

        Last of all what ``/metrics`` shows: no row is locked after those of ``counts``.
        """
        if self._moves:
            self._write()
        counts.add(self._counts)
        for gathered in (
            *(self._moves, self._due, self._claimed, self._let_go, self._handed_back, self._outcomes, self._counts),
        ):
            gathered.clear()

    def _write(self) -> None:
        moves: list[dict[str, object]] = [
            {
                **self._moves[batch_id],
                "batch": batch_id,
                "due": self._due.get(batch_id),
                "claimed": self._claimed.get(batch_id),
                "holder": self._is_holder,
                "let_go": batch_id in self._let_go,
                "outcome": not _OUTCOMES.isdisjoint(self._moves[batch_id]),
            }
            for batch_id in self._moves
        ]
        with connection.cursor() as cursor:
            cursor.execute(
                _COUNT,
                {"moves": orjson.dumps(moves).decode(), "ids": list(self._moves), "lease": terms.LEASE_S},
            )
            written = cursor.fetchall()
        for batch_id, channel, pending in written:
            if pending and batch_id in self._let_go:
                let_go_locked(batch_id, day=self._let_go[batch_id])
            for (name, reason_class), count in self._outcomes[batch_id].items():
                self._counts[Key(name, channel, reason_class)] += count
        for batch_id in self._handed_back.keys() - self._claimed.keys():
            _not_started(batch_id, day=self._handed_back[batch_id])


_COUNT = f"""
WITH locked AS MATERIALIZED (
    SELECT id FROM delivery_batch WHERE id = ANY(%(ids)s::bigint[]) ORDER BY id FOR UPDATE
)
UPDATE delivery_batch b SET
    {", ".join(f"{name} = b.{name} + COALESCE(m.{name}, 0)" for name in _STATES)},
    next_due_at = CASE WHEN b.pending + COALESCE(m.pending, 0) > 0 THEN LEAST(b.next_due_at, m.due) END,
    started_at = COALESCE(b.started_at, m.claimed),
    lease_until = CASE WHEN m.claimed IS NULL THEN b.lease_until
                       ELSE clock_timestamp() + make_interval(secs => %(lease)s) END,
    queued_at = CASE WHEN m.let_go THEN NULL
                     WHEN m.holder AND b.queued_at IS NOT NULL THEN clock_timestamp() ELSE b.queued_at END,
    is_counted = b.is_counted AND NOT m.outcome
FROM locked l, jsonb_to_recordset(%(moves)s::jsonb) AS m(
    batch bigint, due timestamptz, claimed timestamptz, holder boolean, let_go boolean, outcome boolean,
    {", ".join(f"{name} integer" for name in _STATES)})
WHERE b.id = l.id AND m.batch = l.id AND b.id = ANY(%(ids)s::bigint[])
RETURNING b.id, b.channel, b.pending
"""


def _not_started(batch_id: int, *, day: date) -> None:
    """Of a batch that this transaction has locked: it has not started, unless the provider was asked for somebody."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE delivery_batch b SET started_at = NULL WHERE b.id = %(batch)s AND NOT EXISTS (
                SELECT 1 FROM delivery_delivery d
                WHERE d.day = %(day)s AND d.batch_id = b.id AND (d.attempt > 0 OR d.called_at IS NOT NULL)
            )
            """,
            {"batch": batch_id, "day": day},
        )


def let_go_locked(batch_id: int, *, day: date) -> None:
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

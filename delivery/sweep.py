"""What nobody holds any more: expired leases, forgotten messages, ended occurrences, answers that never came.

Every step is a conditional write over a few batches, so two sweeps at once or one that dies do no harm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import connection, transaction

from delivery import brake, caps, counts, ledger, untold
from delivery.ledger import Tally
from delivery.models import OUTCOME_UNKNOWN, WAITED_TOO_LONG, State
from delivery.providers import registry
from delivery.retry import MAX_RETRIES
from schedules import occurrences, operations
from schedules.models import Channel

log = structlog.get_logger(__name__)

# Real time after which a queued batch that nobody touched is published again: a lost message, a killed worker.
QUEUED_S = 45
# Batches settled in one transaction.
CHUNK = 100


@dataclass
class Swept:
    """Rows settled by each step; ``given_up``, ``held`` and ``closed`` count occurrences.

    ``requeued`` counts batches, ``finished`` schedules.
    """

    given_up: int = 0
    lease_expired: int = 0
    confirmed: int = 0
    unknown_failed: int = 0
    cancelled: int = 0
    ended: int = 0
    waited: int = 0
    requeued: int = 0
    held: int = 0
    closed: int = 0
    finished: int = 0


@dataclass(frozen=True)
class _Step:
    """``find`` selects (batch id, day, reason) of some batches; ``condition`` says which of their rows are meant.

    ``name`` is that of its field in ``Swept``.
    """

    name: str
    find: str
    source: State
    target: State
    condition: str = "true"
    may_have_arrived: bool = False


def _lost(channel: str) -> list[_Step]:
    """What becomes of people whose worker died during their call.

    It may have reached the provider, so it is never blindly repeated. Where a repeat does no harm it is made, unless it
    has been often enough: whatever kills its workers must end some time.
    """
    find = f"""
    SELECT b.id, b.day, 'worker_lost' FROM delivery_batch b
    WHERE b.sending > 0 AND b.lease_until < clock_timestamp() AND b.channel = '{channel}' AND b.id > %(after)s
    ORDER BY b.id LIMIT %(chunk)s
    """
    name, expired = "lease_expired", "d.leased_until < clock_timestamp()"
    if not registry.repeats_unknown(channel):
        return [_Step(name, find, State.SENDING, State.UNKNOWN, expired)]
    # An in-app message is written with its outcome: a worker that died has written none.
    is_clear = channel == Channel.IN_APP
    again, enough = f"{expired} AND d.attempt <= {MAX_RETRIES}", f"{expired} AND d.attempt > {MAX_RETRIES}"
    return [
        _Step(name, find, State.SENDING, State.PENDING, again, may_have_arrived=not is_clear),
        _Step(name, find, State.SENDING, State.FAILED if is_clear else State.UNKNOWN, enough),
    ]


_UNKNOWN = _Step(
    "unknown_failed",
    f"""
    SELECT b.id, b.day, '{OUTCOME_UNKNOWN}' FROM delivery_batch b
    WHERE b.unknown > 0 AND b.id > %(after)s ORDER BY b.id LIMIT %(chunk)s
    """,
    State.UNKNOWN,
    State.FAILED,
    f"d.leased_until < clock_timestamp() AND NOT {ledger.TOLD}",
)
_CANCELLED = _Step(
    "cancelled",
    """
    SELECT b.id, b.day, o.reason FROM schedules_occurrence o JOIN delivery_batch b ON b.occurrence_id = o.id
    WHERE o.closed_at IS NULL AND o.state = 'cancelled' AND b.pending > 0 AND b.id > %(after)s
    ORDER BY b.id LIMIT %(chunk)s
    """,
    State.PENDING,
    State.CANCELLED,
)
_ENDED = _Step(
    "ended",
    """
    SELECT b.id, b.day, 'occurrence_ended' FROM schedules_occurrence o JOIN delivery_batch b ON b.occurrence_id = o.id
    WHERE o.closed_at IS NULL AND o.state = 'running' AND o.ends_at <= %(now)s AND b.pending > 0 AND b.id > %(after)s
    ORDER BY b.id LIMIT %(chunk)s
    """,
    State.PENDING,
    State.EXPIRED,
)
_WAITED = _Step(
    "waited",
    f"""
    SELECT b.id, b.day, '{WAITED_TOO_LONG}'
    FROM schedules_occurrence o JOIN delivery_batch b ON b.occurrence_id = o.id
    WHERE o.closed_at IS NULL AND o.state = 'running' AND b.expires_at <= %(now)s AND b.pending > 0
      AND b.id > %(after)s
    ORDER BY b.id LIMIT %(chunk)s
    """,
    State.PENDING,
    State.EXPIRED,
    ledger.WAITED,
)


def sweep(*, now: datetime) -> Swept:
    """Run every step once."""
    swept = Swept(
        given_up=_give_up(now=now),
        lease_expired=sum(_run(step, now=now) for channel in Channel.values for step in _lost(channel)),
        confirmed=_confirm(now=now),
        unknown_failed=_run(_UNKNOWN, now=now),
        cancelled=_run(_CANCELLED, now=now),
        ended=_run(_ENDED, now=now),
        waited=_run(_WAITED, now=now),
        requeued=_counted("requeued", _requeue),
    )
    swept.held = _counted("held", lambda: brake.hold_failing(now=now))
    swept.closed = _counted("closed", lambda: close_settled(now=now))
    swept.finished = _counted("finished", lambda: operations.finish_spent(now=now))
    if any(vars(swept).values()):
        log.info("swept", **{name: count for name, count in vars(swept).items() if count})
    return swept


def _run(step: _Step, *, now: datetime) -> int:
    """Once through the batches that the step finds, some in each transaction; return the rows settled."""
    settled, after = 0, 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(step.find, {"now": now, "chunk": CHUNK, "after": after})
            batches = cursor.fetchall()
            tally = Tally(is_holder=False)
            before = settled
            for batch_id, day, reason in batches:
                settled += ledger.settle_batch(
                    batch_id,
                    day=day,
                    source=step.source,
                    target=step.target,
                    reason=reason,
                    now=now,
                    tally=tally,
                    condition=step.condition,
                    waits=False,
                    may_have_arrived=step.may_have_arrived,
                )
            tally.count(counts.SWEPT, label=step.name, amount=settled - before)
            tally.flush()
        if len(batches) < CHUNK:
            return settled
        after = batches[-1][0]


def _confirm(*, now: datetime) -> int:
    """Settle unknown deliveries of which the provider had told before they were known to be unanswered."""
    confirmed, after = 0, 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_UNKNOWN.find, {"chunk": CHUNK, "after": after})
            batches = [(batch_id, day) for batch_id, day, _ in cursor.fetchall()]
            tally = Tally(is_holder=False)
            found, released = ledger.correct_batches(batches, now=now, tally=tally) if batches else (0, [])
            tally.count(counts.SWEPT, label="confirmed", amount=found)
            tally.flush()
        caps.give_back(released)
        confirmed += found
        if len(batches) < CHUNK:
            return confirmed
        after = batches[-1][0]


def _counted(step: str, work: Callable[[], int]) -> int:
    with transaction.atomic():
        done = work()
        counts.add({counts.Key(counts.SWEPT, label=step): done})
    return done


def _give_up(*, now: datetime) -> int:
    with transaction.atomic():
        given_up = occurrences.give_up(now=now)
        counts.add(
            {
                counts.Key(counts.MISSED, label="not_materialised"): given_up.missed,
                counts.Key(counts.SWEPT, label="given_up"): sum(given_up),
            }
        )
    return sum(given_up)


def close_settled(*, now: datetime) -> int:
    """Close the occurrences that have no open row left."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"{_SETTLED} ORDER BY o.id FOR NO KEY UPDATE OF o SKIP LOCKED")
        held = [pk for (pk,) in cursor.fetchall()]
        # An edit may have given one people again between the look and the lock; nobody can any more.
        cursor.execute(f"{_SETTLED} AND o.id = ANY(%s)", [held])
        ended = [pk for (pk,) in cursor.fetchall()]
        untold.closed(ended)
        return occurrences.close(ended, now=now)


_SETTLED = """
SELECT o.id FROM schedules_occurrence o
WHERE o.closed_at IS NULL AND o.state IN ('running', 'cancelled') AND NOT EXISTS (
    SELECT 1 FROM delivery_batch b
    WHERE b.occurrence_id = o.id AND (b.pending > 0 OR b.sending > 0 OR b.unknown > 0)
)"""


def _requeue() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH stale AS MATERIALIZED (
                SELECT id FROM delivery_batch WHERE queued_at < clock_timestamp() - make_interval(secs => %s)
                ORDER BY id LIMIT 10000 FOR UPDATE SKIP LOCKED
            )
            UPDATE delivery_batch b SET queued_at = NULL FROM stale WHERE b.id = stale.id
            """,
            [QUEUED_S],
        )
        return int(cursor.rowcount)

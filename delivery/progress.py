"""How far an occurrence is and when it will be through, read from its batches' counters and a few of its rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection

from delivery.models import State
from schedules.models import GOES_ON, Occurrence, OccurrenceState

RECENT = timedelta(minutes=1)
# Batches whose rows are read for the rate; of more, so many by chance stand for all.
SAMPLE = 40


@dataclass(frozen=True)
class Progress:
    """``done`` people of ``targeted`` have their outcome.

    ``per_second``: people who got theirs by sending, over the last minute, or since it began if that is less; the
    figure of a large occurrence stands on a sample. ``eta``: when the last one will, at that rate and not before the
    last wave; None where nobody can say, as nothing moves or everything is done.
    """

    targeted: int
    done: int
    per_second: float
    eta: datetime | None


def of(occurrence: Occurrence, *, counted: Mapping[str, int], now: datetime) -> Progress:
    """``counted``: its people by state, as ``books.counted`` has them."""
    done = sum(counted[state.label] for state in State if state.is_outcome)
    rate = _rate(occurrence, now=now) if occurrence.begun_at and occurrence.outcomes is None else 0.0
    left = sum(counted.values()) - done
    eta = _eta(occurrence, rate=rate, now=now) if left and _moves(occurrence) else None
    return Progress(occurrence.targeted, done, rate, eta)


def _moves(occurrence: Occurrence) -> bool:
    return (
        occurrence.state == OccurrenceState.RUNNING
        and not occurrence.held_reason
        and occurrence.schedule.status in GOES_ON
    )


# A lease is half a minute of real time from the claim, so these were claimed within the last minute and a half: time
# enough for the answers of the last minute.
_RECENT = f"""
WITH recent AS MATERIALIZED (
    SELECT b.id, count(*) OVER () AS batches FROM delivery_batch b
    WHERE b.occurrence_id = %(occurrence)s AND b.lease_until > clock_timestamp() - interval '1 minute'
    ORDER BY hashint8(b.id) LIMIT {SAMPLE}
)
SELECT count(d.*), max(r.batches), count(DISTINCT r.id) FROM recent r
LEFT JOIN delivery_delivery d ON d.batch_id = r.id AND d.day = %(day)s
    AND d.state >= {int(State.SENT)} AND d.settled_at > %(since)s
"""


def _rate(occurrence: Occurrence, *, now: datetime) -> float:
    since = max(now - RECENT, occurrence.begun_at or now)
    seconds = max((now - since).total_seconds(), 1.0)
    with connection.cursor() as cursor:
        cursor.execute(
            _RECENT,
            {"occurrence": occurrence.pk, "day": occurrence.day, "since": since - timedelta(microseconds=1)},
        )
        people, batches, read = cursor.fetchone()
    return people * batches / read / seconds if read else 0.0


# A batch knows when the next of its people is due. Where it holds several waves, its rows know the last.
_AHEAD = f"""
SELECT sum(pending + sending + unknown) FILTER (WHERE COALESCE(next_due_at, %(now)s) <= %(now)s),
       GREATEST(max(next_due_at) FILTER (WHERE next_due_at > %(now)s), (
           SELECT max(d.due_at) FROM delivery_batch m JOIN delivery_delivery d ON d.batch_id = m.id
           WHERE m.occurrence_id = %(occurrence)s AND m.wave_at IS NULL AND m.pending > 0
             AND d.day = %(day)s AND d.state = {int(State.PENDING)} AND d.due_at > %(now)s))
FROM delivery_batch WHERE occurrence_id = %(occurrence)s AND (pending > 0 OR sending > 0 OR unknown > 0)
"""


def _eta(occurrence: Occurrence, *, rate: float, now: datetime) -> datetime | None:
    """Who is due takes their time at the present rate; who is ahead is not through before the last of them is due."""
    with connection.cursor() as cursor:
        cursor.execute(_AHEAD, {"occurrence": occurrence.pk, "day": occurrence.day, "now": now})
        due, last_ahead = cursor.fetchone()
    if due and not rate:
        return None
    if own := occurrence.schedule.max_per_minute:  # what a bucket lets through at first does not last
        rate = min(rate, own / 60)
    through = now + timedelta(seconds=float(due or 0) / rate) if rate else now
    return max(through, last_ahead) if last_ahead else through

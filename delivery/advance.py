"""Advancing the test clock: from due instant to due instant, everything that is due done in between.

One jump over many hours would expire every wave; so nobody jumps.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

from delivery import continuity, dispatch, ledger, materialise, partitions, sending, sweep
from schedules import clock
from schedules.models import Channel, Occurrence, OccurrenceState

# Real seconds without any change after which workers are taken for dead.
STUCK_S = 30.0
# More is a slip of the hand: each day on the way is lived through, with partitions of its own.
FARTHEST = timedelta(days=366)
_POLL_S = 0.02


class NobodyWorks(Exception):
    """Something is due and nobody does it."""


def advance(*, to: datetime, drive: Callable[[], None]) -> Iterator[datetime]:
    """Bring the test clock to ``to``; yield the instants on the way, each with everything due by then done.

    ``drive`` hands out what is due (the tick), or does it itself (``work``). Raises ``NobodyWorks``,
    ``ValueError`` for an instant in the past or beyond ``FARTHEST``, and what ``clock.advance_to`` raises.
    """
    start = clock.now()
    if to < start:
        raise ValueError(f"{to.isoformat()} is before the clock's present; only 'reset' goes back.")
    if to - start > FARTHEST:
        raise ValueError(f"{to.isoformat()} is too far: advance by {FARTHEST.days} days at the most, or in steps.")
    partitions.ensure(first=start.date(), last=to.date() + timedelta(days=partitions.AHEAD_DAYS))
    # What falls due between a look and the next must not be passed over: each search starts where the last look was.
    done_by = _drain(drive)
    while (instant := _next_instant(after=done_by)) and instant < to:
        _go(instant)
        done_by = _drain(drive)
        yield done_by
    _go(to)
    _drain(drive)
    yield clock.now()


def catch_up(*, hand_out: Callable[[dispatch.Handout], None]) -> None:
    """A tick that materialises by itself, so that whoever waits for each step needn't wait for a queue."""
    if not continuity.look(now=clock.now()):
        return
    dispatch.open_due(now=clock.now())
    for occurrence_id in dispatch.to_materialise():
        materialise.attempt(occurrence_id=occurrence_id, now=clock.now())
    for handout in dispatch.take_due(now=clock.now()):
        hand_out(handout)


def work() -> None:
    """Do in this process what is due: open, materialise, send, sweep."""
    catch_up(hand_out=lambda message: sending.send(batch_ids=message.batch_ids))
    sweep.sweep(now=clock.now())


def _go(instant: datetime) -> None:
    """The clock runs on meanwhile and may have passed ``instant``, even between a look at it and this."""
    with suppress(ValueError):
        clock.advance_to(instant)


def _drain(drive: Callable[[], None]) -> datetime:
    """Wait until everything due is done; return the instant for which that was found."""
    now = clock.now()
    left = _due(now)
    changed = time.monotonic()
    while any(left):
        drive()
        time.sleep(_POLL_S)
        now = clock.now()
        before, left = left, _due(now)
        if left != before:
            changed = time.monotonic()
        elif time.monotonic() - changed > STUCK_S:
            _refuse_slow()
            raise NobodyWorks(
                f"{left[0]} schedules, {left[1]} occurrences and {left[2]} recipients are due and nothing happens:"
                " start the workers, or work in this process (--inline)."
            )
    return now


def _refuse_slow() -> None:
    if slow := _waiting_for(materialise.TOO_SLOW):
        raise NobodyWorks(
            f"The audience of occurrence {slow} takes longer than MATERIALISE_STATEMENT_TIMEOUT_MS"
            f" ({settings.MATERIALISE_STATEMENT_TIMEOUT}): add a clause that an index serves, or allow more time."
        )
    if lost := _waiting_for(materialise.AWAY, materialise.REFUSED):
        raise NobodyWorks(
            f"The user service does not tell who is in the audience of occurrence {lost}: the log of the worker says"
            " why, and manage.py check_user_service what it does else."
        )


def _waiting_for(*reasons: str) -> str:
    waiting = Occurrence.objects.filter(state=OccurrenceState.MATERIALISING, reason__in=reasons)
    return ", ".join(str(pk) for pk in waiting.order_by("pk").values_list("pk", flat=True)[:10])


# An occurrence or a schedule that a pause or a stop holds back is not waited for.
_GOING = (
    f"{ledger.GOES} AND NOT {ledger.stopped('s.channel')} AND NOT {ledger.refused('s.channel')}"
    f" AND NOT {ledger.unrendered('s')}"
)

_OF_WHICH = (
    """JOIN schedules_occurrence o ON o.id = b.occurrence_id JOIN schedules_schedule s ON s.id = o.schedule_id"""
)


# Both questions are asked again and again while a day passes, so each goes by the indexes of what waits and what is
# queued: all that is open may be a hundred thousand batches that are due tonight.
def _due(now: datetime) -> tuple[int, int, int]:
    """Schedules to open, occurrences to materialise, recipients to send to or being sent to, all by ``now``."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT (SELECT count(*) FROM schedules_schedule WHERE status = 'active' AND next_run_at <= %(ahead)s),
                   (SELECT count(*) FROM schedules_occurrence o JOIN schedules_schedule s ON s.id = o.schedule_id
                    WHERE o.state = 'materialising' AND s.status IN {dispatch.MATERIALISED}),
                   (SELECT COALESCE(sum(b.sending + CASE WHEN b.next_due_at <= %(now)s THEN b.pending ELSE 0 END), 0)
                    FROM delivery_batch b {_OF_WHICH}
                    WHERE (b.sending > 0 OR b.pending > 0 AND b.queued_at IS NOT NULL AND b.next_due_at <= %(now)s
                           OR b.pending > 0 AND b.queued_at IS NULL AND b.channel = ANY(%(channels)s)
                              AND b.next_due_at <= %(now)s) AND {_GOING})
            """,
            {
                "now": now,
                "ahead": now + timedelta(seconds=settings.MATERIALISE_AHEAD_S),
                "channels": Channel.values,
            },
        )
        schedules, occurrences, recipients = cursor.fetchone()
        return int(schedules), int(occurrences), int(recipients)


def _next_instant(*, after: datetime) -> datetime | None:
    """The next instant at which an occurrence opens or anyone is due."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT LEAST(
                (SELECT min(next_run_at) - make_interval(secs => %(ahead)s) FROM schedules_schedule
                 WHERE status = 'active' AND next_run_at > %(after)s + make_interval(secs => %(ahead)s)),
                (SELECT min(next_due_at) FROM (
                     SELECT b.next_due_at FROM delivery_batch b {_OF_WHICH}
                     WHERE b.pending > 0 AND b.queued_at IS NOT NULL AND b.next_due_at > %(after)s AND {_GOING}
                     UNION ALL
                     SELECT first.* FROM unnest(%(channels)s::text[]) AS c(channel), LATERAL (
                         SELECT b.next_due_at FROM delivery_batch b {_OF_WHICH}
                         WHERE b.channel = c.channel AND b.pending > 0 AND b.queued_at IS NULL
                           AND b.next_due_at > %(after)s AND {_GOING}
                         ORDER BY b.next_due_at LIMIT 1
                     ) AS first
                 ) AS waiting))
            """,
            {"after": after, "ahead": settings.MATERIALISE_AHEAD_S, "channels": Channel.values},
        )
        instant: datetime | None = cursor.fetchone()[0]
    return instant

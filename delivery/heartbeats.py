"""Signs of life: what must go on happening writes when it last did, in real time.

A worker can be connected to its queue and consume nothing, which nobody sees while there is nothing to do. So each
queue is asked now and then by a message that does nothing but answer: a canary. A queue is *silent* for as long as it
has neither answered nor taken up any other work since it was first asked in vain.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import structlog
from django.conf import settings
from django.db import connection, transaction

from schedules.models import Channel

log = structlog.get_logger(__name__)

TICK = "tick"
SWEEP = "sweep"
SES_EVENTS = "ses_events"  # the queue of what SES tells was asked
TEMPLATES = "templates"  # of the template service, whose whole list was read
EVENTS = "events"  # the queue of calls to subscribers' endpoints
QUEUES = ("clock", "materialise", EVENTS, *Channel.values)
# Real seconds between two canaries of a queue, and until one that nobody took is worthless.
ASK_S = 15
ANSWER_S = 60
# A process says so rarely that it consumes: work is taken up hundreds of times a second.
_SAY_S = 5.0

_said: dict[str, float] = {}


class Life(NamedTuple):
    """Of a queue, in seconds: since it last took up anything (empty: never), and how long it has been silent."""

    consumed_ago: float | None
    silent: float


def beat(name: str) -> None:
    """``name`` is happening."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO delivery_heartbeat (name, seen_at) VALUES (%s, clock_timestamp())"
            " ON CONFLICT (name) DO UPDATE SET seen_at = EXCLUDED.seen_at",
            [name],
        )


def consumed(queue: str) -> None:
    """Work from ``queue`` has been taken up; written down now and then."""
    now = time.monotonic()
    if queue and now - _said.get(queue, -_SAY_S) >= _SAY_S:
        _said[queue] = now
        beat(f"queue:{queue}")


def ask(hand_out: Callable[[str], None]) -> None:
    """Send a canary to each queue by ``hand_out``, if it is time; say in the log which queues are silent.

    Any number of processes may ask: one does. Its commit comes after the messages, so that a queue that could not be
    reached counts as not asked.
    """
    with transaction.atomic():
        queues = _take_turn()
        for queue in queues:
            hand_out(queue)
    for queue, life in read().items() if queues else ():
        if life.silent > patience(queue):
            log.warning("queue_silent", queue=queue, seconds=round(life.silent))


def patience(queue: str) -> float:
    """Real seconds for which a queue may be silent while its workers work: a minute, and those of a long task."""
    longest = settings.MATERIALISE_STATEMENT_TIMEOUT / 1000 if queue == "materialise" else 0.0
    return ANSWER_S + longest


# `canary:NAME` keeps when the oldest canary without an answer was sent. A service that stood still begins anew: what it
# asked before expired unanswered.
_TURN = """
WITH before AS MATERIALIZED (
    SELECT seen_at FROM delivery_heartbeat WHERE name = 'canaries'
), turn AS (
    INSERT INTO delivery_heartbeat AS h (name, seen_at)
    SELECT 'canaries', clock_timestamp()
    WHERE NOT EXISTS (SELECT FROM before WHERE seen_at > clock_timestamp() - make_interval(secs => %(ask)s))
    ON CONFLICT (name) DO UPDATE SET seen_at = EXCLUDED.seen_at
        WHERE h.seen_at <= clock_timestamp() - make_interval(secs => %(ask)s)
    RETURNING seen_at
), asked AS (
    INSERT INTO delivery_heartbeat AS h (name, seen_at)
    SELECT 'canary:' || q, turn.seen_at FROM turn, unnest(%(queues)s::text[]) AS q ORDER BY q
    ON CONFLICT (name) DO UPDATE SET seen_at = CASE
        WHEN (SELECT seen_at FROM before) < EXCLUDED.seen_at - make_interval(secs => %(answer)s) THEN EXCLUDED.seen_at
        WHEN EXISTS (
            SELECT FROM delivery_heartbeat a
            WHERE a.name = 'queue:' || substr(h.name, 8) AND a.seen_at >= h.seen_at
        ) THEN EXCLUDED.seen_at
        ELSE h.seen_at END
    RETURNING name
)
SELECT substr(name, 8) FROM asked
"""


def _take_turn() -> list[str]:
    """The queues to ask now, noted as asked: all, or none when it is not yet time."""
    with connection.cursor() as cursor:
        cursor.execute(_TURN, {"ask": ASK_S, "answer": ANSWER_S, "queues": list(QUEUES)})
        return [queue for (queue,) in cursor.fetchall()]


def ages() -> dict[str, float]:
    """Real seconds since each heartbeat."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, extract(epoch FROM statement_timestamp() - seen_at)::float8 FROM delivery_heartbeat"
        )
        return dict(cursor.fetchall())


def read() -> dict[str, Life]:
    """How each queue lives."""
    return of_queues(ages())


def of_queues(age: dict[str, float]) -> dict[str, Life]:
    """How each queue lives, from the ages of all heartbeats.

    Silence is measured up to the latest canary, so that it does not grow while nobody asks.
    """
    lives = {}
    for queue in QUEUES:
        consumed_ago, asked_ago = age.get(f"queue:{queue}"), age.get(f"canary:{queue}")
        silent = 0.0
        if asked_ago is not None and (consumed_ago is None or consumed_ago > asked_ago):
            silent = asked_ago - age.get("canaries", 0.0)
        lives[queue] = Life(consumed_ago, silent)
    return lives

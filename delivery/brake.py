"""The failure brake: what goes wrong for most people is held before it goes wrong for all.

A held occurrence keeps everyone pending, and a person decides (``schedules.operations.release_occurrence``). Two things
hold one: too many failures of late, and an audience many times that of the occurrence before.
"""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

from schedules import operations

BY = "system:brake"
FAILURES, GREW = "failures", "audience_grown"
# Business time over which failures are counted: long enough for the last retry of the first batches.
RECENT = timedelta(minutes=10)
# An audience below this may grow as it likes.
LEAST_AUDIENCE = 1_000


def hold_failing(*, now: datetime) -> int:
    """Hold the occurrences most of whose latest outcomes are failures, and that have more to send; return how many.

    What failed before somebody released it does not count again.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT o.id, sum(b.failed + b.unknown) FROM schedules_occurrence o
            JOIN delivery_batch b ON b.occurrence_id = o.id
            WHERE o.closed_at IS NULL AND o.state = 'running' AND o.held_reason = ''
              AND b.started_at > GREATEST(%(since)s, COALESCE(o.released_at, '-infinity'))
              AND EXISTS (SELECT 1 FROM delivery_batch p WHERE p.occurrence_id = o.id AND p.pending > 0)
            GROUP BY o.id
            HAVING sum(b.failed + b.unknown) >= %(failures)s
               AND sum(b.failed + b.unknown) >= %(share)s * sum(b.sent + b.failed + b.unknown)
            ORDER BY o.id
            """,
            {"since": now - RECENT, "failures": settings.BRAKE_FAILURES, "share": settings.BRAKE_SHARE},
        )
        found = cursor.fetchall()
    return sum(
        operations.hold_occurrence(occurrence_id=pk, reason=FAILURES, by=BY, now=now, changes={"failed": int(failed)})
        for pk, failed in found
    )


def hold_grown(*, occurrence_id: int, now: datetime) -> bool:
    """Hold an occurrence just materialised if its audience is many times that of the one before; whether it was.

    An audience that a wrong clause has opened to everybody is caught before anyone gets a message.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT o.targeted, p.targeted FROM schedules_occurrence o CROSS JOIN LATERAL (
                SELECT targeted FROM schedules_occurrence p
                WHERE p.schedule_id = o.schedule_id AND p.occurrence_at < o.occurrence_at AND p.state = 'finished'
                ORDER BY p.occurrence_at DESC LIMIT 1
            ) p
            WHERE o.id = %(id)s AND o.released_at IS NULL AND o.targeted >= %(least)s
              AND p.targeted > 0 AND o.targeted > %(growth)s * p.targeted
            """,
            {"id": occurrence_id, "least": LEAST_AUDIENCE, "growth": settings.BRAKE_GROWTH},
        )
        found = cursor.fetchone()
    if found is None:
        return False
    changes = {"targeted": list(found[::-1])}
    return operations.hold_occurrence(occurrence_id=occurrence_id, reason=GREW, by=BY, now=now, changes=changes)

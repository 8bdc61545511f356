"""How late the provider calls of an occurrence started, against the instant promised to each wave."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from delivery.models import State
from schedules.models import Occurrence


@dataclass(frozen=True)
class Wave:
    """The people of an occurrence promised one instant. Lateness in seconds, of first attempts, empty before any."""

    wave_at: datetime
    people: int
    open: int
    sent: int
    p50: float | None
    p95: float | None
    p99: float | None


def waves(occurrence: Occurrence) -> list[Wave]:
    """The waves of an occurrence, the earliest first, from one statement.

    A retry is not counted, whoever asked for it: its call is late by design. Neither is a person who was never called.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT d.wave_at, count(*), count(*) FILTER (WHERE d.state < %s), count(*) FILTER (WHERE d.state = %s),
                   percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (
                       ORDER BY extract(epoch FROM d.called_at - d.wave_at)
                   ) FILTER (WHERE d.called_at IS NOT NULL AND d.attempt = 1 AND d.due_at = d.wave_at)
            FROM delivery_delivery d WHERE d.day = %s AND d.occurrence_id = %s GROUP BY d.wave_at ORDER BY d.wave_at
            """,
            [int(State.SENT), int(State.SENT), occurrence.day, occurrence.pk],
        )
        return [
            Wave(wave_at, people, still_open, sent, *(late or (None, None, None)))
            for wave_at, people, still_open, sent, late in cursor.fetchall()
        ]

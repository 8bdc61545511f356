"""How late the provider calls of an occurrence started, against the instant promised to each wave."""

from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from delivery.models import State, ZoneSource
from schedules.models import Occurrence
from schedules.recurrence import ZONE_NAMES


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


@dataclass(frozen=True)
class Start:
    """A wave as the batches' counters know it. ``started_at``: its first claim, whoever of it that was."""

    wave_at: datetime
    people: int
    open: int
    sent: int
    started_at: datetime | None

    @property
    def late_s(self) -> float | None:
        """Seconds from the promised instant to the first claim."""
        return (self.started_at - self.wave_at).total_seconds() if self.started_at else None


_OPEN = "b.pending + b.sending + b.unknown"
# Waves of few people share batches: of these alone the rows are read.
_STARTS = f"""
WITH parts AS (
    SELECT b.wave_at, sum(b.size) AS people, sum({_OPEN}) AS open, sum(b.sent) AS sent, min(b.started_at) AS started_at
    FROM delivery_batch b WHERE b.occurrence_id = %(occurrence)s AND b.wave_at IS NOT NULL GROUP BY b.wave_at
    UNION ALL
    SELECT d.wave_at, count(*), count(*) FILTER (WHERE d.state < {int(State.SENT)}),
           count(*) FILTER (WHERE d.state = {int(State.SENT)}), min(d.claimed_at)
    FROM delivery_batch b JOIN delivery_delivery d ON d.batch_id = b.id
    WHERE b.occurrence_id = %(occurrence)s AND b.wave_at IS NULL AND d.day = %(day)s GROUP BY d.wave_at
)
SELECT wave_at, sum(people)::bigint, sum(open)::bigint, sum(sent)::bigint, min(started_at)
FROM parts GROUP BY wave_at ORDER BY wave_at
"""


def starts(occurrence: Occurrence) -> list[Start]:
    """The waves of an occurrence, the earliest first, however many people: read from its batches."""
    with connection.cursor() as cursor:
        cursor.execute(_STARTS, {"occurrence": occurrence.pk, "day": occurrence.day})
        return [Start(*row) for row in cursor.fetchall()]


# People of a wave who are asked for their zones.
ZONES_SAMPLE = 30
_ZONES = f"""
WITH one AS (
    SELECT DISTINCT ON (b.wave_at) b.wave_at, b.id FROM delivery_batch b
    WHERE b.occurrence_id = %(occurrence)s AND b.wave_at IS NOT NULL ORDER BY b.wave_at, b.id
), people AS (
    SELECT one.wave_at, d.recipient_id, d.zone_source FROM one CROSS JOIN LATERAL (
        SELECT d.recipient_id, d.zone_source FROM delivery_delivery d
        WHERE d.day = %(day)s AND d.batch_id = one.id LIMIT {ZONES_SAMPLE}
    ) d
    UNION ALL
    SELECT d.wave_at, d.recipient_id, d.zone_source FROM delivery_batch b
    JOIN delivery_delivery d ON d.batch_id = b.id AND d.day = %(day)s
    WHERE b.occurrence_id = %(occurrence)s AND b.wave_at IS NULL
)
SELECT s.wave_at, CASE WHEN s.zone_source = {int(ZoneSource.PROFILE)} THEN r.time_zone ELSE %(zone)s END AS name
FROM people s LEFT JOIN schedules_recipient r ON r.id = s.recipient_id
GROUP BY 1, 2 ORDER BY 1, count(*) DESC, 2
"""


def zones(occurrence: Occurrence) -> dict[datetime, list[str]]:
    """By wave, the zones of its people as their profiles have them today, the most frequent first.

    Of a wave with batches of its own a few people are asked, whatever its size; of the small ones everybody.
    """
    found: dict[datetime, list[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(
            _ZONES, {"occurrence": occurrence.pk, "day": occurrence.day, "zone": occurrence.schedule.time_zone}
        )
        for wave_at, name in cursor.fetchall():
            found.setdefault(wave_at, []).extend([name] if name in ZONE_NAMES else [])
    return found


# Batches whose rows are read; of more, so many by chance stand for all.
SAMPLE = 40


@dataclass(frozen=True)
class Overall:
    """Lateness in seconds of the first calls for ``people`` of an occurrence, who are a sample of a large one."""

    p50: float | None
    p99: float | None
    people: int
    is_sample: bool


_OVERALL = f"""
WITH begun AS MATERIALIZED (
    SELECT b.id, count(*) OVER () AS batches FROM delivery_batch b
    WHERE b.occurrence_id = %(occurrence)s AND b.started_at IS NOT NULL ORDER BY hashint8(b.id) LIMIT {SAMPLE}
)
SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM d.called_at - d.wave_at)), count(*),
       COALESCE((SELECT max(batches) FROM begun), 0)
FROM begun b JOIN delivery_delivery d ON d.batch_id = b.id AND d.day = %(day)s
WHERE d.called_at IS NOT NULL AND d.attempt = 1 AND d.due_at = d.wave_at
"""


def overall(occurrence: Occurrence) -> Overall:
    """How late the calls of an occurrence began; retries are left out, as ``waves`` leaves them out."""
    with connection.cursor() as cursor:
        cursor.execute(_OVERALL, {"occurrence": occurrence.pk, "day": occurrence.day})
        late, people, batches = cursor.fetchone()
    p50, p99 = late or (None, None)
    return Overall(p50, p99, people, batches > SAMPLE)

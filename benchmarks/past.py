"""A past to send on top of: occurrences of the last week in which everyone was sent to, with their books."""

from datetime import datetime, timedelta

from benchmarks.harness import execute, query
from schedules import operations
from schedules.definition import Definition
from schedules.models import MessageTemplate

DAYS = 7

_OCCURRENCES = """
INSERT INTO schedules_occurrence (schedule_id, occurrence_at, state, reason, version, template_version, opens_at,
    ends_at, targeted, cursor, opened_at, materialised_at, begun_at, closed_at)
SELECT %(schedule)s, at, 'finished', '', 1, 1, at, at + interval '7 days', %(people)s, 'end', at, at, at, at
FROM (SELECT %(now)s::timestamptz - interval '1 hour' - i * make_interval(secs => %(apart)s) AS at
      FROM generate_series(0, %(count)s - 1) AS i) AS past
RETURNING id
"""

_ROWS = """
WITH people AS MATERIALIZED (
    SELECT id, (row_number() OVER (ORDER BY id) - 1) / 500 AS number FROM schedules_recipient
), batches AS MATERIALIZED (
    SELECT number, count(*) AS size, nextval(pg_get_serial_sequence('delivery_batch', 'id')) AS id
    FROM people GROUP BY number
), written AS (
    INSERT INTO delivery_batch (id, occurrence_id, day, channel, wave_at, size, sent, started_at, pending, sending,
        unknown, failed, rate_limited, suppressed, unaddressable, cancelled, erased, expired)
    OVERRIDING SYSTEM VALUE
    SELECT b.id, o.id, (o.occurrence_at AT TIME ZONE 'UTC')::date, 'email', o.occurrence_at, b.size, b.size,
           o.occurrence_at, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    FROM batches b, schedules_occurrence o WHERE o.id = %(occurrence)s
)
INSERT INTO delivery_delivery (day, occurrence_id, recipient_id, batch_id, wave_at, due_at, claimed_at, called_at,
    settled_at, version, state, zone_source, attempt, provider_id)
SELECT (o.occurrence_at AT TIME ZONE 'UTC')::date, o.id, p.id, b.id, o.occurrence_at, o.occurrence_at, o.occurrence_at,
       o.occurrence_at, o.occurrence_at, 1, 10, 0, 1, 'past-' || o.id || '-' || p.id
FROM people p JOIN batches b USING (number), schedules_occurrence o WHERE o.id = %(occurrence)s ORDER BY p.id
"""


def fill(*, occurrences: int, template: MessageTemplate, now: datetime) -> int:
    """Add so many occurrences, evenly over the last ``DAYS`` days; return the ledger rows written."""
    ((people,),) = query("SELECT count(*) FROM schedules_recipient")
    definition = Definition(
        name="The past",
        channel="email",
        template_id=template.pk,
        schedule_type="cron",
        cron="0 9 * * *",
        audience_query={"all": []},
    )
    schedule = operations.create(definition=definition, by="benchmark", now=now, draft=True)
    apart = timedelta(days=DAYS).total_seconds() / occurrences
    parameters = {"schedule": schedule.pk, "people": people, "count": occurrences, "apart": apart, "now": now}
    written = sum(execute(_ROWS, {"occurrence": pk}) for (pk,) in query(_OCCURRENCES, parameters))
    execute("VACUUM (ANALYZE) delivery_delivery, delivery_batch, schedules_occurrence")
    return written

"""From an occurrence to its rows: the audience is found, given its instants, cut into batches and written.

A local audience is one statement, hence one snapshot, and one transaction with the occurrence's cursor: a second
worker, a crash or an edit in between makes the cursor's conditional update find no row, and everything is undone.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import IntegrityError, OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected, QueryCanceled, UniqueViolation

from delivery import brake, counts, ledger
from delivery.counts import OUTCOMES, Key
from delivery.models import State, ZoneSource
from schedules.audience.parser import parse
from schedules.audience.sources import AudienceTooSlow, LocalSource
from schedules.definition import Definition
from schedules.models import Occurrence, OccurrenceState, OnPast, ScheduleType, ScheduleVersion, TimeZoneMode
from schedules.occurrences import CURSOR_KEPT, EDITED
from schedules.recurrence import due_by_zone, due_instant

# Waves of fewer people share batches: a user-local occurrence would else fall into hundreds of tiny ones.
SMALLEST_OWN_WAVE = 50
# Batches are cut in this order, so that one call's people share few slots of the counters.
BUCKETS = 64
# Rows from which on the planner is told of an occurrence at once.
LARGE = 2_000
# Real time: longer than the largest audience takes; a second worker then tries again.
LEASE_S = 300
CURSOR_END = "end"
# Why an occurrence still waits for its people, as long as it does.
TOO_SLOW = "audience_too_slow"

log = structlog.get_logger(__name__)


class Superseded(Exception):
    """Somebody else materialised the occurrence or an edit came in between; nothing was written."""


@dataclass(frozen=True)
class Materialised:
    """``targeted`` counts every row, ``pending`` those that will be tried."""

    occurrence_id: int
    targeted: int
    pending: int


def attempt(*, occurrence_id: int, now: datetime) -> Materialised | None:
    """Take the occurrence and materialise it; ``None`` where nothing was written.

    That is so when another worker has it or was quicker, when an edit came in between, and when its audience takes
    too long: ``Occurrence.reason`` then says ``audience_too_slow`` and the next attempt waits for the lease's end.
    """
    if not lease(occurrence_id):
        return None
    try:
        done = materialise(occurrence_id=occurrence_id, now=now)
    except Superseded:
        give_back(occurrence_id)
        log.info("materialise_superseded", occurrence_id=occurrence_id)
    except AudienceTooSlow:
        Occurrence.objects.filter(pk=occurrence_id, state=OccurrenceState.MATERIALISING).update(reason=TOO_SLOW)
        log.warning(TOO_SLOW, occurrence_id=occurrence_id)
    else:
        log.info("materialised", occurrence_id=occurrence_id, targeted=done.targeted, pending=done.pending)
        return done
    return None


def lease(occurrence_id: int) -> bool:
    """Take the occurrence for this worker; false when another one has it or nothing is to be done."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE schedules_occurrence SET materialise_lease_until = clock_timestamp() + make_interval(secs => %s)
            WHERE id = %s AND state = 'materialising'
              AND (materialise_lease_until IS NULL OR materialise_lease_until < clock_timestamp())
            """,
            [LEASE_S, occurrence_id],
        )
        return bool(cursor.rowcount)


def give_back(occurrence_id: int) -> None:
    """Let the next attempt start at once."""
    Occurrence.objects.filter(pk=occurrence_id, state=OccurrenceState.MATERIALISING).update(
        materialise_queued_at=None, materialise_lease_until=None
    )


def materialise(*, occurrence_id: int, now: datetime) -> Materialised:
    """Write the rows and batches of an occurrence and let it run.

    Raises ``Superseded``, and ``AudienceTooSlow`` when the query exceeds its time.
    """
    occurrence = Occurrence.objects.select_related("schedule").get(pk=occurrence_id)
    if occurrence.state != OccurrenceState.MATERIALISING:
        raise Superseded
    pinned = ScheduleVersion.objects.get(schedule=occurrence.schedule_id, version=occurrence.version)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            done = _materialise(cursor, occurrence, pinned, now=now)
    except IntegrityError as error:
        if isinstance(error.__cause__, UniqueViolation):  # another worker wrote the same rows first
            raise Superseded from error
        raise
    except OperationalError as error:
        if isinstance(error.__cause__, DeadlockDetected):
            raise Superseded from error
        if isinstance(error.__cause__, QueryCanceled):
            raise AudienceTooSlow(timeout_ms=settings.MATERIALISE_STATEMENT_TIMEOUT) from error
        raise
    _tell_planner(occurrence, rows=done.pending)
    return done


def _materialise(cursor: Any, occurrence: Occurrence, pinned: ScheduleVersion, *, now: datetime) -> Materialised:
    cursor.execute("SET LOCAL statement_timeout = %s", [settings.MATERIALISE_STATEMENT_TIMEOUT])
    again = occurrence.targeted > 0
    if again:
        _withdraw(cursor, occurrence, now=now)
    written = _write_rows(cursor, occurrence, pinned, again=again, now=now)
    targeted, cancelled = written.total(), 0
    if again:
        cancelled = _cancel_withdrawn(cursor, occurrence)
        targeted = _recount(cursor, occurrence) - occurrence.targeted
    _advance(cursor, occurrence, targeted=targeted, now=now)
    brake.hold_grown(occurrence_id=occurrence.pk, now=now)
    channel = pinned.definition["channel"]
    late = {Key(OUTCOMES[State.EXPIRED], channel, why): people for why, people in written.items() if why}
    counts.add({**late, Key(OUTCOMES[State.CANCELLED], channel, EDITED): cancelled})
    return Materialised(occurrence.pk, occurrence.targeted + targeted, _count_pending(cursor, occurrence))


def _tell_planner(occurrence: Occurrence, *, rows: int) -> None:
    """Have the ledger's day analysed if these rows are a good part of it.

    Autovacuum comes up to a minute later. Until then the planner would know of no row, or of small occurrences only,
    and might read far more than a call's people at each call.
    """
    if rows < LARGE:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE reltuples * 0.1 <= %s AND oid = ("
            "SELECT tableoid FROM delivery_delivery WHERE day = %s AND occurrence_id = %s LIMIT 1)",
            [rows, occurrence.day, occurrence.pk],
        )
        for (partition,) in cursor.fetchall():
            cursor.execute(f"ANALYZE (SKIP_LOCKED) {partition}")


def _write_rows(
    cursor: Any, occurrence: Occurrence, pinned: ScheduleVersion, *, again: bool, now: datetime
) -> Counter[str]:
    """Insert rows and batches; return how many rows were written, those taken back into the run included.

    They are counted by the reason why they came too late, empty for those that did not.
    """
    definition = Definition.from_json(pinned.definition)
    people, parameters = _people(occurrence, definition, again=again, now=now)
    times = _times(occurrence, definition)
    past_before = None if times.is_fixed else pinned.created_at
    cursor.execute(
        _INSERT.replace("__CONFLICT__", _TAKE_BACK if again else "").replace("__PEOPLE__", people),
        [
            *times.zones_and_instants(),
            *parameters,
            *times.fallback(),
            definition.on_past == OnPast.SEND_NOW,
            past_before,
            now,
            past_before,
            *_lateness(occurrence, definition, again=again, now=now),
            SMALLEST_OWN_WAVE,
            BUCKETS,
            settings.BATCH_SIZE,
            occurrence.pk,
            occurrence.day,
            definition.channel,
            occurrence.day,
            occurrence.pk,
            occurrence.version,
            now,
        ],
    )
    return Counter(dict(cursor.fetchall()))


def _lateness(occurrence: Occurrence, definition: Definition, *, again: bool, now: datetime) -> list[Any]:
    """In the order of the placeholders in _INSERT's `people`: since when a wave is too late, and when paused."""
    schedule = occurrence.schedule
    grace = timedelta(minutes=definition.misfire_grace_minutes)
    started = ledger.started_waves(occurrence.pk, day=occurrence.day) if again else []
    paused = schedule.paused_at - grace if schedule.paused_at else None
    return [now - grace, started, paused, schedule.resumed_at or "infinity"]


def _people(occurrence: Occurrence, definition: Definition, *, again: bool, now: datetime) -> tuple[str, list[Any]]:
    """SQL for (id, time_zone, held_at) of those meant: the audience, or the people an occurrence already has.

    ``held_at`` is the instant that the person was waiting for until now. Left out is who has been claimed.
    """
    key = [occurrence.day, occurrence.pk]
    if occurrence.cursor == CURSOR_KEPT:
        return _KEPT, key
    sql, parameters = LocalSource().sql(parse(definition.audience_query), now=now)
    if again:
        return _AGAIN.replace("__AUDIENCE__", sql), [*parameters, *key]
    return f"SELECT id, time_zone, NULL::timestamptz AS held_at FROM ({sql}) AS a", list(parameters)


_KEPT = f"""
SELECT r.id, r.time_zone, k.wave_at AS held_at
FROM delivery_delivery k JOIN schedules_recipient r ON r.id = k.recipient_id
WHERE k.day = %s AND k.occurrence_id = %s AND k.state = {int(State.CANCELLED)} AND k.reason = 'withdrawn'"""
# Rows with an outcome, or of a call under way, are not even looked at by the insertion: it would wait for their locks,
# which their worker may hold while it waits for ours.
_AGAIN = f"""
SELECT a.id, a.time_zone, CASE WHEN k.reason = 'withdrawn' THEN k.wave_at END AS held_at
FROM (__AUDIENCE__) AS a
LEFT JOIN delivery_delivery k ON k.day = %s AND k.occurrence_id = %s AND k.recipient_id = a.id
WHERE k.recipient_id IS NULL OR (k.state = {int(State.CANCELLED)} AND k.reason IN ('withdrawn', 'edited'))"""


@dataclass(frozen=True)
class _Times:
    """The instant of every zone, and of those whose zone is missing or unknown."""

    by_zone: dict[str, datetime]
    default: datetime
    is_fixed: bool

    def zones_and_instants(self) -> list[Any]:
        return [list(self.by_zone), list(self.by_zone.values())]

    def fallback(self) -> list[Any]:
        # In the order of the placeholders in _INSERT's `placed`.
        if self.is_fixed:
            return [self.default, *[int(ZoneSource.FIXED)] * 3]
        return [self.default, int(ZoneSource.PROFILE), int(ZoneSource.MISSING), int(ZoneSource.INVALID)]


def _times(occurrence: Occurrence, definition: Definition) -> _Times:
    if occurrence.at_once:
        return _Times({}, occurrence.occurrence_at, is_fixed=True)
    once = definition.schedule_type == ScheduleType.ONCE
    at = definition.run_at if once and definition.run_at else occurrence.occurrence_at
    if definition.time_zone_mode == TimeZoneMode.FIXED:
        return _Times({}, at, is_fixed=True)
    wall = at.replace(tzinfo=None)
    return _Times(dict(due_by_zone(wall)), due_instant(wall, definition.time_zone), is_fixed=False)


# placed: who is due when. moved: who is sent to at once. people: who is too late already, and why; nobody is who waited
# for that very instant before an edit, and no wave that has started. waves -> cut: which batch.
# In fixed mode no zone joins, so everyone gets the default instant. Rows are written in the order of their ids while
# batches go by bucket: the rows of one call then lie on different pages, each with room for the new version beside the
# old (HOT).
_INSERT = f"""
WITH zones AS MATERIALIZED (
    SELECT * FROM unnest(%s::text[], %s::timestamptz[]) AS z(name, due_at)
), audience AS (
    __PEOPLE__
), placed AS (
    SELECT a.id, a.held_at, COALESCE(z.due_at, %s::timestamptz) AS wave_at,
           CASE WHEN z.name IS NOT NULL THEN %s WHEN a.time_zone = '' THEN %s ELSE %s END AS zone_source
    FROM audience a LEFT JOIN zones z ON z.name = a.time_zone
), moved AS (
    SELECT id, held_at, zone_source,
           CASE WHEN %s AND wave_at < %s::timestamptz AND held_at IS DISTINCT FROM wave_at THEN %s::timestamptz
                ELSE wave_at END AS due_at
    FROM placed
), people AS MATERIALIZED (
    SELECT id, zone_source, due_at,
           CASE WHEN due_at < %s::timestamptz AND held_at IS DISTINCT FROM due_at THEN 'past_zone'
                WHEN due_at >= %s::timestamptz OR due_at = ANY(%s::timestamptz[]) THEN ''
                WHEN due_at >= %s::timestamptz AND due_at < %s::timestamptz THEN 'paused'
                ELSE 'down' END AS lost
    FROM moved
), waves AS (
    SELECT due_at, count(*) >= %s AS is_own FROM people GROUP BY due_at
), ranked AS (
    SELECT p.*, CASE WHEN w.is_own THEN p.due_at END AS own_wave,
           row_number() OVER (
               PARTITION BY CASE WHEN w.is_own THEN p.due_at END
               ORDER BY CASE WHEN w.is_own THEN NULL ELSE p.due_at END, p.id %% %s, p.id
           ) - 1 AS position
    FROM people p JOIN waves w USING (due_at)
), cut AS MATERIALIZED (
    SELECT id, due_at, zone_source, lost, own_wave,
           dense_rank() OVER (ORDER BY own_wave NULLS LAST, position / %s) AS number
    FROM ranked
), sizes AS (
    SELECT number, min(own_wave) AS own_wave, count(*) AS size, count(*) FILTER (WHERE lost <> '') AS lost,
           min(due_at) FILTER (WHERE lost = '') AS next_due_at
    FROM cut GROUP BY number
), batch_ids AS MATERIALIZED (
    SELECT number, nextval(pg_get_serial_sequence('delivery_batch', 'id')) AS id FROM sizes
), batches AS (
    INSERT INTO delivery_batch (id, occurrence_id, day, channel, wave_at, size, next_due_at, pending, expired,
        sending, unknown, sent, failed, rate_limited, suppressed, unaddressable, cancelled, erased)
    OVERRIDING SYSTEM VALUE
    SELECT i.id, %s, %s, %s, s.own_wave, s.size, s.next_due_at, s.size - s.lost, s.lost, 0, 0, 0, 0, 0, 0, 0, 0, 0
    FROM sizes s JOIN batch_ids i USING (number)
), rows AS (
    INSERT INTO delivery_delivery (day, occurrence_id, recipient_id, batch_id, wave_at, due_at, version, zone_source,
        state, reason, settled_at)
    SELECT %s, %s, c.id, i.id, c.due_at, c.due_at, %s, c.zone_source,
           CASE WHEN c.lost <> '' THEN {int(State.EXPIRED)} ELSE {int(State.PENDING)} END, c.lost,
           CASE WHEN c.lost <> '' THEN %s::timestamptz END
    FROM cut c JOIN batch_ids i USING (number) ORDER BY c.id
    __CONFLICT__
    RETURNING reason
)
SELECT reason, count(*) FROM rows GROUP BY reason
"""

# A row that was only withdrawn by an edit comes back. Where its instant stays, so do its attempts and their next time.
_TAKE_BACK = f"""
    ON CONFLICT (day, occurrence_id, recipient_id) DO UPDATE SET
        batch_id = EXCLUDED.batch_id, wave_at = EXCLUDED.wave_at, version = EXCLUDED.version,
        zone_source = EXCLUDED.zone_source, state = EXCLUDED.state, reason = EXCLUDED.reason,
        settled_at = EXCLUDED.settled_at,
        due_at = CASE WHEN delivery_delivery.wave_at = EXCLUDED.wave_at THEN delivery_delivery.due_at
                      ELSE EXCLUDED.due_at END,
        attempt = CASE WHEN delivery_delivery.wave_at = EXCLUDED.wave_at THEN delivery_delivery.attempt ELSE 0 END,
        called_at = CASE WHEN delivery_delivery.wave_at = EXCLUDED.wave_at THEN delivery_delivery.called_at END
    WHERE delivery_delivery.state = {int(State.CANCELLED)} AND delivery_delivery.reason IN ('withdrawn', 'edited')
"""


def _withdraw(cursor: Any, occurrence: Occurrence, *, now: datetime) -> None:
    """Take every pending row out of the run; those still meant are taken back by the insertion that follows.

    The reason stands within this transaction only: it tells these rows from those that an earlier edit cancelled.
    """
    cursor.execute(
        "UPDATE delivery_delivery SET state = %s, reason = 'withdrawn', settled_at = %s"
        " WHERE day = %s AND occurrence_id = %s AND state = %s",
        [int(State.CANCELLED), now, occurrence.day, occurrence.pk, int(State.PENDING)],
    )


def _cancel_withdrawn(cursor: Any, occurrence: Occurrence) -> int:
    cursor.execute(
        "UPDATE delivery_delivery SET reason = %s"
        " WHERE day = %s AND occurrence_id = %s AND state = %s AND reason = 'withdrawn'",
        [EDITED, occurrence.day, occurrence.pk, int(State.CANCELLED)],
    )
    cancelled: int = cursor.rowcount
    return cancelled


def _recount(cursor: Any, occurrence: Occurrence) -> int:
    """Count every batch of the occurrence from its rows, and drop those that lost them all; return the rows in all.

    The batches are locked before the rows are read: an outcome written meanwhile is either seen here, or added to what
    is counted here once these locks are gone. Rows come first, as in every transaction that locks both.
    """
    cursor.execute("SELECT id FROM delivery_batch WHERE occurrence_id = %s ORDER BY id FOR UPDATE", [occurrence.pk])
    sums = ", ".join(f"count(*) FILTER (WHERE d.state = {int(state)}) AS {state.label}" for state in State)
    sets = ", ".join(f"{state.label} = COALESCE(c.{state.label}, 0)" for state in State)
    cursor.execute(
        f"""
        UPDATE delivery_batch b SET {sets}, size = COALESCE(c.size, 0), next_due_at = c.next_due_at, queued_at = NULL,
               started_at = COALESCE(b.started_at, c.called_at)
        FROM delivery_batch a LEFT JOIN (
            SELECT d.batch_id, count(*) AS size,
                   min(d.due_at) FILTER (WHERE d.state = {int(State.PENDING)}) AS next_due_at,
                   min(d.called_at) AS called_at, {sums}
            FROM delivery_delivery d WHERE d.day = %s AND d.occurrence_id = %s GROUP BY d.batch_id
        ) c ON c.batch_id = a.id
        WHERE a.occurrence_id = %s AND b.id = a.id
        """,
        [occurrence.day, occurrence.pk, occurrence.pk],
    )
    cursor.execute("DELETE FROM delivery_batch WHERE occurrence_id = %s AND size = 0", [occurrence.pk])
    cursor.execute("SELECT COALESCE(sum(size), 0) FROM delivery_batch WHERE occurrence_id = %s", [occurrence.pk])
    rows: int = cursor.fetchone()[0]
    return rows


def _advance(cursor: Any, occurrence: Occurrence, *, targeted: int, now: datetime) -> None:
    cursor.execute(
        """
        UPDATE schedules_occurrence SET cursor = %s, targeted = targeted + %s, state = 'running',
               reason = '', materialised_at = %s, materialise_lease_until = NULL
        WHERE id = %s AND state = 'materialising' AND cursor = %s AND version = %s AND opens_at = %s
          AND targeted = %s
        """,
        [
            CURSOR_END,
            targeted,
            now,
            occurrence.pk,
            occurrence.cursor,
            occurrence.version,
            occurrence.opens_at,
            occurrence.targeted,
        ],
    )
    if not cursor.rowcount:
        raise Superseded


def _count_pending(cursor: Any, occurrence: Occurrence) -> int:
    cursor.execute("SELECT COALESCE(sum(pending), 0) FROM delivery_batch WHERE occurrence_id = %s", [occurrence.pk])
    pending: int = cursor.fetchone()[0]
    return pending

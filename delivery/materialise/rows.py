"""Writing an occurrence's rows and batches: who, when, and in which batch."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings

from delivery import ledger
from delivery.caps import BUCKETS
from delivery.materialise import quiet, sharing
from delivery.materialise.again import COMES_BACK, WITHDRAWN, Fate
from delivery.materialise.quiet import Pair
from delivery.models import WAITED_TOO_LONG, WINDOW_IS_QUIET, State, ZoneSource
from schedules.audience.parser import parse
from schedules.audience.sources import LocalSource
from schedules.definition import Definition
from schedules.models import Occurrence, OnPast, Resolution, ScheduleType, ScheduleVersion, TimeZoneMode
from schedules.occurrences import CURSOR_KEPT
from schedules.recurrence import ZONE_NAMES, due_by_zone, due_instant

# Waves of fewer people share batches: a user-local occurrence would else fall into hundreds of tiny ones.
SMALLEST_OWN_WAVE = 50


def write(
    cursor: Any,
    occurrence: Occurrence,
    pinned: ScheduleVersion,
    told: Resolution | None,
    *,
    again: bool,
    now: datetime,
) -> Counter[Fate]:
    """Insert rows and batches; return what the rows written are now, those taken back into the run included.

    ``told``: the audience as the user service has told it; None: it is found among the people kept here.
    """
    definition = Definition.from_json(pinned.definition)
    if told is not None:
        sharing.gather(cursor, told)
    people, parameters = _people(occurrence, definition, told, again=again, now=now)
    pairs = quiet.standing(cursor, definition)
    times = _times(occurrence, definition, pairs, now=now)
    past_before = None if times.is_fixed else pinned.created_at
    cursor.execute(
        _sql(people, has_quiet_people=bool(pairs), again=again),
        [
            *times.zones_and_instants(),
            *(_columns(pairs, 3) if pairs else []),
            *parameters,
            *times.fallback(),
            _after(definition, now),
            definition.on_past == OnPast.SEND_NOW,
            past_before,
            times.is_fixed,
            now,
            now,
            past_before,
            occurrence.ends_at,
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
    return Counter({Fate(State(state), reason): people for state, reason, people in cursor.fetchall()})


def _sql(people: str, *, has_quiet_people: bool, again: bool) -> str:
    return (
        _INSERT.replace("__CONFLICT__", _TAKE_BACK if again else "")
        .replace("__QUIET__", _QUIET if has_quiet_people else "")
        .replace("__ZONES__", _QUIET_ZONES if has_quiet_people else _ZONES)
        .replace("__PEOPLE__", people)
    )


def _columns(rows: Iterable[Sequence[Any]], number: int) -> list[list[Any]]:
    columns = list(map(list, zip(*rows, strict=True)))
    return columns or [[] for _ in range(number)]


def _lateness(occurrence: Occurrence, definition: Definition, *, again: bool, now: datetime) -> list[Any]:
    """In the order of the placeholders in _INSERT's `people`: since when a wave is too late, and when paused."""
    schedule = occurrence.schedule
    grace = timedelta(minutes=definition.misfire_grace_minutes)
    started = ledger.started_waves(occurrence.pk, day=occurrence.day) if again else []
    paused = schedule.paused_at - grace if schedule.paused_at else None
    return [now - grace, started, now - grace, paused, schedule.resumed_at or "infinity"]


def _people(
    occurrence: Occurrence, definition: Definition, told: Resolution | None, *, again: bool, now: datetime
) -> tuple[str, list[Any]]:
    """SQL for (id, time_zone, held_at, held_until) of those meant: the audience, or those an occurrence already has.

    ``held_at`` is the instant that the person was promised until now, ``held_until`` the one that was waited for. Left
    out is who has been claimed.
    """
    key = [occurrence.day, occurrence.pk]
    if occurrence.cursor == CURSOR_KEPT:
        return _KEPT, key
    sql: str
    parameters: Sequence[Any]
    if told is None:
        sql, parameters = LocalSource().sql(parse(definition.audience_query), now=now)
    else:
        sql, parameters = _TOLD, []
    if again:
        return _AGAIN.replace("__AUDIENCE__", sql), [*parameters, *key]
    nobody = "NULL::timestamptz AS held_at, NULL::timestamptz AS held_until"
    return f"SELECT id, time_zone, {nobody} FROM ({sql}) AS a", list(parameters)


# Who was erased meanwhile is nowhere to be found.
_TOLD = "SELECT r.id, r.time_zone FROM pg_temp.told_people t JOIN schedules_recipient r USING (id)"
_KEPT = f"""
SELECT r.id, r.time_zone, k.wave_at AS held_at, k.due_at AS held_until
FROM delivery_delivery k JOIN schedules_recipient r ON r.id = k.recipient_id
WHERE k.day = %s AND k.occurrence_id = %s AND k.state = {int(State.CANCELLED)} AND k.reason = '{WITHDRAWN}'"""
# Rows with an outcome, or of a call under way, are not even looked at by the insertion: it would wait for their locks,
# which their worker may hold while it waits for ours.
_AGAIN = f"""
SELECT a.id, a.time_zone, CASE WHEN k.reason = '{WITHDRAWN}' THEN k.wave_at END AS held_at,
       CASE WHEN k.reason = '{WITHDRAWN}' THEN k.due_at END AS held_until
FROM (__AUDIENCE__) AS a
LEFT JOIN delivery_delivery k ON k.day = %s AND k.occurrence_id = %s AND k.recipient_id = a.id
WHERE k.recipient_id IS NULL OR ({COMES_BACK.format("k")})"""


class _Instants(NamedTuple):
    """Of a zone: when its people are due, when those would be who are sent to at once, until when they may wait."""

    due_at: datetime
    at_once: datetime
    expires_at: datetime | None


class _Row(NamedTuple):
    """Of the table of zones. ``quiet``: the number of the pair whose people have these instants, 0 for all others.

    ``is_never``: their quiet hours leave nothing of the window.
    """

    name: str
    quiet: int
    source: int
    is_never: bool
    due_at: datetime
    at_once: datetime
    expires_at: datetime | None


@dataclass(frozen=True)
class _Times:
    """The instants of every zone, of people with quiet hours, and of those whose zone is missing or unknown.

    ``is_fixed``: all have one instant, unless a window or quiet hours say otherwise.
    """

    by_zone: Mapping[str, _Instants]
    quiet: Sequence[_Row]
    default: _Instants
    is_fixed: bool

    def zones_and_instants(self) -> list[Any]:
        zones = [_Row(name, 0, int(ZoneSource.PROFILE), False, *instants) for name, instants in self.by_zone.items()]
        return _columns([*zones, *self.quiet], len(_Row._fields))

    def fallback(self) -> list[Any]:
        # In the order of the placeholders in _INSERT's `placed`.
        if not self.by_zone:
            return [*self.default, *[int(ZoneSource.FIXED)] * 2]
        return [*self.default, int(ZoneSource.MISSING), int(ZoneSource.INVALID)]


def _times(occurrence: Occurrence, definition: Definition, pairs: Sequence[Pair], *, now: datetime) -> _Times:
    once = definition.schedule_type == ScheduleType.ONCE
    at = definition.run_at if once and definition.run_at else occurrence.occurrence_at
    is_fixed = definition.time_zone_mode == TimeZoneMode.FIXED or occurrence.at_once
    by_zone: Mapping[str, datetime] = {}
    default = at
    if not is_fixed:
        wall = at.replace(tzinfo=None)
        by_zone, default = due_by_zone(wall), due_instant(wall, definition.time_zone)
    elif definition.window:
        by_zone = dict.fromkeys(ZONE_NAMES, at)

    def instants(due: datetime, zone_name: str) -> _Instants:
        expires_at = _after(definition, due)
        if (window := definition.window) is None:
            return _Instants(due, now, expires_at)
        return _Instants(window.next_allowed(due, zone_name), window.next_allowed(now, zone_name), expires_at)

    def of_pair(number: int, pair: Pair) -> _Row:
        due = default if is_fixed else by_zone.get(pair.zone, default)
        moved = quiet.moved(pair, due, definition=definition, now=now)
        instants = moved.due_at, moved.at_once, _after(definition, due)
        return _Row(pair.zone, number, int(pair.zone_source), moved.is_never, *instants)

    found = {name: instants(due, name) for name, due in by_zone.items()}
    quiet_rows = [of_pair(number, pair) for number, pair in enumerate(pairs, start=1)]
    return _Times(found, quiet_rows, instants(default, definition.time_zone), is_fixed)


def _after(definition: Definition, due: datetime) -> datetime | None:
    """Until when somebody due at that instant may wait."""
    minutes = definition.expires_after_minutes
    return due + timedelta(minutes=minutes) if minutes else None


_ZONES = "LEFT JOIN zones z ON z.name = a.time_zone"
_QUIET_ZONES = """LEFT JOIN quiet_people q ON q.id = a.id
    LEFT JOIN zones z ON z.name = a.time_zone AND z.quiet = COALESCE(q.quiet, 0)"""
_QUIET = """
), quiet_people AS MATERIALIZED (
    SELECT r.id, p.number::int AS quiet
    FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY AS p(begins, ends, zone, number)
    JOIN schedules_recipient r
        ON r.quiet_hours = jsonb_build_object('from', p.begins, 'to', p.ends) AND r.time_zone = p.zone"""

# placed: who is due when. moved: who is sent to at once; of a fixed schedule those whose window lay ahead until an edit
# took it away. people: who is too late already, and why; nobody is who waited for that very instant before an edit, and
# no wave that has started. waves -> cut: which batch.
# In fixed mode without a window no zone joins but those of people with quiet hours, so everyone else gets the default
# instant. Rows are written in the order of
# their ids while batches go by bucket: the rows of one call then lie on different pages, each with room for the new
# version beside the old (HOT).
_INSERT = f"""
WITH zones AS MATERIALIZED (
    SELECT * FROM unnest(%s::text[], %s::int[], %s::smallint[], %s::boolean[], %s::timestamptz[], %s::timestamptz[],
        %s::timestamptz[]) AS z(name, quiet, source, is_never, due_at, at_once, expires_at)
__QUIET__
), audience AS (
    __PEOPLE__
), placed AS (
    SELECT a.id, a.held_at, a.held_until, COALESCE(z.due_at, %s::timestamptz) AS wave_at,
           COALESCE(z.at_once, %s::timestamptz) AS at_once, COALESCE(z.expires_at, %s::timestamptz) AS expires_at,
           CASE WHEN z.name IS NOT NULL THEN z.source WHEN a.time_zone = '' THEN %s ELSE %s END AS zone_source,
           z.is_never
    FROM audience a __ZONES__
), moved AS (
    SELECT p.id, p.held_at, p.held_until, p.zone_source, p.is_never,
           CASE WHEN m.is_moved THEN p.at_once ELSE p.wave_at END AS due_at,
           CASE WHEN m.is_moved THEN %s::timestamptz ELSE p.expires_at END AS expires_at
    FROM placed p CROSS JOIN LATERAL (
        SELECT (%s AND p.wave_at < %s::timestamptz AND p.held_at IS DISTINCT FROM p.wave_at)
            OR (%s AND p.held_at >= %s::timestamptz AND p.wave_at < %s::timestamptz) AS is_moved
    ) m
), people AS MATERIALIZED (
    SELECT id, zone_source, due_at, expires_at,
           CASE WHEN is_never THEN '{WINDOW_IS_QUIET}'
                WHEN due_at < %s::timestamptz AND held_at IS DISTINCT FROM due_at THEN 'past_zone'
                WHEN due_at >= expires_at THEN '{WAITED_TOO_LONG}'
                WHEN due_at >= %s::timestamptz THEN 'occurrence_ended'
                WHEN due_at >= %s::timestamptz OR due_at = ANY(%s::timestamptz[])
                  OR (held_at = due_at AND held_until >= %s::timestamptz) THEN ''
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
    SELECT id, due_at, expires_at, zone_source, lost, own_wave,
           dense_rank() OVER (ORDER BY own_wave NULLS LAST, position / %s) AS number
    FROM ranked
), sizes AS (
    SELECT number, min(own_wave) AS own_wave, count(*) AS size, count(*) FILTER (WHERE lost <> '') AS lost,
           min(due_at) FILTER (WHERE lost = '') AS next_due_at,
           min(expires_at) FILTER (WHERE lost = '') AS expires_at
    FROM cut GROUP BY number
), batch_ids AS MATERIALIZED (
    SELECT number, nextval(pg_get_serial_sequence('delivery_batch', 'id')) AS id FROM sizes
), batches AS (
    INSERT INTO delivery_batch (id, occurrence_id, day, channel, wave_at, size, next_due_at, expires_at, pending,
        expired, sending, unknown, sent, failed, rate_limited, suppressed, unaddressable, cancelled, erased, is_counted)
    OVERRIDING SYSTEM VALUE
    SELECT i.id, %s, %s, %s, s.own_wave, s.size, s.next_due_at, s.expires_at, s.size - s.lost, s.lost,
           0, 0, 0, 0, 0, 0, 0, 0, 0, s.lost = 0
    FROM sizes s JOIN batch_ids i USING (number)
), rows AS (
    INSERT INTO delivery_delivery AS d (day, occurrence_id, recipient_id, batch_id, wave_at, due_at, expires_at,
        version, zone_source, state, reason, settled_at)
    SELECT %s, %s, c.id, i.id, c.due_at, c.due_at, c.expires_at, %s, c.zone_source,
           CASE WHEN c.lost <> '' THEN {int(State.EXPIRED)} ELSE {int(State.PENDING)} END, c.lost,
           CASE WHEN c.lost <> '' THEN %s::timestamptz END
    FROM cut c JOIN batch_ids i USING (number) ORDER BY c.id
    __CONFLICT__
    RETURNING d.state, d.reason
)
SELECT state, reason, count(*) FROM rows GROUP BY state, reason
"""

# A row that was only withdrawn by an edit comes back. Where its instant stays, so do its attempts and their next time;
# without an attempt it waited for a window, which may be another one now.
# Whoever has the message on one device and comes too late for the others has been sent it.
_SENT = f"EXCLUDED.state = {int(State.EXPIRED)} AND {ledger.HAS_MESSAGE}"
_TAKE_BACK = f"""
    ON CONFLICT (day, occurrence_id, recipient_id) DO UPDATE SET
        batch_id = EXCLUDED.batch_id, wave_at = EXCLUDED.wave_at, version = EXCLUDED.version,
        zone_source = EXCLUDED.zone_source,
        state = CASE WHEN {_SENT} THEN {int(State.SENT)} ELSE EXCLUDED.state END,
        reason = CASE WHEN {_SENT} THEN '' ELSE EXCLUDED.reason END,
        settled_at = EXCLUDED.settled_at, expires_at = EXCLUDED.expires_at,
        due_at = CASE WHEN d.wave_at = EXCLUDED.wave_at AND d.attempt > 0 THEN d.due_at
                      ELSE EXCLUDED.due_at END,
        attempt = CASE WHEN d.wave_at = EXCLUDED.wave_at THEN d.attempt ELSE 0 END,
        called_at = CASE WHEN d.wave_at = EXCLUDED.wave_at THEN d.called_at END
    WHERE {COMES_BACK.format("d")}
"""

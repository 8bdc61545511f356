"""From what is due to what is to be done: occurrences opened, batches chosen for the queues.

Any number of ticks may run at once: rows are taken with SKIP LOCKED, an occurrence exists once by its key, and
``next_run_at`` always moves strictly past the occurrence just opened.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from django.conf import settings
from django.db import connection, transaction

from audit import trail
from audit.models import Action
from delivery import accounts, counts, ledger
from schedules.definition import Definition
from schedules.models import Channel, OccurrenceState, Schedule, ScheduleStatus, ScheduleType
from schedules.occurrences import BY_CLOCK, LIFE, Ended, last_opened, record_ended
from schedules.recurrence import TZDATA_VERSION, Firing, InvalidTiming, firing_at, next_firing, windows

log = structlog.get_logger(__name__)

# Schedules taken in one transaction of the tick.
OPEN_CHUNK = 1_000
# Real seconds after which an occurrence is handed out to materialise once more.
MATERIALISE_QUEUED_S = 30
# Of a schedule whose occurrences are materialised: a pause holds back what is sent.
MATERIALISED = "('active', 'paused', 'broken')"
# Firings of one schedule opened in one transaction: after an outage there may be thousands, and all but the last hour's
# are missed. One a tick would take as many seconds as there were firings, and the present ones would wait for that.
OPEN_FIRINGS = 100
# What one of them carries at the most: a second of work or so.
HANDOUT_BATCHES = 50
HANDOUT_ROWS = 2_000
# Seconds of sending that the queue holds of a paced channel, and of a run with a rate of its own.
PACED_S = 4.0
# Due batches among which the queue's next ones are chosen: those of five million people, whoever comes after them.
BATCHES_SEEN = 10_000
# How often a large batch comes as if it were a small one.
LARGE_TOO = 1 / 16
# Fairness needs no secrecy.
_rng = random.Random()  # noqa: S311


@dataclass
class Opened:
    """What a tick did: ids of occurrences to materialise, and how many firings came too late for anyone."""

    occurrence_ids: list[int] = field(default_factory=list)
    missed: int = 0
    broken: int = 0


@dataclass(frozen=True)
class Handout:
    """Batches of one channel for one worker."""

    channel: str
    batch_ids: list[int]


@dataclass(frozen=True)
class _Due:
    """A firing to open. ``missed`` says why it comes too late for everyone, or is empty."""

    schedule: Schedule
    occurrence_at: datetime
    opens_at: datetime
    missed: str


@dataclass(frozen=True)
class _Turn:
    """What one schedule has due, and where it goes from there."""

    schedule: Schedule
    due: list[_Due]
    following: Firing | None


def open_due(*, now: datetime) -> Opened:
    """Open the occurrences of every schedule that is due within the time that materialising is ahead."""
    opened = Opened()
    ahead = now + timedelta(seconds=settings.MATERIALISE_AHEAD_S)
    while _open_chunk(opened, by=ahead, now=now) == OPEN_CHUNK:
        pass
    return opened


@transaction.atomic
def _open_chunk(opened: Opened, *, by: datetime, now: datetime) -> int:
    # Templates are read once the rows are locked: a join would miss one that an edit has just exchanged.
    due = Schedule.objects.due(by=by).prefetch_related("template").select_for_update(skip_locked=True)
    schedules = list(due[:OPEN_CHUNK])
    turns = []
    for schedule in schedules:
        try:
            turns.append(_turn(schedule, by=by, now=now))
        except Exception as error:  # whatever the recurrence raises concerns this schedule alone
            _break(schedule, error, now=now)
            opened.broken += 1
    if turns:
        firings = [due for turn in turns for due in turn.due]
        inserted = _insert_occurrences(firings, now=now)
        opened.occurrence_ids += [each.pk for each in inserted if each.state == OccurrenceState.MATERIALISING]
        opened.missed += sum(bool(due.missed) for due in firings)
        _move_on(turns)
        missed = [
            Ended(each.schedule_id, each.pk, each.reason) for each in inserted if each.state == OccurrenceState.MISSED
        ]
        record_ended(Action.OCCURRENCE_MISS, missed, now=now)
        reasons = Counter(each.reason for each in missed)
        counts.add({counts.Key(counts.MISSED, label=reason): number for reason, number in reasons.items()})
    return len(schedules)


def _turn(schedule: Schedule, *, by: datetime, now: datetime) -> _Turn:
    definition = Definition.of(schedule)
    timing = definition.timing()
    assert schedule.next_occurrence_at is not None
    if definition.schedule_type == ScheduleType.ONCE:
        firing = firing_at(definition.run_at or schedule.next_occurrence_at, timing.mode)
        return _Turn(schedule, [_judged(schedule, schedule.next_occurrence_at, firing, now=now)], None)
    due: list[_Due] = []
    following: Firing | None = firing_at(schedule.next_occurrence_at, timing.mode)
    while following and (not due or following.opens_at <= by) and len(due) < OPEN_FIRINGS:
        due.append(_judged(schedule, following.occurrence_at, following, now=now))
        following = next_firing(timing, after=following.occurrence_at, runs=schedule.runs + len(due))
    return _Turn(schedule, due, following)


def _judged(schedule: Schedule, occurrence_at: datetime, firing: Firing, *, now: datetime) -> _Due:
    missed = ""
    grace = timedelta(minutes=schedule.misfire_grace_minutes)
    if firing.closes_at + grace < now and _last_due(schedule, firing) + grace < now:
        missed = "paused" if schedule.resumed_at and schedule.resumed_at > firing.closes_at else "down"
    return _Due(schedule, occurrence_at, firing.opens_at, missed)


def _last_due(schedule: Schedule, firing: Firing) -> datetime:
    """When the last person can be due: with a window perhaps days after the firing's own instants."""
    window = Definition.of(schedule).window
    return windows.latest(window, firing.closes_at) if window else firing.closes_at


class _Inserted(NamedTuple):
    schedule_id: int
    pk: int
    state: str
    reason: str


def _insert_occurrences(firings: list[_Due], *, now: datetime) -> list[_Inserted]:
    """Insert what is new, wake what an edit put off or took back; return both.

    One that has people from before the edit is never just missed: materialising gives each of them an outcome.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO schedules_occurrence AS o (schedule_id, occurrence_at, state, reason, version, template_version,
                opens_at, ends_at, targeted, cursor, opened_at, closed_at)
            SELECT v.schedule_id, v.occurrence_at, CASE WHEN v.missed <> '' THEN 'missed' ELSE 'materialising' END,
                   v.missed, v.version, v.template_version, v.opens_at,
                   GREATEST(v.opens_at, %(now)s) + make_interval(secs => %(life)s),
                   0, '', %(now)s, CASE WHEN v.missed <> '' THEN %(now)s END
            FROM unnest(%(schedules)s::bigint[], %(ats)s::timestamptz[], %(missed)s::text[], %(versions)s::int[],
                        %(templates)s::int[], %(opens)s::timestamptz[])
                AS v(schedule_id, occurrence_at, missed, version, template_version, opens_at)
            ON CONFLICT (schedule_id, occurrence_at) DO UPDATE SET
                state = CASE WHEN o.targeted > 0 THEN 'materialising' ELSE EXCLUDED.state END,
                reason = CASE WHEN o.targeted > 0 THEN '' ELSE EXCLUDED.reason END,
                closed_at = CASE WHEN o.targeted = 0 THEN EXCLUDED.closed_at END,
                version = EXCLUDED.version, template_version = EXCLUDED.template_version,
                opens_at = EXCLUDED.opens_at, ends_at = EXCLUDED.ends_at, cursor = '', materialise_lease_until = NULL,
                materialise_queued_at = NULL
                WHERE o.state = 'waiting'
                   OR (o.state = 'cancelled' AND o.reason = 'edited' AND o.begun_at IS NULL)
            RETURNING o.schedule_id, o.id, o.state, o.reason
            """,
            {
                "now": now,
                "life": LIFE.total_seconds(),
                "schedules": [due.schedule.pk for due in firings],
                "ats": [due.occurrence_at for due in firings],
                "missed": [due.missed for due in firings],
                "versions": [due.schedule.version for due in firings],
                "templates": [due.schedule.template.version if due.schedule.template else 0 for due in firings],
                "opens": [due.opens_at for due in firings],
            },
        )
        return [_Inserted(*row) for row in cursor.fetchall()]


def _move_on(turns: list[_Turn]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE schedules_schedule s SET next_run_at = v.opens_at, next_occurrence_at = v.occurrence_at,
                   runs = s.runs + v.runs, zone_data = %(zone_data)s
            FROM unnest(%(ids)s::bigint[], %(opens)s::timestamptz[], %(ats)s::timestamptz[], %(runs)s::int[])
                AS v(id, opens_at, occurrence_at, runs)
            WHERE s.id = v.id
            """,
            {
                "zone_data": TZDATA_VERSION,
                "ids": [turn.schedule.pk for turn in turns],
                "opens": [turn.following.opens_at if turn.following else None for turn in turns],
                "ats": [turn.following.occurrence_at if turn.following else None for turn in turns],
                "runs": [len(turn.due) for turn in turns],
            },
        )


def _break(schedule: Schedule, error: Exception, *, now: datetime) -> None:
    # Of an error that nobody foresaw the words may quote somebody.
    words = error if isinstance(error, InvalidTiming) else type(error).__name__
    reason = f"Its next run can't be computed: {words}"[:500]
    Schedule.objects.filter(pk=schedule.pk).update(
        status=ScheduleStatus.BROKEN,
        status_reason=reason,
        next_run_at=None,
        next_occurrence_at=None,
        updated_at=now,
    )
    changes = {"status": [schedule.status, ScheduleStatus.BROKEN.value]}
    trail.record(action=Action.SCHEDULE_BREAK, by=BY_CLOCK, now=now, schedule_id=schedule.pk, changes=changes)
    log.error("schedule_broken", schedule_id=schedule.pk, exc_info=error)


def refresh_zone_data(*, now: datetime, limit: int = OPEN_CHUNK) -> int:
    """Recompute what lies ahead of schedules whose next run was computed with other zone data; return how many."""
    with transaction.atomic():
        stale = (
            Schedule.objects.filter(status=ScheduleStatus.ACTIVE, next_run_at__gt=now)
            .exclude(zone_data=TZDATA_VERSION)
            .select_for_update(skip_locked=True)
            .order_by("id")[:limit]
        )
        schedules = list(stale)
        for schedule in schedules:
            try:
                _look_ahead(schedule, now=now)
            except Exception as error:  # a zone that is no more concerns this schedule alone
                _break(schedule, error, now=now)
    return len(schedules)


def _look_ahead(schedule: Schedule, *, now: datetime) -> None:
    # A one-off's instants don't depend on zone data: runAt is one, and user-local waves are placed when they open.
    if schedule.schedule_type == ScheduleType.CRON:
        # The identity of a fixed cron is an instant, which other zone data may move: search from before it.
        last = last_opened(schedule)
        firing = next_firing(
            Definition.of(schedule).timing(), after=max(last, now) if last else now, runs=schedule.runs
        )
        schedule.next_run_at = firing.opens_at if firing else None
        schedule.next_occurrence_at = firing.occurrence_at if firing else None
    schedule.zone_data = TZDATA_VERSION
    schedule.save(update_fields=["next_run_at", "next_occurrence_at", "zone_data"])


def to_materialise(*, limit: int = OPEN_CHUNK) -> list[int]:
    """Take the occurrences that wait for a worker: just opened, edited, or given up by one that died.

    What is taken is handed out again after a while only, in case its message was lost.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH waiting AS MATERIALIZED (
                SELECT o.id FROM schedules_occurrence o JOIN schedules_schedule s ON s.id = o.schedule_id
                WHERE o.state = 'materialising' AND s.status IN {MATERIALISED}
                  AND (o.materialise_queued_at IS NULL
                       OR o.materialise_queued_at < clock_timestamp() - make_interval(secs => %(again)s))
                  AND (o.materialise_lease_until IS NULL OR o.materialise_lease_until < clock_timestamp())
                ORDER BY o.opens_at, o.id LIMIT %(limit)s FOR NO KEY UPDATE OF o SKIP LOCKED
            )
            UPDATE schedules_occurrence o SET materialise_queued_at = clock_timestamp()
            FROM waiting w WHERE o.id = w.id RETURNING o.opens_at, o.id
            """,
            {"limit": limit, "again": MATERIALISE_QUEUED_S},
        )
        return [pk for _, pk in sorted(cursor.fetchall())]


def take_due(*, now: datetime) -> list[Handout]:
    """Mark the batches due soon as queued and pack them into handouts: of each run as many people as of any other.

    A channel's queue holds at most ``PUBLISH_WINDOW_ROWS`` rows, and where providers' accounts are paced some seconds'
    worth: what is queued is as good as running, so a short queue keeps a pause quick and a lost broker cheap, and a run
    that comes later waits for no more than that.
    """
    soon = now + timedelta(seconds=settings.PUBLISH_AHEAD_S)
    handouts: list[Handout] = []
    for channel in _channels_due(by=soon):
        window, handout = settings.PUBLISH_WINDOW_ROWS, HANDOUT_ROWS
        if per_s := accounts.known_rate(channel):
            paced = max(round(per_s * PACED_S), 1)
            window, handout = min(window, paced), min(handout, paced)
        with transaction.atomic():
            handouts += _pack(channel, _take(channel, by=soon, window=window), most_rows=handout)
    return handouts


def _channels_due(*, by: datetime) -> list[str]:
    """The channels that have a batch to hand out: mostly none, and asking costs a tenth of looking for room."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT c.channel FROM unnest(%s::text[]) AS c(channel) WHERE EXISTS (
                SELECT 1 FROM delivery_batch b
                WHERE b.channel = c.channel AND b.queued_at IS NULL AND b.pending > 0 AND b.next_due_at <= %s
            )
            """,
            [Channel.values, by],
        )
        return [channel for (channel,) in cursor.fetchall()]


def _take(channel: str, *, by: datetime, window: int) -> list[tuple[int, int]]:
    """(id, rows) of the batches now queued, in the order in which they are to be sent.

    The batches of each run come by the rows that will have been queued of it with them, so that equal runs take turns,
    and small ones come before a batch of a large one (a fair queue, by what each would have had: Demers, Keshav and
    Shenker, 1989). Now and then, by lot, the rows before a batch count alone, so that however many small ones come, a
    large one gets its turn.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH busy AS MATERIALIZED (
                SELECT occurrence_id, sum(pending) AS rows FROM delivery_batch
                WHERE queued_at IS NOT NULL AND channel = %(channel)s GROUP BY occurrence_id
            ), room AS MATERIALIZED (
                SELECT %(window)s - COALESCE(sum(rows), 0) AS rows FROM busy
            ), due AS MATERIALIZED (
                SELECT b.id, b.pending, b.next_due_at, b.occurrence_id, s.max_per_minute FROM delivery_batch b
                JOIN schedules_occurrence o ON o.id = b.occurrence_id
                JOIN schedules_schedule s ON s.id = o.schedule_id
                WHERE b.channel = %(channel)s AND b.queued_at IS NULL AND b.pending > 0 AND b.next_due_at <= %(by)s
                  AND (SELECT rows FROM room) > 0 AND {ledger.GOES}
                  AND NOT {ledger.stopped("%(channel)s")} AND NOT {ledger.refused("%(channel)s")}
                  AND NOT {ledger.unrendered("s")}
                ORDER BY b.next_due_at, b.id LIMIT %(seen)s
            ), ranked AS (
                SELECT d.id, d.pending, d.next_due_at, d.max_per_minute, before,
                       before + CASE WHEN %(large_too)s THEN 0 ELSE d.pending END AS turn
                FROM (
                    SELECT d.*, COALESCE(q.rows, 0) - d.pending
                           + sum(d.pending) OVER (PARTITION BY d.occurrence_id ORDER BY d.next_due_at, d.id) AS before
                    FROM due d LEFT JOIN busy q USING (occurrence_id)
                ) d
            ), fitting AS MATERIALIZED (
                SELECT * FROM (
                    SELECT id, row_number() OVER fair AS place, sum(pending) OVER fair - pending AS taken FROM ranked
                    WHERE max_per_minute IS NULL OR before < GREATEST(max_per_minute * %(paced)s / 60, 1)
                    WINDOW fair AS (ORDER BY turn, next_due_at, id)
                ) f WHERE f.taken < (SELECT rows FROM room) AND f.place <= %(limit)s
            ), locked AS MATERIALIZED (
                SELECT b.id FROM delivery_batch b WHERE b.id = ANY(ARRAY(SELECT id FROM fitting))
                  AND b.queued_at IS NULL AND b.pending > 0 AND b.next_due_at <= %(by)s
                ORDER BY b.id FOR UPDATE OF b SKIP LOCKED
            )
            UPDATE delivery_batch b SET queued_at = clock_timestamp()
            FROM locked l JOIN fitting f USING (id) WHERE b.id = l.id
            RETURNING f.place, b.id, b.pending
            """,
            {
                "window": window,
                "channel": channel,
                "by": by,
                "seen": BATCHES_SEEN,
                "paced": PACED_S,
                "large_too": _rng.random() < LARGE_TOO,
                "limit": settings.PUBLISH_WINDOW_ROWS // 10,
            },
        )
        return [(pk, rows) for _, pk, rows in sorted(cursor.fetchall())]


def _pack(channel: str, batches: Iterable[tuple[int, int]], *, most_rows: int) -> Iterator[Handout]:
    pack: list[int] = []
    rows = 0
    for batch_id, size in batches:
        if pack and (len(pack) == HANDOUT_BATCHES or rows + size > most_rows):
            yield Handout(channel, pack)
            pack, rows = [], 0
        pack.append(batch_id)
        rows += size
    if pack:
        yield Handout(channel, pack)

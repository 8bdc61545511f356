"""Events of what is committed: made by one process at a time, in the order in which they are to be told.

Nobody who sends or plans writes an event. Changes of schedules are read from the audit, which is written in the
transaction of each; outcomes from the ledger's rows of batches that the figures have found changed; the ends of
occurrences and what providers report from notes in the transactions of those. So nothing is told that was rolled back,
and whatever was committed is told, whoever is killed when.
"""

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
import structlog
from django.db import connection, transaction

from audit.models import Action
from delivery import books
from delivery.endpoint_models import AuditPlace, ClosedRun, Endpoint, Event, EventType, Posting, Report
from delivery.models import State
from delivery.subscribers import outcomes
from delivery.subscribers.outcomes import Part
from schedules.models import Channel, Occurrence, Schedule

log = structlog.get_logger(__name__)

# Real seconds for which ``tell`` goes on: others wait for the same worker.
TURN_S: Final = 0.5
_ROWS: Final = 500  # of the audit, and occurrences, at once
ACTIONS: Final[Mapping[str, str]] = {
    Action.SCHEDULE_CREATE: "created",
    Action.SCHEDULE_UPDATE: "updated",
    Action.SCHEDULE_ACTIVATE: "activated",
    Action.SCHEDULE_PAUSE: "paused",
    Action.SCHEDULE_RESUME: "resumed",
    Action.SCHEDULE_CANCEL: "cancelled",
    Action.SCHEDULE_DELETE: "deleted",
    Action.SCHEDULE_RUN_NOW: "run_now",
    Action.SCHEDULE_FINISH: "finished",
    Action.SCHEDULE_BREAK: "broken",
}


class _New(NamedTuple):
    type: EventType
    occurred_at: datetime
    data: dict[str, Any]
    source: str | None = None


def begin() -> None:
    """The first endpoint is about to be: what happened before is nobody's. In its transaction."""
    AuditPlace.objects.update_or_create(pk=AuditPlace.ONLY, defaults={"tx": _ended_below(), "row_id": 0})
    ClosedRun.objects.all().delete()
    Report.objects.all().delete()


def tell() -> int:
    """Make events of what has happened since the last time, for half a second at most; return how many.

    Any number of processes may: one does, the others leave at once.
    """
    began, told = time.monotonic(), 0
    while Endpoint.objects.exists():
        with transaction.atomic():
            if not _is_alone():
                break
            made, is_more = _pass()
        told += made
        if not is_more or time.monotonic() - began >= TURN_S:
            break
    return told


def _pass() -> tuple[int, bool]:
    endpoints = list(Endpoint.objects.all())
    if not endpoints:
        return 0, False
    since = min(each.created_at for each in endpoints)
    changes, is_more = _audited(since=since)
    settled, batches = outcomes.changed(since=since)
    reported, reports = outcomes.reported(Channel.EMAIL.value)
    ended = _ended()
    runs = _runs({part.occurrence_id for part in (*settled, *reported)} | set(ended))
    events = [
        *changes,
        *_started({*ended, *(part.occurrence_id for part in settled)}, since=since),
        *(_of_part(EventType.DELIVERIES_SETTLED, part, runs) for part in settled),
        *(_of_part(EventType.DELIVERIES_REPORTED, part, runs) for part in reported),
        *_finished([runs[pk] for pk in ended if pk in runs]),
    ]
    _write(events, endpoints)
    is_more = is_more or batches == outcomes.BATCHES or reports == outcomes.REPORTS or len(ended) == _ROWS
    return len(events), is_more


def write(event_type: EventType, *, data: dict[str, Any], occurred_at: datetime, of: Endpoint) -> Posting:
    """An event for one endpoint alone, in the caller's transaction."""
    event = Event.objects.create(event_id=_event_id(), type=event_type, occurred_at=occurred_at, data=data, of=of)
    return Posting.objects.create(endpoint=of, event=event)


def is_for(endpoint: Endpoint, event_type: str, occurred_at: datetime) -> bool:
    """Whether ``endpoint`` has asked for such an event. What providers report is dated by their clocks, not by ours."""
    is_dated = event_type != EventType.DELIVERIES_REPORTED
    return (not endpoint.types or event_type in endpoint.types) and (not is_dated or occurred_at >= endpoint.created_at)


def _write(events: Sequence[_New], endpoints: Iterable[Endpoint]) -> None:
    rows = Event.objects.bulk_create(
        Event(event_id=_event_id(), type=each.type, source=each.source, occurred_at=each.occurred_at, data=each.data)
        for each in events
    )
    called = [each for each in endpoints if not each.off_reason]
    Posting.objects.bulk_create(
        Posting(endpoint=endpoint, event=event)
        for event in rows
        for endpoint in called
        if is_for(endpoint, event.type, event.occurred_at)
    )


# --- Schedules --------------------------------------------------------------------------------------------------------

_AUDITED = """
SELECT tx, id, action, actor_id, schedule_id, payload_diff, created_at FROM notification_audit
WHERE (tx, id) > (%(tx)s, %(row)s) AND tx < %(ended)s AND action = ANY(%(actions)s) AND created_at >= %(since)s
ORDER BY tx, id LIMIT %(limit)s
"""


def _audited(*, since: datetime) -> tuple[list[_New], bool]:
    """As the audit's seals read it: of transactions below the oldest that runs, so that no late commit is left out."""
    place = AuditPlace.objects.get(pk=AuditPlace.ONLY)
    ended = _ended_below()
    if ended < place.tx:  # restored from a dump: its transactions count anew
        log.warning("audit_place_lost", was=place.tx, ended=ended)
        place.tx, place.row_id = ended, 0
    with connection.cursor() as cursor:
        asked: dict[str, Any] = {"tx": place.tx, "row": place.row_id, "ended": ended, "since": since, "limit": _ROWS}
        cursor.execute(_AUDITED, {**asked, "actions": [*ACTIONS, Action.OCCURRENCE_MISS.value]})
        names = [column.name for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    for row in rows:
        row["payload_diff"] = orjson.loads(row["payload_diff"])
    is_full = len(rows) == _ROWS
    AuditPlace.objects.filter(pk=AuditPlace.ONLY).update(
        tx=rows[-1]["tx"] if is_full else ended, row_id=rows[-1]["id"] if is_full else 0
    )
    schedules = Schedule.objects.in_bulk({row["schedule_id"] for row in rows if row["action"] in ACTIONS})
    missed = _runs({row["payload_diff"]["occurrence"] for row in rows if row["action"] not in ACTIONS})
    found = []
    for row in rows:
        if row["action"] in ACTIONS:
            found.append(_changed(row, schedules.get(row["schedule_id"])))
        elif run := missed.get(row["payload_diff"]["occurrence"]):
            found += _finished([run])
    return found, is_full


def _changed(row: Mapping[str, Any], schedule: Schedule | None) -> _New:
    """The fields by name alone: an audience may name people."""
    data = {
        "scheduleId": row["schedule_id"],
        "scheduleName": schedule.name if schedule else "",
        "action": ACTIONS[row["action"]],
        "fields": sorted(row["payload_diff"]),
        "by": row["actor_id"],
    }
    return _New(EventType.SCHEDULE_CHANGED, row["created_at"], data)


# --- Occurrences ------------------------------------------------------------------------------------------------------

_STARTED = """
SELECT o.id FROM (
    SELECT id FROM schedules_occurrence WHERE closed_at IS NULL UNION SELECT unnest(%(ids)s::bigint[])
) AS c JOIN schedules_occurrence o ON o.id = c.id
WHERE o.begun_at >= %(since)s AND NOT EXISTS (SELECT FROM delivery_event e WHERE e.source = 'started:' || o.id)
ORDER BY o.begun_at, o.id
"""


def _started(ids: Iterable[int], *, since: datetime) -> list[_New]:
    """Of open occurrences, and of ``ids`` whatever became of them."""
    with connection.cursor() as cursor:
        cursor.execute(_STARTED, {"ids": list(ids), "since": since})
        begun = [pk for (pk,) in cursor.fetchall()]
    runs = _runs(begun)
    return [
        _New(
            EventType.OCCURRENCE_STARTED,
            run.begun_at,
            {**_of_run(run), "startedAt": _instant(run.begun_at), "targeted": run.targeted},
            source=f"started:{pk}",
        )
        for pk in begun
        if (run := runs.get(pk)) and run.begun_at
    ]


# Those whose outcomes have all been told, or are so by this same look.
_ENDED = """
SELECT c.occurrence_id FROM delivery_closedrun c
WHERE NOT EXISTS (
    SELECT FROM delivery_batch b LEFT JOIN delivery_toldbatch t ON t.batch_id = b.id
    WHERE b.occurrence_id = c.occurrence_id AND (NOT b.is_counted OR t.is_changed)
)
ORDER BY c.occurrence_id LIMIT %s FOR UPDATE OF c SKIP LOCKED
"""


def _ended() -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(_ENDED, [_ROWS])
        ended = [pk for (pk,) in cursor.fetchall()]
    ClosedRun.objects.filter(pk__in=ended).delete()
    return ended


def _finished(runs: Sequence[Occurrence]) -> list[_New]:
    """One that has been opened again meanwhile is told when it closes again."""
    closed = [run for run in runs if run.closed_at]
    counted = books.counted(closed)
    return [
        _New(
            EventType.OCCURRENCE_FINISHED,
            run.closed_at,
            {
                **_of_run(run),
                "state": run.state,
                "reason": run.reason,
                "startedAt": _instant(run.begun_at),
                "finishedAt": _instant(run.closed_at),
                "targeted": run.targeted,
                "outcomes": {state.label: counted[run.pk].get(state.label, 0) for state in State if state.is_outcome},
            },
        )
        for run in closed
        if run.closed_at
    ]


def _of_part(event_type: EventType, part: Part, runs: Mapping[int, Occurrence]) -> _New:
    named = _of_run(runs[part.occurrence_id]) if part.occurrence_id in runs else {"occurrenceId": part.occurrence_id}
    return _New(event_type, part.at, {**named, "channel": part.channel, "deliveries": part.items})


def _runs(ids: Iterable[int]) -> dict[int, Occurrence]:
    return Occurrence.objects.select_related("schedule").in_bulk(set(ids)) if ids else {}


def _of_run(run: Occurrence) -> dict[str, Any]:
    return {
        "scheduleId": run.schedule_id,
        "scheduleName": run.schedule.name,
        "occurrenceId": run.pk,
        "occurrenceAt": _instant(run.occurrence_at),
    }


def _instant(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at else None


def _event_id() -> str:
    return f"evt_{uuid.uuid4().hex}"


def _is_alone() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('events'))")
        return bool(cursor.fetchone()[0])


def _ended_below() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        return int(cursor.fetchone()[0])

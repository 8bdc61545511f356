"""Everything that changes a schedule: each function is one transaction of change and audit event.

Nothing is enqueued: the tick and every claim read these rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef

from audit import trail
from audit.models import Action
from schedules import definition as definitions
from schedules import occurrences, storable
from schedules.definition import Definition, InvalidDefinition
from schedules.models import (
    MessageTemplate,
    Occurrence,
    OccurrenceState,
    Schedule,
    ScheduleStatus,
    ScheduleType,
    ScheduleVersion,
    TimeZoneMode,
    Topic,
)
from schedules.occurrences import ApplyTo, Touched
from schedules.problems import Problem, say
from schedules.recurrence import TZDATA_VERSION, first_firing
from schedules.stops import refuse_reason

_EDITABLE = frozenset({ScheduleStatus.DRAFT, ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED, ScheduleStatus.BROKEN})
_LIVE = frozenset(ScheduleStatus) - {ScheduleStatus.DELETED}


class NotAllowed(Exception):
    """The schedule's status does not admit the operation."""


class Deleted(NotAllowed):
    """Whatever is asked of it: the schedule is deleted."""


class VersionConflict(Exception):
    """Somebody else changed the schedule meanwhile; ``current`` is the version that stands, made by whom and when."""

    def __init__(self, current: ScheduleVersion) -> None:
        super().__init__(f"The schedule is at version {current.version} by now: read it again and repeat the change.")
        self.current = current.version
        self.by = current.created_by
        self.at = current.created_at


@dataclass(frozen=True)
class Edit:
    """An edited schedule and the open occurrences that the edit met."""

    schedule: Schedule
    touched: list[Touched] = field(default_factory=list)


@transaction.atomic
def create(*, definition: Definition, by: str, now: datetime, draft: bool = False, key: str = "") -> Schedule:
    """Keep a new schedule, active unless ``draft``. Raises ``InvalidDefinition``; a draft needs only words that fit.

    ``key``: under which a file knows it; no other that is not deleted has it. One is made where there is none.
    """
    _hold(definition)
    _refuse(definitions.check_draft(definition) if draft else definitions.check(definition, now=now))
    schedule = Schedule(created_by=by, created_at=now, updated_at=now, **({"key": key} if key else {}))
    _write(schedule, definition)
    if not draft:
        schedule.status = ScheduleStatus.ACTIVE
        _aim(schedule, definition, now=now)
    schedule.save()
    _keep_version(schedule, definition, by=by, now=now)
    changes = trail.diff({}, definition.to_json())
    trail.record(action=Action.SCHEDULE_CREATE, by=by, now=now, schedule_id=schedule.pk, changes=changes)
    return schedule


@transaction.atomic
def activate(*, schedule_id: int, by: str, now: datetime, expected_version: int | None = None) -> Schedule:
    """Let a draft run, or a broken schedule that has been mended.

    Raises ``InvalidDefinition``, ``NotAllowed`` and ``VersionConflict``.
    """
    schedule = _lock(schedule_id, {ScheduleStatus.DRAFT, ScheduleStatus.BROKEN})
    _refuse_stale(schedule, expected_version)
    definition = Definition.of(schedule)
    _refuse(definitions.check(definition, now=now))
    return _change_status(schedule, ScheduleStatus.ACTIVE, Action.SCHEDULE_ACTIVATE, by=by, now=now, aim=definition)


@transaction.atomic
def update(
    *,
    schedule_id: int,
    changes: Mapping[str, Any],
    by: str,
    now: datetime,
    expected_version: int | None = None,
    apply_to: ApplyTo = ApplyTo.NEXT,
) -> Edit:
    """Change fields of the definition (keys as in ``Definition``).

    Occurrences of which nothing has been claimed follow the edit; for those already begun ``apply_to`` decides.
    Raises ``InvalidDefinition``, ``NotAllowed`` and ``VersionConflict``; then nothing has changed.
    """
    _refuse([*definitions.check_changes(changes), *_check_apply_to(apply_to)])
    schedule = _lock(schedule_id, _EDITABLE)
    _refuse_stale(schedule, expected_version)
    before = Definition.of(schedule)
    after = replace(before, **changes)
    if after == before:
        return Edit(schedule)
    if (before.template_id, before.topic) != (after.template_id, after.topic):
        _hold(after)
    timing_changed = before.timing() != after.timing()
    if schedule.status == ScheduleStatus.DRAFT:
        _refuse(definitions.check_draft(after))
    else:
        _refuse(
            definitions.check(after, now=now, timing_is_new=timing_changed) + _fixed_for_life(schedule, before, after)
        )
    _write(schedule, after)
    schedule.version += 1
    schedule.updated_at = now
    schedule.save()
    _keep_version(schedule, after, by=by, now=now)
    touched = occurrences.repin(
        schedule, before=before, after=after, apply_to=ApplyTo(apply_to), now=now, ahead=_materialise_ahead()
    )
    if timing_changed:
        if schedule.status in (ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED):
            _aim(schedule, after, now=now)
        schedule.save(update_fields=["next_run_at", "next_occurrence_at", "zone_data", "runs"])
    changed = trail.diff(before.to_json(), after.to_json())
    trail.record(action=Action.SCHEDULE_UPDATE, by=by, now=now, schedule_id=schedule.pk, changes=changed)
    return Edit(schedule, touched)


@transaction.atomic
def pause(*, schedule_id: int, by: str, now: datetime, reason: str = "") -> Schedule:
    """From the commit on nothing is claimed; calls already started end. Pausing twice changes nothing.

    Raises ``InvalidReason`` and ``NotAllowed``.
    """
    refuse_reason(reason)
    schedule = _lock(schedule_id, {ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED})
    if schedule.status == ScheduleStatus.PAUSED:
        return schedule
    schedule.paused_at, schedule.resumed_at = now, None
    return _change_status(schedule, ScheduleStatus.PAUSED, Action.SCHEDULE_PAUSE, by=by, now=now, reason=reason)


@transaction.atomic
def resume(*, schedule_id: int, by: str, now: datetime) -> Schedule:
    """Go on where it stopped. Firings of a cron that passed meanwhile are not replayed."""
    schedule = _lock(schedule_id, {ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED})
    if schedule.status == ScheduleStatus.ACTIVE:
        return schedule
    schedule.resumed_at = now
    aim = Definition.of(schedule) if schedule.schedule_type == ScheduleType.CRON else None
    return _change_status(schedule, ScheduleStatus.ACTIVE, Action.SCHEDULE_RESUME, by=by, now=now, aim=aim)


@transaction.atomic
def cancel(*, schedule_id: int, by: str, now: datetime) -> Schedule:
    """End the schedule and what of it is open; what was sent stays sent."""
    schedule = _lock(schedule_id, _EDITABLE | {ScheduleStatus.CANCELLED})
    if schedule.status == ScheduleStatus.CANCELLED:
        return schedule
    return _end(schedule, ScheduleStatus.CANCELLED, Action.SCHEDULE_CANCEL, by=by, now=now)


@transaction.atomic
def delete(*, schedule_id: int, by: str, now: datetime, expected_version: int | None = None) -> Schedule:
    """Cancel and take out of every list; ledger and audit keep what they know. Deleting twice is one deletion.

    Raises ``VersionConflict``.
    """
    schedule = _lock(schedule_id, frozenset(ScheduleStatus))
    if schedule.status == ScheduleStatus.DELETED:
        return schedule
    _refuse_stale(schedule, expected_version)
    return _end(schedule, ScheduleStatus.DELETED, Action.SCHEDULE_DELETE, by=by, now=now)


@transaction.atomic
def duplicate(*, schedule_id: int, by: str, now: datetime, called: str = "Copy of %(name)s") -> Schedule:
    """A draft of the same definition, ``called`` as a copy is; the instant of a one-off and a deleted template are left
    out."""
    original = _lock(schedule_id, _LIVE)
    definition = Definition.of(original)
    if original.template and original.template.deleted_at:
        definition = replace(definition, template_id=None)
    name = (called % {"name": definition.name})[: Schedule._meta.get_field("name").max_length]
    copy = replace(definition, name=name, run_at=None)
    return create(definition=copy, by=by, now=now, draft=True)


@transaction.atomic
def run_now(*, schedule_id: int, by: str, now: datetime) -> Occurrence | None:
    """Run an active schedule for everybody at this instant, whatever their zones.

    A cron gets an occurrence besides its own firings: it counts toward no ``max_runs`` and moves none of them. A
    one-off that has not opened yet is re-timed to ``now`` and opened by the next tick, hence None. Raises
    ``NotAllowed``.
    """
    schedule = _lock(schedule_id, _LIVE)
    if schedule.status != ScheduleStatus.ACTIVE:
        raise NotAllowed(
            say("The schedule is %(status)s: only an active one can run now.", status=say(str(schedule.status)))
        )
    if schedule.schedule_type == ScheduleType.ONCE:
        if schedule.occurrences.exclude(state=OccurrenceState.WAITING).exists():
            raise NotAllowed(say("This one-off runs already or has run: duplicate it to send again."))
        _start_now(schedule, by=by, now=now)
        return None
    occurrence = occurrences.open_at_once(schedule, now=now)
    changes = {"occurrence": [None, occurrence.pk]}
    trail.record(action=Action.SCHEDULE_RUN_NOW, by=by, now=now, schedule_id=schedule.pk, changes=changes)
    return occurrence


def _start_now(schedule: Schedule, *, by: str, now: datetime) -> None:
    """Re-time a one-off; in user-local mode it becomes one that reaches everybody at the same instant."""
    before = Definition.of(schedule)
    after = replace(before, run_at=now, time_zone_mode=TimeZoneMode.FIXED)
    _write(schedule, after)
    schedule.version += 1
    schedule.updated_at = now
    _aim(schedule, after, now=now)
    schedule.save()
    _keep_version(schedule, after, by=by, now=now)
    changes = trail.diff(before.to_json(), after.to_json())
    trail.record(action=Action.SCHEDULE_RUN_NOW, by=by, now=now, schedule_id=schedule.pk, changes=changes)


@transaction.atomic
def hold_occurrence(*, occurrence_id: int, reason: str, by: str, now: datetime, changes: Mapping[str, Any]) -> bool:
    """Let nobody of an occurrence be claimed until it is released; false where it is held or not running."""
    held = Occurrence.objects.filter(pk=occurrence_id, state=OccurrenceState.RUNNING, held_reason="")
    occurrence = held.select_for_update(no_key=True).first()
    if occurrence is None:
        return False
    held.update(held_reason=reason, held_at=now, released_at=None)
    trail.record(
        action=Action.OCCURRENCE_HOLD,
        by=by,
        now=now,
        schedule_id=occurrence.schedule_id,
        changes={"occurrence": occurrence_id, "held_reason": ["", reason], **changes},
    )
    return True


@transaction.atomic
def release_occurrence(*, occurrence_id: int, by: str, now: datetime) -> bool:
    """Let a held occurrence go on where it stopped; false where it is not held."""
    occurrence = (
        Occurrence.objects.select_for_update(no_key=True).exclude(held_reason="").filter(pk=occurrence_id).first()
    )
    if occurrence is None:
        return False
    Occurrence.objects.filter(pk=occurrence_id).update(held_reason="", released_at=now)
    trail.record(
        action=Action.OCCURRENCE_RELEASE,
        by=by,
        now=now,
        schedule_id=occurrence.schedule_id,
        changes={"occurrence": occurrence_id, "held_reason": [occurrence.held_reason, ""]},
    )
    return True


def finish_spent(*, now: datetime) -> int:
    """Finish the active schedules that have nothing more to open and nothing open; return how many."""
    open_ones = Occurrence.objects.open().filter(schedule=OuterRef("pk"))
    spent = Schedule.objects.filter(status=ScheduleStatus.ACTIVE, next_run_at__isnull=True)
    ids = list(
        spent.exclude(Exists(open_ones))
        .select_for_update(no_key=True, of=("self",))
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    Schedule.objects.filter(pk__in=ids).update(status=ScheduleStatus.FINISHED, updated_at=now)
    changes = {"status": [ScheduleStatus.ACTIVE.value, ScheduleStatus.FINISHED.value]}
    entries = [trail.Entry(pk, changes) for pk in ids]
    trail.record_many(action=Action.SCHEDULE_FINISH, by=occurrences.BY_CLOCK, now=now, entries=entries)
    return len(ids)


def _lock(schedule_id: int, allowed: frozenset[ScheduleStatus] | set[ScheduleStatus]) -> Schedule:
    schedule: Schedule = Schedule.objects.read(schedule_id, lock=True)
    if schedule.status not in allowed:
        if schedule.status == ScheduleStatus.DELETED:
            raise Deleted(say("The schedule is deleted."))
        raise NotAllowed(say("The schedule is %(status)s.", status=say(str(schedule.status))))
    return schedule


def _hold(definition: Definition) -> None:
    """From here on nobody deletes its template nor archives its topic before this transaction ends; what is not there,
    the check says in words.
    """
    asked, topic = definition.template_id, definition.topic
    if isinstance(asked, int) and 0 < asked <= storable.MAX_INTEGER:
        MessageTemplate.objects.hold(asked)
    if isinstance(topic, str) and not storable.text_fault(topic):
        Topic.objects.hold(topic)


def _refuse_stale(schedule: Schedule, expected_version: int | None) -> None:
    if expected_version is not None and expected_version != schedule.version:
        raise VersionConflict(schedule.versions.get(version=schedule.version))


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise InvalidDefinition(problems)


def _check_apply_to(apply_to: str) -> list[Problem]:
    if apply_to in list(ApplyTo):
        return []
    return [Problem("applyTo", "unknown", say("Use one of: %(known)s.", known=", ".join(ApplyTo)))]


def _fixed_for_life(schedule: Schedule, before: Definition, after: Definition) -> list[Problem]:
    """What can't change any more once an occurrence exists."""
    problems = []
    if before.channel != after.channel:
        message = say("The channel can't change once a schedule is active: duplicate it instead.")
        problems.append(Problem("channel", "immutable", message))
    if before.schedule_type != after.schedule_type and schedule.occurrences.exists():
        message = say("The type can't change once an occurrence exists: duplicate the schedule instead.")
        problems.append(Problem("scheduleType", "immutable", message))
    if (
        after.schedule_type == ScheduleType.ONCE
        and before.timing() != after.timing()
        and schedule.occurrences.filter(closed_at__isnull=False).exists()
    ):
        problems.append(Problem("runAt", "already_ran", say("This one-off has run: duplicate it to send again.")))
    return problems


def _write(schedule: Schedule, definition: Definition) -> None:
    for item in fields(definition):
        setattr(schedule, item.name, getattr(definition, item.name))


def _aim(schedule: Schedule, definition: Definition, *, now: datetime) -> None:
    """Point the schedule at its next firing; ``next_run_at`` is empty when there is none."""
    identity = None
    if definition.schedule_type == ScheduleType.ONCE and schedule.pk:
        standing = schedule.occurrences.first()
        if standing and standing.state != OccurrenceState.WAITING:
            schedule.next_run_at = schedule.next_occurrence_at = None
            return
        identity = standing.occurrence_at if standing else None
    grace = timedelta(minutes=definition.misfire_grace_minutes)
    runs = schedule.runs if identity is None else 0
    is_cron = definition.schedule_type == ScheduleType.CRON
    after = occurrences.last_opened(schedule) if is_cron and schedule.pk else None
    firing = first_firing(definition.timing(), now=now, runs=runs, grace=grace, after=after)
    schedule.next_run_at = firing.opens_at if firing else None
    schedule.next_occurrence_at = (identity or firing.occurrence_at) if firing else None
    schedule.zone_data = TZDATA_VERSION


def _keep_version(schedule: Schedule, definition: Definition, *, by: str, now: datetime) -> None:
    ScheduleVersion.objects.create(
        schedule=schedule,
        version=schedule.version,
        definition=definition.to_json(),
        created_by=by,
        created_at=now,
    )


def _change_status(
    schedule: Schedule,
    status: ScheduleStatus,
    action: Action,
    *,
    by: str,
    now: datetime,
    reason: str = "",
    aim: Definition | None = None,
) -> Schedule:
    before = schedule.status
    schedule.status, schedule.status_reason, schedule.updated_at = status, reason, now
    if aim:
        _aim(schedule, aim, now=now)
    schedule.save()
    trail.record(action=action, by=by, now=now, schedule_id=schedule.pk, changes={"status": [before, status.value]})
    return schedule


def _end(schedule: Schedule, status: ScheduleStatus, action: Action, *, by: str, now: datetime) -> Schedule:
    schedule.next_run_at = schedule.next_occurrence_at = None
    occurrences.cancel_open(schedule, reason=status.value)
    return _change_status(schedule, status, action, by=by, now=now)


def _materialise_ahead() -> timedelta:
    return timedelta(seconds=settings.MATERIALISE_AHEAD_S)

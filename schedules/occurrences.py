"""State changes of occurrences that a person causes. What the ledger causes is written by ``delivery``.

Lock order: the schedule's row first, then its open occurrences by id.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from audit import trail
from audit.models import Action
from schedules.definition import TIMING_FIELDS, WAITING_FIELDS, Definition
from schedules.models import Occurrence, OccurrenceState, Schedule, ScheduleType
from schedules.recurrence import Firing, next_firing, next_runs

LIFE = timedelta(days=7)
# The actor of what the service decides as time goes by.
BY_CLOCK = "system:tick"
# Where the cursor of an occurrence starts: with the audience, or with the people it already has.
CURSOR_AUDIENCE = ""
CURSOR_KEPT = "kept"
# Why an occurrence or a delivery is cancelled that an edit left without a place.
EDITED = "edited"


class ApplyTo(StrEnum):
    """Which occurrences already begun an edit concerns."""

    NEXT = "next"
    UNSENT = "unsent"


class Effect(StrEnum):
    """What an edit did to an open occurrence."""

    UNTOUCHED = "untouched"  # begun: it ends with the version it began with
    REPINNED = "repinned"  # nothing else than the version it runs with
    REMATERIALISED = "rematerialised"  # its recipients are found anew
    RETIMED = "retimed"  # its people stay, their instants move
    POSTPONED = "postponed"  # it waits for its new time
    CANCELLED = "cancelled"  # the new cron no longer names it


@dataclass(frozen=True)
class Touched:
    """One open occurrence and what the edit did to it."""

    occurrence_id: int
    effect: Effect


def last_opened(schedule: Schedule) -> datetime | None:
    """The identity of the latest occurrence that has had its turn; the next firing is sought past it.

    Those that an edit has postponed, or cancelled before anyone was claimed, have not: the tick takes them up again.
    One that somebody ran besides is none of the schedule's own.
    """
    opened = Occurrence.objects.filter(schedule=schedule, at_once=False).exclude(state=OccurrenceState.WAITING)
    opened = opened.exclude(state=OccurrenceState.CANCELLED, reason=EDITED, begun_at=None)
    return opened.order_by("-occurrence_at").values_list("occurrence_at", flat=True).first()


def upcoming(schedule: Schedule, *, now: datetime, count: int) -> list[Firing]:
    """Up to ``count`` firings of ``schedule`` that have not been opened, in order.

    Raises ``InvalidTiming`` and ``ValueError`` for a draft whose timing is not complete.
    """
    timing = Definition.of(schedule).timing()
    return next_runs(timing, now=now, count=count, runs=schedule.runs, after=last_opened(schedule))


def open_at_once(schedule: Schedule, *, now: datetime) -> Occurrence:
    """An occurrence of ``schedule``, whose row is locked, due for everybody at ``now``.

    Its identity lies between the whole seconds that a cron's firings have, and between those of its like.
    """
    at = now if now.microsecond else now - timedelta(microseconds=1)
    while schedule.occurrences.filter(occurrence_at=at).exists():
        at -= timedelta(microseconds=1)
    return Occurrence.objects.create(
        schedule=schedule,
        occurrence_at=at,
        at_once=True,
        version=schedule.version,
        template_version=schedule.template.version if schedule.template else 0,
        opens_at=at,
        ends_at=at + LIFE,
        opened_at=now,
    )


def cancel_open(schedule: Schedule, *, reason: str) -> list[Occurrence]:
    """Cancel what is open. From the commit on no claim succeeds; the sweep settles the rows."""
    cancelled = Occurrence.objects.open_of(schedule.pk, lock=True)
    for occurrence in cancelled:
        occurrence.state = OccurrenceState.CANCELLED
        occurrence.reason = reason
        occurrence.save(update_fields=["state", "reason"])
    return cancelled


def repin(
    schedule: Schedule,
    *,
    before: Definition,
    after: Definition,
    apply_to: ApplyTo,
    now: datetime,
    ahead: timedelta,
) -> list[Touched]:
    """Apply an edit to the open occurrences of ``schedule``, whose row is locked and already carries ``after``.

    ``ahead``: how long before its opening an occurrence is materialised. ``schedule.runs`` follows what has lost its
    turn or been given it early; the caller saves it.
    """
    changed = {name for name in before.__dataclass_fields__ if getattr(before, name) != getattr(after, name)}
    touched = []
    for occurrence in Occurrence.objects.open_of(schedule.pk, lock=True):
        if occurrence.state == OccurrenceState.CANCELLED:
            continue
        effect = _effect(occurrence, after=after, changed=changed, apply_to=apply_to)
        is_aimed = effect is Effect.RETIMED and bool(changed & TIMING_FIELDS) and not occurrence.at_once
        if is_aimed and not _is_soon(occurrence, after, now=now, ahead=ahead):
            effect = Effect.POSTPONED
        had_its_turn = occurrence.state != OccurrenceState.WAITING
        keeps_people = occurrence.begun_at is not None and not (
            apply_to is ApplyTo.UNSENT and "audience_query" in changed
        )
        _carry_out(occurrence, effect, schedule=schedule, after=after if is_aimed else None, keeps_people=keeps_people)
        schedule.runs += int(effect not in (Effect.POSTPONED, Effect.CANCELLED)) - int(had_its_turn)
        touched.append(Touched(occurrence.pk, effect))
    return touched


def _effect(occurrence: Occurrence, *, after: Definition, changed: set[str], apply_to: ApplyTo) -> Effect:
    is_once = after.schedule_type == ScheduleType.ONCE
    moves = bool(changed & TIMING_FIELDS) and not occurrence.at_once
    if occurrence.begun_at and apply_to is ApplyTo.NEXT and not (is_once and moves):
        return Effect.UNTOUCHED
    if moves and is_once:
        return Effect.RETIMED
    if moves and not occurrence.begun_at:
        return Effect.RETIMED if _names(after, occurrence) else Effect.CANCELLED
    if occurrence.state == OccurrenceState.WAITING:  # its recipients are found when it opens
        return Effect.REPINNED
    if changed & {"audience_query", "on_past"}:
        return Effect.REMATERIALISED
    return Effect.RETIMED if changed & WAITING_FIELDS else Effect.REPINNED


def _names(definition: Definition, occurrence: Occurrence) -> bool:
    just_before = occurrence.occurrence_at - timedelta(microseconds=1)
    firing = next_firing(definition.timing(), after=just_before)
    return firing is not None and firing.occurrence_at == occurrence.occurrence_at


def _is_soon(occurrence: Occurrence, after: Definition, *, now: datetime, ahead: timedelta) -> bool:
    return bool(occurrence.begun_at) or _firing(occurrence, after).opens_at <= now + ahead


def _firing(occurrence: Occurrence, definition: Definition) -> Firing:
    """When ``occurrence`` is due under ``definition``: a one-off at its runAt, whatever its identity says."""
    after = None
    if definition.schedule_type == ScheduleType.CRON:
        after = occurrence.occurrence_at - timedelta(microseconds=1)
    firing = next_firing(definition.timing(), after=after)
    if firing is None:
        raise ValueError(f"{occurrence} has no firing under its new definition")
    return firing


def _carry_out(
    occurrence: Occurrence, effect: Effect, *, schedule: Schedule, after: Definition | None, keeps_people: bool
) -> None:
    """``after`` where it gives the occurrence another time."""
    if effect is Effect.UNTOUCHED:
        return
    if effect is Effect.CANCELLED:
        occurrence.state, occurrence.reason = OccurrenceState.CANCELLED, EDITED
        occurrence.save(update_fields=["state", "reason"])
        return
    occurrence.version = schedule.version
    occurrence.template_version = schedule.template.version if schedule.template else 0
    if effect is not Effect.REPINNED:
        _restart(occurrence, effect, after=after, keeps_people=keeps_people)
    occurrence.save()


def _restart(occurrence: Occurrence, effect: Effect, *, after: Definition | None, keeps_people: bool) -> None:
    if after is not None:
        firing = _firing(occurrence, after)
        occurrence.opens_at = firing.opens_at
        occurrence.ends_at = firing.opens_at + LIFE
    occurrence.cursor = CURSOR_KEPT if effect is Effect.RETIMED and keeps_people else CURSOR_AUDIENCE
    waits = effect is Effect.POSTPONED
    occurrence.state = OccurrenceState.WAITING if waits else OccurrenceState.MATERIALISING
    occurrence.materialise_queued_at = occurrence.materialise_lease_until = None


class GivenUp(NamedTuple):
    """Occurrences ended without anyone, and those that run on with the people of before an edit."""

    missed: int
    running: int


def give_up(*, now: datetime) -> GivenUp:
    """End the occurrences whose audience was not found within their life.

    Those that have people since before an edit go on, so that these expire with the rest.
    """
    unfound = Occurrence.objects.open().filter(
        state__in=[OccurrenceState.MATERIALISING, OccurrenceState.WAITING], ends_at__lte=now
    )
    lost = unfound.filter(targeted=0).select_for_update(no_key=True).order_by("pk")
    missed = [Ended(of, pk, "not_materialised") for of, pk in lost.values_list("schedule_id", "pk")]
    Occurrence.objects.filter(pk__in=[each.occurrence_id for each in missed]).update(
        state=OccurrenceState.MISSED, reason="not_materialised", closed_at=now
    )
    record_ended(Action.OCCURRENCE_MISS, missed, now=now)
    return GivenUp(len(missed), unfound.update(state=OccurrenceState.RUNNING))


def close(ids: Iterable[int], *, now: datetime) -> int:
    """Close those whose books hold no open row any more: running ones finish, cancelled ones stay so."""
    ids = list(ids)
    open_ones = Occurrence.objects.open().filter(pk__in=ids)
    running = open_ones.filter(state=OccurrenceState.RUNNING).select_for_update(no_key=True).order_by("pk")
    finished = [Ended(*row) for row in running.values_list("schedule_id", "pk")]
    Occurrence.objects.filter(pk__in=[each.occurrence_id for each in finished]).update(
        state=OccurrenceState.FINISHED, closed_at=now
    )
    record_ended(Action.OCCURRENCE_FINISH, finished, now=now)
    return len(finished) + open_ones.filter(state=OccurrenceState.CANCELLED).update(closed_at=now)


class Ended(NamedTuple):
    """An occurrence that the service ended, and why if it was missed."""

    schedule_id: int
    occurrence_id: int
    reason: str = ""


def record_ended(action: Action, ended: Iterable[Ended], *, now: datetime) -> None:
    """The events of occurrences that ended together, in one statement."""
    entries = [
        trail.Entry(
            each.schedule_id, {"occurrence": each.occurrence_id} | ({"reason": each.reason} if each.reason else {})
        )
        for each in ended
    ]
    trail.record_many(action=action, by=BY_CLOCK, now=now, entries=entries)

"""At which hour a person is due, on whose clock, and what the person's quiet hours have to do with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from delivery.models import QUIET_HOURS, Delivery, ZoneSource
from delivery.windows import allowed_in, clock_of
from schedules import quiet_hours
from schedules.definition import Definition
from schedules.models import Occurrence, Recipient, Schedule, ScheduleVersion, TimeZoneMode
from schedules.recurrence import ZONE_NAMES, due_instant


@dataclass(frozen=True)
class Promise:
    """When the person is due, on whose clock, and whence that zone is."""

    due_at: datetime
    zone_name: str
    zone_source: ZoneSource


@dataclass(frozen=True)
class Quieted:
    """Quiet hours that keep a message back, as the profile has them today, on the clock of ``zone_name``.

    ``meant_at``: when it would have come without them.
    """

    hours: Mapping[str, str]
    zone_name: str
    meant_at: datetime


def definition_of(schedule: Schedule, occurrence: Occurrence | None) -> tuple[int, Definition]:
    """That which the occurrence runs with; of a schedule that has none, the schedule's own."""
    if occurrence is not None and occurrence.version != schedule.version:
        kept = ScheduleVersion.objects.filter(schedule=schedule, version=occurrence.version).first()
        if kept:
            return kept.version, Definition.from_json(kept.definition)
    return schedule.version, Definition.of(schedule)


def promise(definition: Definition, person: Recipient, at: datetime | None) -> tuple[Promise | None, Quieted | None]:
    """When the person would be due by what the profile says today, the schedule's firing being ``at``; None: never."""
    if at is None:
        return None, None
    zone_name = clock_of(person.time_zone, definition)
    meant = at
    if definition.time_zone_mode != TimeZoneMode.FIXED:
        meant = due_instant(at.replace(tzinfo=None), zone_name)
    quiet = quiet_hours.awake(person.quiet_hours)
    opened = allowed_in(zone_name, meant, definition=definition) or meant
    due = allowed_in(zone_name, meant, definition=definition, quiet=quiet)
    if due is None:
        return None, None
    quieted = Quieted(person.quiet_hours or {}, zone_name, opened) if due != opened else None
    if definition.time_zone_mode == TimeZoneMode.FIXED and not definition.window and quieted is None:
        return Promise(due, definition.time_zone, ZoneSource.FIXED), None
    source = ZoneSource.PROFILE
    if person.time_zone not in ZONE_NAMES:
        source = ZoneSource.INVALID if person.time_zone else ZoneSource.MISSING
    return Promise(due, zone_name, source), quieted


def quieted(delivery: Delivery, *, occurrence: Occurrence | None, person: Recipient | None) -> Quieted | None:
    """What kept a row of the ledger back, or does so; None also where the quiet hours are others by now.

    ``occurrence`` with its schedule. A statement more, of people alone who have any.
    """
    if occurrence is None or person is None or not person.quiet_hours:
        return None
    _, definition = definition_of(occurrence.schedule, occurrence)
    if delivery.reason == QUIET_HOURS:
        return Quieted(person.quiet_hours, clock_of(person.time_zone, definition), delivery.wave_at)
    promised, found = promise(definition, person, definition.run_at or occurrence.occurrence_at)
    return found if promised and promised.due_at == delivery.wave_at else None

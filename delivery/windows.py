"""When a schedule's messages may reach a person: in its send window, and not in the person's own quiet hours.

``quiet``: the hours that the person's quiet ones leave (``schedules.quiet_hours.awake``), None where there are none.
"""

from __future__ import annotations

from datetime import datetime

from schedules.definition import Definition
from schedules.models import TimeZoneMode
from schedules.recurrence import ZONE_NAMES, Firing, due_instant
from schedules.recurrence.windows import Window, next_in_both


def clock_of(zone_name: str, definition: Definition) -> str:
    """The zone that counts for somebody whose profile has this one, valid or not."""
    return zone_name if zone_name in ZONE_NAMES else definition.time_zone


def allowed_in(zone_name: str, at: datetime, *, definition: Definition, quiet: Window | None = None) -> datetime | None:
    """The first instant from ``at`` on at which the schedule's messages may reach people of that zone.

    None where no time is one: the whole window lies in the quiet hours.
    """
    window = definition.window
    if quiet is None or not definition.heeds_quiet_hours:
        return at if window is None else window.next_allowed(at, clock_of(zone_name, definition))
    if window is None:
        return quiet.next_allowed(at, clock_of(zone_name, definition))
    return next_in_both(at, clock_of(zone_name, definition), window, quiet)


def meant_in(zone_name: str, *, firing: Firing, definition: Definition) -> datetime:
    """When ``firing`` would be due for people whose profile has that zone, valid or not, at whatever hour."""
    if definition.time_zone_mode == TimeZoneMode.FIXED:
        return firing.opens_at
    return due_instant(firing.occurrence_at.replace(tzinfo=None), clock_of(zone_name, definition))


def due_in(zone_name: str, *, firing: Firing, definition: Definition, quiet: Window | None = None) -> datetime | None:
    """When ``firing`` is due for them: as ``meant_in``, or as soon after it as they may be reached; None: never."""
    at = meant_in(zone_name, firing=firing, definition=definition)
    return allowed_in(zone_name, at, definition=definition, quiet=quiet)

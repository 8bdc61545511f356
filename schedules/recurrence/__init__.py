"""When schedules fire: pure functions over frozen values, without database and without a clock.

Import from here; the rooms inside are: zones, crons → timing → firings → checks, wording; and zones → windows.
"""

from schedules.recurrence.checks import USER_LOCAL_SPACING, check
from schedules.recurrence.errors import InvalidTiming, UnknownZone
from schedules.recurrence.firings import first_firing, next_firing, next_runs
from schedules.recurrence.misfire import MISFIRE_GRACE, judge, lateness
from schedules.recurrence.timing import Firing, Mode, ScheduleType, Timing, firing_at
from schedules.recurrence.wording import Note, NoteKind, describe, notes
from schedules.recurrence.zones import TZDATA_VERSION, ZONE_NAMES, due_by_zone, due_instant, zone

__all__ = [
    "MISFIRE_GRACE",
    "TZDATA_VERSION",
    "USER_LOCAL_SPACING",
    "ZONE_NAMES",
    "Firing",
    "InvalidTiming",
    "Mode",
    "Note",
    "NoteKind",
    "ScheduleType",
    "Timing",
    "UnknownZone",
    "check",
    "describe",
    "due_by_zone",
    "due_instant",
    "firing_at",
    "first_firing",
    "judge",
    "lateness",
    "next_firing",
    "next_runs",
    "notes",
    "zone",
]

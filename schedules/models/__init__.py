"""Schedules and what they are made of: recipients, templates, schedules, their versions and occurrences.

Invariants are database constraints; rows change through ``schedules.operations`` and ``schedules.occurrences``.
Instants are UTC.
"""

from schedules.models.controls import StopSwitch, TestClock
from schedules.models.mirrored import (
    EVERYBODY,
    LeftAlone,
    MirroredPerson,
    Resolution,
    ResolutionPage,
    ResolutionUse,
    ServedCount,
)
from schedules.models.people import (
    Device,
    ErasedPerson,
    Recipient,
    RecipientImport,
    RecipientImportChunk,
    SoftBounce,
    Suppression,
)
from schedules.models.schedules import (
    GOES_ON,
    LONGEST_SCHEDULE_KEY,
    NAMED_IDS,
    Occurrence,
    OccurrenceState,
    OnPast,
    Schedule,
    ScheduleStatus,
    ScheduleType,
    ScheduleVersion,
    TimeZoneMode,
)
from schedules.models.templates import Catalogue, Channel, MessageTemplate, TemplateContent, TemplateVersion
from schedules.models.topics import LONGEST_KEY, Default, Purpose, Topic

__all__ = [
    "EVERYBODY",
    "GOES_ON",
    "LONGEST_KEY",
    "LONGEST_SCHEDULE_KEY",
    "NAMED_IDS",
    "Catalogue",
    "Channel",
    "Default",
    "Device",
    "ErasedPerson",
    "LeftAlone",
    "MessageTemplate",
    "MirroredPerson",
    "Occurrence",
    "OccurrenceState",
    "OnPast",
    "Purpose",
    "Recipient",
    "RecipientImport",
    "RecipientImportChunk",
    "Resolution",
    "ResolutionPage",
    "ResolutionUse",
    "Schedule",
    "ScheduleStatus",
    "ScheduleType",
    "ScheduleVersion",
    "ServedCount",
    "SoftBounce",
    "StopSwitch",
    "Suppression",
    "TemplateContent",
    "TemplateVersion",
    "TestClock",
    "TimeZoneMode",
    "Topic",
]

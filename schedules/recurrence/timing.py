"""The values that recurrence computes with: when a schedule fires, and one firing of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from schedules.recurrence.zones import EASTERNMOST, WESTERNMOST

ScheduleType = Literal["once", "cron"]
Mode = Literal["fixed", "user_local"]

YEARS = range(1970, 9000)
"""Years that a timing may speak of: offsets are known since 1970, and hours and days either side of the
last one are still dates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When a schedule fires. Every datetime is aware; `checks.check` says what else must hold.

    In user-local mode `run_at`, `starts_at` and `ends_at` are in UTC and mean their clock reading: the
    wall time on each recipient's own clock. In fixed mode they are instants.
    `starts_at` and `ends_at` are inclusive and bound `Firing.occurrence_at`. `time_zone` is the zone of a
    fixed cron's wall times, and in user-local mode the one for recipients without a valid zone.
    """

    schedule_type: ScheduleType
    mode: Mode
    run_at: datetime | None = None
    cron: str = ""
    time_zone: str = "UTC"
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    max_runs: int | None = None


@dataclass(frozen=True, slots=True)
class Firing:
    """One nominal firing; all instants are UTC.

    `occurrence_at` is its identity: the instant in fixed mode, the wall time read as UTC in user-local
    mode. People become due from `opens_at` to `closes_at`, both inclusive: one and the same instant in
    fixed mode, 26 hours apart (the wall time at UTC+14 and at UTC-12) in user-local mode.
    """

    occurrence_at: datetime
    opens_at: datetime
    closes_at: datetime


def firing_at(occurrence_at: datetime, mode: Mode) -> Firing:
    """The firing with this identity."""
    at = occurrence_at.astimezone(UTC)
    if mode == "fixed":
        return Firing(at, at, at)
    return Firing(at, at - EASTERNMOST, at - WESTERNMOST)

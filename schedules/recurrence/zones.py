"""Zones of the pinned `tzdata` package, and the one function that turns a wall time into an instant.

The files are opened from the package itself. `zoneinfo.ZoneInfo(name)` would look into the system's
directories first, and what it finds there may be a year old.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from importlib import resources
from types import MappingProxyType
from zoneinfo import ZoneInfo

import tzdata  # type: ignore[import-untyped]

from schedules.problems import Problem, say
from schedules.recurrence.errors import UnknownZone

TZDATA_VERSION: str = tzdata.IANA_VERSION
"""Release of the zone data in use, such as "2026f"; stored with what was computed from it."""

_DATA = resources.files(tzdata)

# "Factory" is the database's word for "nobody has set a zone yet", not a place.
ZONE_NAMES: frozenset[str] = frozenset(_DATA.joinpath("zones").read_text("ascii").split()) - {"Factory"}
"""Every accepted zone name, case-sensitive. Names that are not listed are never looked up as files."""

EASTERNMOST = timedelta(hours=14)
WESTERNMOST = timedelta(hours=-12)
"""The extreme offsets from UTC: every zone has lain between them since 1970 (Kiritimati, Etc/GMT+12)."""


@cache
def zone(name: str) -> ZoneInfo:
    """The zone called `name`. Raises `UnknownZone` for anything that is not in `ZONE_NAMES`."""
    if name not in ZONE_NAMES:
        raise UnknownZone(
            Problem(
                "timeZone",
                "unknown_zone",
                say("%(name)s is not an IANA time zone; write one such as 'Europe/Berlin' or 'UTC'.", name=f"{name!r}"),
            )
        )
    with _DATA.joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def due_instant(wall: datetime, zone_name: str) -> datetime:
    """The instant (UTC) at which a clock in `zone_name` is meant to show the naive `wall`.

    A wall time that a gap swallows moves forward by the gap's length (02:30 becomes 03:30); one that an
    overlap repeats is the first of the two. Both are what PEP 495 gives for `fold=0`: the offset in
    force before the change. Raises `UnknownZone`, and `ValueError` for an aware `wall`.
    """
    return (wall - offset_before(wall, zone(zone_name))).replace(tzinfo=UTC)


@lru_cache(maxsize=128)
def due_by_zone(wall: datetime) -> Mapping[str, datetime]:
    """`due_instant` of the naive `wall` for every name in `ZONE_NAMES`, as a read-only mapping."""
    # Some 600 names share about 40 offsets: one subtraction for each offset halves the time.
    by_offset: dict[timedelta, datetime] = {}
    due: dict[str, datetime] = {}
    for name in ZONE_NAMES:
        offset = offset_before(wall, zone(name))
        if offset not in by_offset:
            by_offset[offset] = (wall - offset).replace(tzinfo=UTC)
        due[name] = by_offset[offset]
    return MappingProxyType(due)


def offset_before(wall: datetime, place: ZoneInfo) -> timedelta:
    """Offset at `wall`; where a change swallows or repeats it, the offset in force before the change."""
    if wall.tzinfo is not None:
        raise ValueError(f"a wall time has no zone of its own, and this one has: {wall.isoformat()}")
    return _offset(wall.replace(tzinfo=place, fold=0))


def offset_after(wall: datetime, place: ZoneInfo) -> timedelta:
    """Offset at `wall`; where a change swallows or repeats it, the offset in force after the change."""
    return _offset(wall.replace(tzinfo=place, fold=1))


def offset_at(instant: datetime, place: ZoneInfo) -> timedelta:
    """Offset from UTC in force in `place` at an instant."""
    return _offset(instant.astimezone(place))


def _offset(aware: datetime) -> timedelta:
    offset = aware.utcoffset()
    assert offset is not None  # every ZoneInfo has one; said for the type checker
    return offset

"""Instants as people read them, always with the zone and its offset, and as programs do."""

from datetime import UTC, datetime

from django.utils.formats import number_format

from schedules.recurrence import ZONE_NAMES, zone


def show(instant: datetime | None, zone_name: str = "UTC") -> str:
    """``2026-11-22 09:00:00 Europe/Berlin (UTC+01:00)``; an unknown zone is read as UTC, no instant as “—”."""
    if instant is None:
        return "—"
    if zone_name == "UTC" or zone_name not in ZONE_NAMES:
        return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    local = instant.astimezone(zone(zone_name))
    offset = f"{local:%z}"
    return f"{local:%Y-%m-%d %H:%M:%S} {zone_name} (UTC{offset[:3]}:{offset[3:5]})"


def show_seconds(seconds: float | None) -> str:
    """A length of time in figures, as the viewer's language writes them: ``120 ms``, ``3.4 s``, ``12 min``; none: “—”.

    Where it stands in a sentence, ``wording.timings.how_long`` says it in words.
    """
    if seconds is None:
        return "—"
    for unit, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if abs(seconds) >= length * (2 if unit != "s" else 1):
            value = round(seconds / length, 1)
            return f"{number_format(value, decimal_pos=0 if value.is_integer() else 1)} {unit}"
    return f"{round(seconds * 1000)} ms"


def instant(value: datetime | None) -> str | None:
    """For programs: RFC 3339 in UTC with ``Z``, microseconds only where there are any."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z") if value else None

"""Windows: days and hours, on a person's clock, in which messages may reach them. A schedule's send window is one; the
hours that a person's quiet ones leave are another.

Both ends of a window are wall times, and become instants by the one function that makes instants of wall times
(`zones.due_instant`): an end that a gap swallows lies later by the gap's length, one that an overlap repeats is the
first of the two. Of a window whose ends a gap brings into the wrong order nothing is left that day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Final

from schedules.recurrence.zones import ZONE_NAMES, due_instant, zone

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""As on the wire, in the order of `date.weekday()`."""

_DAY = timedelta(days=1)
_FORTNIGHT = timedelta(days=14)
# A gap may leave nothing of a window on its only day, though never two weeks in a row.
_LOOKED_AT: Final = range(-1, 16)


@dataclass(frozen=True, slots=True)
class Window:
    """Opens on each of `days` (0 is Monday) at `opens`, and closes at `closes`, both minutes of that day.

    A window over midnight closes on the next day: `closes` is then more than a day's 1,440 minutes.
    """

    days: frozenset[int]
    opens: int
    closes: int

    def next_allowed(self, at: datetime, zone_name: str) -> datetime:
        """The first instant (UTC) from `at` on at which a person in `zone_name` is in the window; `at` itself if so.

        Raises `UnknownZone`.
        """
        today = at.astimezone(zone(zone_name)).date()
        for ahead in _LOOKED_AT:
            begins, ends = self._on(today + ahead * _DAY, zone_name)
            if begins < ends and at < ends:
                return max(begins, at)
        raise ValueError(f"{self} never opens")  # only without days, which reading it refuses

    def _on(self, day: date, zone_name: str) -> tuple[datetime, datetime]:
        """From when on and until when it is open that day; nothing, in this order, on a day on which it does not."""
        if day.weekday() not in self.days:
            return _NEVER
        midnight = datetime.combine(day, time())
        begins, ends = midnight + timedelta(minutes=self.opens), midnight + timedelta(minutes=self.closes)
        return due_instant(begins, zone_name), due_instant(ends, zone_name)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Beginning and end of each stretch of the week, in minutes from Monday's midnight; the last may pass it."""
        for day in sorted(self.days):
            yield day * 1440 + self.opens, day * 1440 + self.closes


_NEVER = (datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC))


@lru_cache(maxsize=1024)
def _read(days: tuple[str, ...], begins: str, ends: str) -> Window:
    opens, closes = minute_of(begins), minute_of(ends)
    return Window(frozenset(map(DAYS.index, days)), opens, closes if closes > opens else closes + 1440)


def read(window: Mapping[str, Any]) -> Window:
    """A window as a definition has it, which is known to be right: {"days": ["mon"], "from": "09:00", "to": "20:00"}.

    One that ends when it begins lasts for a whole day, as "00:00" to "24:00" does.
    """
    return _read(tuple(window["days"]), window["from"], window["to"])


def next_in_both(at: datetime, zone_name: str, one: Window, other: Window) -> datetime | None:
    """The first instant from ``at`` on at which a person in ``zone_name`` is in both windows.

    None where a fortnight has none, and with it no time has: the two have no hour in common. Raises `UnknownZone`.
    """
    horizon = at + _FORTNIGHT
    while at <= horizon:
        opened = one.next_allowed(at, zone_name)
        at = other.next_allowed(opened, zone_name)
        if at == opened:
            return at if at <= horizon else None
    return None


def minute_of(clock: str) -> int:
    """The minute of the day that "HH:MM" stands for, 1,440 for "24:00". Raises `ValueError`."""
    hour, colon, minute = clock.partition(":")
    digits = hour + minute
    if not (colon and len(hour) == len(minute) == 2 and digits.isascii() and digits.isdecimal()):
        raise ValueError(f"{clock!r} is no time of day")
    if int(minute) > 59 or int(digits) > 2400:
        raise ValueError(f"{clock!r} is no time of day")
    return int(hour) * 60 + int(minute)


@lru_cache(maxsize=256)
def allowed_by_zone(window: Window, at: datetime) -> Mapping[str, datetime]:
    """`next_allowed` of one instant for every name in `ZONE_NAMES`."""
    return {name: window.next_allowed(at, name) for name in ZONE_NAMES}


@lru_cache(maxsize=64)
def latest(window: Window, at: datetime) -> datetime:
    """The instant by which the window has opened for everybody, wherever they are, who is due at `at`."""
    return max(allowed_by_zone(window, at).values())

"""Quiet hours: those of each day, on a person's own clock, in which nobody writes to the person by e-mail or push.

A profile has them as ``{"from": "22:00", "to": "07:00"}``, from the one minute up to the other and over midnight where
that is earlier, or as ``None``. What a person has ordered or must be told (a transactional schedule) comes at any hour,
and so does what waits silently in the app until somebody looks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypedDict

from schedules.models import Channel
from schedules.problems import say
from schedules.recurrence.windows import Window, minute_of

# A message in the app makes no sound: it lies there when the person looks. Those of others that name their channels
# (Adobe Journey Optimizer) leave it out, too.
CHANNELS: Final = frozenset({Channel.EMAIL.value, Channel.PUSH.value})

_CLOCK: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)
_EVERY_DAY: Final = frozenset(range(7))
_DAY: Final = 1440

QuietHours = TypedDict("QuietHours", {"from": str, "to": str})


def fault(value: object) -> str:
    """What is wrong with quiet hours that somebody gives, completing “The field …”; empty where they can be kept."""
    if value is None:
        return ""
    if not isinstance(value, Mapping) or value.keys() != {"from", "to"}:
        return say('is no object of two times: write one such as {"from": "22:00", "to": "07:00"}, or null for none')
    if not all(isinstance(clock, str) and _CLOCK.fullmatch(clock) for clock in value.values()):
        return say("has an end that is no time of day: write it from 00:00 to 23:59, such as 22:00")
    if value["from"] == value["to"]:
        return say("ends when it begins, which leaves no hour: give two times that differ, or none")
    return ""


def awake(hours: Mapping[str, Any] | None) -> Window | None:
    """The hours that are left of each day, as a window; None where all are. ``hours``: as a profile has them."""
    return _awake(hours["from"], hours["to"]) if hours else None


@lru_cache(maxsize=4_096)
def _awake(quiet_from: str, quiet_to: str) -> Window:
    opens, closes = minute_of(quiet_to), minute_of(quiet_from)
    return Window(_EVERY_DAY, opens, closes if closes > opens else closes + _DAY)


def spelt(hours: Mapping[str, Any] | None) -> str:
    """As a cell of a file has them: ``22:00-07:00``, empty for none."""
    return f"{hours['from']}-{hours['to']}" if hours else ""


def read_spelt(text: str) -> QuietHours | None:
    """The inverse of ``spelt``, spaces aside; whether they can be kept ``fault`` says of what comes out."""
    begins, _dash, ends = text.strip().replace("–", "-").partition("-")
    return {"from": begins.strip(), "to": ends.strip()} if text.strip() else None

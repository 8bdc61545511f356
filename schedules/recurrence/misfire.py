"""How late is too late. Judged for each wave, at the moment someone would start it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

MISFIRE_GRACE = timedelta(minutes=60)
"""How long past its instant a wave may still start, unless the schedule says otherwise."""


def lateness(due: datetime, *, now: datetime) -> timedelta:
    """How long `now` is past `due`; zero while it lies ahead."""
    return max(now - due, timedelta(0))


def judge(due: datetime, *, now: datetime, grace: timedelta, started: bool) -> Literal["run", "expired"]:
    """What becomes of the wave due at `due`: "run", or "expired" when it can no longer start.

    A wave that has started runs on however late (its occurrence's end is another rule's business); one
    that has not may start until `due + grace`, inclusive.
    """
    return "run" if started or lateness(due, now=now) <= grace else "expired"

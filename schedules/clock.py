"""The one clock of business time: the database's, plus the test clock's shift.

Leases, permits and timeouts use real time instead. The database is asked now and then; between two answers the
process's monotonic clock carries the time on, so reading it costs no round trip.
"""

import threading
import time
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection

from schedules.models import TestClock

# How long an answer of the database is carried on. Short under the test clock, so that every process follows a shift.
_CARRY_S = 30.0
_CARRY_TEST_CLOCK_S = 0.02


class ClockDisabled(Exception):
    """The test clock was asked for where ``TEST_CLOCK`` is off."""


class _Reading(threading.local):
    at: datetime | None = None
    monotonic: float = 0.0


_reading = _Reading()


def now() -> datetime:
    """The present instant in business time, aware, UTC."""
    carry = _CARRY_TEST_CLOCK_S if settings.TEST_CLOCK else _CARRY_S
    elapsed = time.monotonic() - _reading.monotonic
    if _reading.at is None or elapsed > carry:
        started = time.monotonic()
        _reading.at = _ask_database()
        _reading.monotonic = (started + time.monotonic()) / 2
        elapsed = time.monotonic() - _reading.monotonic
    return _reading.at + timedelta(seconds=elapsed)


def forget() -> None:
    """Ask the database at the next reading."""
    _reading.at = None


def shift() -> timedelta:
    """How far the test clock is ahead; zero where it is off."""
    if not settings.TEST_CLOCK:
        return timedelta(0)
    row = TestClock.objects.first()
    return row.shift if row else timedelta(0)


def advance_to(instant: datetime) -> None:
    """Set the test clock to ``instant``; it runs on from there. It never goes back: that is what ``reset`` is for.

    Raises ``ClockDisabled`` where the test clock is off and ``ValueError`` for an instant in the past.
    """
    if not settings.TEST_CLOCK:
        raise ClockDisabled("The test clock is off. Set TEST_CLOCK=1, never in production.")
    forget()
    step = instant - now()
    if step < timedelta(0):
        raise ValueError(f"{instant.isoformat()} is before the clock's present; only 'reset' goes back.")
    TestClock.objects.update_or_create(id=1, defaults={"shift": shift() + step})
    forget()


def reset() -> None:
    """Show the real time again."""
    if not settings.TEST_CLOCK:
        raise ClockDisabled("The test clock is off. Set TEST_CLOCK=1, never in production.")
    TestClock.objects.all().delete()
    forget()


def _ask_database() -> datetime:
    with connection.cursor() as cursor:
        if settings.TEST_CLOCK:
            cursor.execute(
                "SELECT clock_timestamp() + COALESCE((SELECT shift FROM schedules_testclock LIMIT 1), interval '0')"
            )
        else:
            cursor.execute("SELECT clock_timestamp()")
        instant: datetime = cursor.fetchone()[0]
    return instant.astimezone(UTC)

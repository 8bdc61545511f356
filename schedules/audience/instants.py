"""Instants and dates written as text: the one pattern that Python and PostgreSQL both go by.

The pattern admits only what exists (no 30 February, no 24:00, no leap second) and what both sides read alike
(six digits of fraction, an explicit offset below 15 hours, years 1000 to 9999). A text that fits it can be
cast to `timestamptz` without an error, whatever the server's zone or date style is; everything else is no
instant. It is RFC 3339 with seconds optional, and a space allowed in the place of the T.
"""

import re
from datetime import MAXYEAR, UTC, datetime, timedelta

_YEAR = "[1-9][0-9]{3}"
_LEAP_YEAR = (
    "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])"  # divisible by 4, not by 100
    "|(?:[2468][048]|[13579][26])00)"  # divisible by 400
)
_DAY = (
    f"(?:{_YEAR}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    f"|{_LEAP_YEAR}-02-29)"
)
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6})?)?"
_OFFSET = "(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"

# Anchored for PostgreSQL, where `$` is the end of the text; Python's `$` isn't, hence `fullmatch` below.
INSTANT_OR_DATE_PATTERN = f"^{_DAY}(?:[T ]{_CLOCK}{_OFFSET})?$"
DATE_LENGTH = len("2026-03-01")
MIDNIGHT = "T00:00:00Z"  # of a bare date

_INSTANT_OR_DATE = re.compile(INSTANT_OR_DATE_PATTERN)
_FARTHEST = timedelta(hours=15)  # an offset is less than that
_AFTER_ALL_DIGITS = ":"


def read_instant(text: str) -> datetime | None:
    """The instant written in `text`, with the offset it is written in; None when it is none."""
    return read_instant_or_date(text) if len(text) > DATE_LENGTH else None


def read_instant_or_date(text: str) -> datetime | None:
    """As `read_instant`; a bare date such as `2026-03-01` is its midnight in UTC."""
    if not _INSTANT_OR_DATE.fullmatch(text):
        return None
    return datetime.fromisoformat(text if len(text) > DATE_LENGTH else text + MIDNIGHT)


def lowest_text(instant: datetime) -> str:
    """No text of this instant or a later one comes before this, by code point."""
    return f"{(instant.astimezone(UTC) - _FARTHEST).date()}"


def highest_text(instant: datetime) -> str:
    """Every text of this instant or an earlier one comes before this, by code point."""
    utc = instant.astimezone(UTC)
    return f"{(utc + _FARTHEST).date() + timedelta(days=1)}" if utc.year < MAXYEAR else _AFTER_ALL_DIGITS

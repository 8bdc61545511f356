"""Instants and dates written as text: the one pattern that Python and PostgreSQL both go by.

The pattern admits only what exists (no 30 February, no 24:00, no leap second) and what both sides read alike
(six digits of fraction, an explicit offset below 15 hours, years 1000 to 9999). A text that fits it can be
cast to `timestamptz` without an error, whatever the server's zone or date style is; everything else is no
instant. It is RFC 3339 with seconds optional, and a space allowed in the place of the T.
"""

import re
from datetime import datetime

_YEAR = "[1-9][0-9]{3}"
_LEAP_YEAR = (
    "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])"  # divisible by 4, not by 100
    "|(?:[2468][048]|[13579][26])00)"  # divisible by 400
)
_DAY = (
    f"(?:{_YEAR}-(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    f"|{_YEAR}-(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    f"|{_YEAR}-02-(?:0[1-9]|1[0-9]|2[0-8])"
    f"|{_LEAP_YEAR}-02-29)"
)
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6})?)?"
_OFFSET = "(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])"

# Anchored for PostgreSQL, where `$` is the end of the text; Python's `$` isn't, hence `fullmatch` below.
INSTANT_PATTERN = f"^{_DAY}[T ]{_CLOCK}{_OFFSET}$"
DATE_PATTERN = f"^{_DAY}$"
MIDNIGHT = "T00:00:00Z"

_INSTANT = re.compile(INSTANT_PATTERN)
_DATE = re.compile(DATE_PATTERN)


def read_instant(text: str) -> datetime | None:
    """The instant written in `text`, with the offset it is written in; None when it is none."""
    return datetime.fromisoformat(text) if _INSTANT.fullmatch(text) else None


def read_instant_or_date(text: str) -> datetime | None:
    """As `read_instant`; a bare date such as `2026-03-01` is its midnight in UTC."""
    return datetime.fromisoformat(text + MIDNIGHT) if _DATE.fullmatch(text) else read_instant(text)

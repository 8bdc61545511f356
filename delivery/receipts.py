"""What an erasure has done and what it leaves: a receipt that names nobody."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

# No provider call for the person starts later than this after the erasure: a claim holds people for ``PERMIT_S`` at
# most, and what is between two looks at the clock gets the rest.
LAST_CALL: Final = timedelta(seconds=5)


@dataclass(frozen=True)
class Remainder:
    """Something that stays: ``what`` is a code, ``count`` how many (None: not known here), ``until`` when it goes."""

    what: str
    why: str
    count: int | None = None
    until: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        return {"what": self.what, "count": self.count, "until": _instant(self.until), "why": self.why}


@dataclass(frozen=True)
class Receipt:
    """``recipient_id`` is the number that the ledger keeps, and that leads to no profile any more.

    ``schedules`` has, by a schedule's id, how many deliveries were still to come and are ``erased``. ``gone`` counts
    what was deleted or replaced, by a code.
    """

    recipient_id: int
    erased_at: datetime
    schedules: Mapping[int, int]
    gone: Mapping[str, int]
    remains: tuple[Remainder, ...]

    @property
    def pending(self) -> int:
        return sum(self.schedules.values())

    def to_json(self) -> dict[str, Any]:
        """As at the doors: camelCase, instants as texts."""
        return {
            "recipientId": self.recipient_id,
            "erasedAt": _instant(self.erased_at),
            "noCallStartsAfter": _instant(self.erased_at + LAST_CALL),
            "pending": self.pending,
            "schedules": [{"scheduleId": key, "pending": count} for key, count in sorted(self.schedules.items())],
            **self.gone,
            "remains": [each.to_json() for each in self.remains],
        }


def _instant(value: datetime | None) -> str | None:
    return value.isoformat().replace("+00:00", "Z") if value else None

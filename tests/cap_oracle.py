"""What the caps must say, counted from a list of deliveries: no sets, no scripts, nothing of the code under test.

``Books`` also stands in for the ledger that the caps ask, so that a test decides what the ledger knows and when.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple

from delivery.usage import Standing, Use

SPANS = {"daily_cap": timedelta(hours=24), "weekly_cap": timedelta(hours=168)}
SOON = timedelta(minutes=5)
IN_FLIGHT, USED, FREE = Standing.IN_FLIGHT, Standing.USED, Standing.FREE


class Expected(NamedTuple):
    """A person at a cap. ``wait``: between which instants they may ask again; ``None`` where it is final."""

    cap: str
    limit: int
    used: tuple[str, ...]
    wait: tuple[datetime, datetime] | None
    free_at: datetime


@dataclass
class Row:
    claimed_at: datetime
    counts: bool
    standing: Standing = IN_FLIGHT


class Books:
    """Everyone's deliveries, by recipient and by day and occurrence ("20261121-17"); fit for threads."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Row]] = defaultdict(dict)
        self.reads = 0
        self.dawdle: Callable[[], float] = lambda: 0.0  # real seconds between reading and handing out what was read
        self._lock = threading.Lock()

    def claim(self, pk: int, member: str, *, now: datetime, counts: bool = True) -> None:
        with self._lock:
            self.rows[pk][member] = Row(now, counts)

    def settle(self, pk: int, member: str, standing: Standing) -> None:
        with self._lock:
            self.rows[pk][member].standing = standing

    def verdict(self, pk: int, member: str, *, day: int | None, week: int | None, now: datetime) -> Expected | None:
        """Whether ``member`` may be sent to the person at ``now`` under a schedule's own caps; ``None`` if it may."""
        verdicts = [
            self._over(pk, member, cap, limit, now)
            for cap, limit in (("daily_cap", day), ("weekly_cap", week))
            if limit is not None
        ]
        return max(filter(None, verdicts), key=lambda verdict: verdict.free_at, default=None)

    def _over(self, pk: int, member: str, cap: str, limit: int, now: datetime) -> Expected | None:
        window = sorted(
            (row.claimed_at, name, row.standing)
            for name, row in self.rows[pk].items()
            if name != member and row.counts and row.standing is not FREE and row.claimed_at > now - SPANS[cap]
        )
        if len(window) < limit:
            return None
        free_at = window[len(window) - limit][0] + SPANS[cap]
        used = [name for _, name, standing in window if standing is USED]
        wait = None
        if free_at - now <= SOON:
            wait = free_at, free_at
        elif len(used) < limit:  # one of those in flight may yet make room
            wait = now + timedelta(seconds=1.5), now + timedelta(seconds=3)
        return Expected(cap, limit, tuple(used[-limit:]), wait, free_at)

    def crowded(self, *, cap: str, limit: int) -> list[tuple[int, list[str]]]:
        """Whoever got more than ``limit`` within any window of the cap's length that ends with a message."""
        found = []
        for pk, rows in self.rows.items():
            counted = sorted(
                (row.claimed_at, name) for name, row in rows.items() if row.counts and row.standing is not FREE
            )
            for end, _ in counted:
                within = [name for at, name in counted if end - SPANS[cap] < at <= end]
                if len(within) > limit:
                    found.append((pk, within))
        return found

    # What `delivery.usage` answers.

    def uses(self, recipient_ids: Sequence[int], *, now: datetime) -> list[Use]:
        with self._lock:
            self.reads += 1
            found = [
                Use(pk, *_read(name), row.claimed_at)
                for pk in recipient_ids
                for name, row in self.rows[pk].items()
                if row.counts and row.standing is not FREE and row.claimed_at > now - 2 * SPANS["weekly_cap"]
            ]
        time.sleep(self.dawdle())
        return found

    def standings(self, keys: Iterable[tuple[int, date, int]]) -> dict[tuple[int, date, int], Standing]:
        with self._lock:
            return {
                (pk, day, occurrence): self.rows[pk][f"{day:%Y%m%d}-{occurrence}"].standing
                for pk, day, occurrence in keys
            }


def _read(member: str) -> tuple[date, int]:
    day, occurrence = member.split("-")
    return date.fromisoformat(day), int(occurrence)

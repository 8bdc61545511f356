"""What a long run takes while it goes on: memory of each process and of Redis, and what vacuum has left to do."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
from django.conf import settings

from benchmarks import costs
from benchmarks.harness import query

# The tables whose rows change: what happened once is appended, and needs no vacuum.
_CHANGING = """relname ~ '^delivery_delivery_[0-9]'
    OR relname IN ('delivery_batch', 'schedules_occurrence', 'schedules_schedule')"""


@dataclass
class Watch:
    """``groups``: process ids by what they are. Figures are the highest seen, in megabytes or as shares from 0 to 1."""

    groups: Mapping[str, Sequence[int]]
    every_s: float = 10.0
    rss_mb: dict[str, float] = field(default_factory=dict)
    redis_mb: dict[str, float] = field(default_factory=dict)
    dead: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._servers: dict[str, Any] = {
            "broker": redis.Redis.from_url(settings.BROKER_URL),
            "counters": redis.Redis.from_url(settings.COUNTERS_URL),
        }
        self._next = 0.0
        self._vacuumed = _vacuumed()
        self._wal = _wal()

    def look(self, *, now: bool = False) -> None:
        """Look, unless that was done a moment ago."""
        if time.monotonic() < self._next and not now:
            return
        self._next = time.monotonic() + self.every_s
        for name, pids in self.groups.items():
            largest = max((size for pid in pids for size in costs.rss_mb(pid).values()), default=0.0)
            self.rss_mb[name] = max(largest, self.rss_mb.get(name, 0.0))
        for name, server in self._servers.items():
            used = server.info("memory")["used_memory"] / 2**20
            self.redis_mb[name] = max(used, self.redis_mb.get(name, 0.0))
        for name, share in dead_shares().items():
            self.dead[name] = max(share, self.dead.get(name, 0.0))

    def autovacuum(self) -> tuple[int, float]:
        """How many times tables that stand by now were vacuumed since the start, and the seconds that took."""
        runs, seconds = _vacuumed()
        return runs - self._vacuumed[0], seconds - self._vacuumed[1]

    def wal_mb(self) -> float:
        return (_wal() - self._wal) / 2**20


def dead_shares() -> dict[str, float]:
    """By table, the share of its rows that are dead, as the statistics have it; of small ones nothing is told."""
    rows = query(
        f"SELECT relname, n_dead_tup::float / (n_live_tup + n_dead_tup) FROM pg_stat_user_tables"
        f" WHERE n_live_tup + n_dead_tup > 1000 AND ({_CHANGING})"
    )
    return dict(rows)


def _vacuumed() -> tuple[int, float]:
    ((runs, ms),) = query(
        "SELECT COALESCE(sum(autovacuum_count), 0)::int, COALESCE(sum(total_autovacuum_time), 0)::float"
        " FROM pg_stat_user_tables"
    )
    return runs, ms / 1000


def _wal() -> int:
    ((written,),) = query("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")
    return int(written)

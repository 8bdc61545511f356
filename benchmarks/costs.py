"""What processes cost: processor time and memory, read from /proc (Linux)."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from redis.cluster import RedisCluster

from benchmarks.harness import query

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def family(pid: int) -> Iterator[int]:
    """``pid`` and its descendants."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def server_pids() -> dict[str, list[int]]:
    """The processes of PostgreSQL and Redis."""
    backend = query("SELECT pg_backend_pid()")[0][0]
    postmaster = int(_stat(backend)[1])
    servers = [node for url in (settings.BROKER_URL, settings.COUNTERS_URL) for node in _nodes(url)]
    return {"postgres": [postmaster], "redis": [int(each.info("server")["process_id"]) for each in servers]}


def _nodes(url: str) -> list[Any]:
    """The server at ``url``, or all of its cluster."""
    server: Any = redis.Redis.from_url(url)
    if not server.info("cluster").get("cluster_enabled"):
        return [server]
    return [node.redis_connection for node in RedisCluster.from_url(url).get_nodes()]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on, which is field 3 of proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time of these processes, their descendants and those of them that have ended."""
    ticks = 0
    for each in {member for pid in pids for member in family(pid)}:
        with suppress(OSError):
            ticks += sum(map(int, _stat(each)[11:15]))
    return ticks / _TICKS_PER_S


def machine_seconds() -> tuple[float, float]:
    """Processor time that was used and that there was to use since the machine started, all processors together."""
    user, nice, system, idle, waiting, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    used = user + nice + system + sum(rest)
    return used / _TICKS_PER_S, (used + idle + waiting) / _TICKS_PER_S


def rss_mb(pid: int) -> dict[int, float]:
    """Resident memory of each process of the family, in megabytes."""
    found = {}
    for each in family(pid):
        with suppress(OSError):
            pages = int(Path(f"/proc/{each}/statm").read_text().split()[1])
            found[each] = pages * _PAGE_BYTES / 2**20
    return found

"""The service's processes on this machine, and what each of them costs: processor time and memory, from /proc."""

import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import redis
from celery import Celery
from django.conf import settings

from benchmarks.environment import PROJECT, ROOT
from benchmarks.harness import query
from scheduler_project.local.supervisor import Process

# Where the processes leave their output.
LOGS = ROOT / "processes"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_APP = "scheduler_project.celery"


def celery(*arguments: str, app: str = _APP) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", app, *arguments]


def worker(name: str, *, queues: str, processes: int, env: Mapping[str, str], app: str = _APP, events: bool = False):
    """A prefork worker; ready once its pool stands."""
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
    options = ["-n", f"{name}@bench", "-Q", queues, "-c", str(processes), *(["-E"] if events else []), *quiet]
    return Process(name, celery("worker", *options, app=app), env=env, cwd=PROJECT)


def service(*, ses_url: str, senders: int) -> list[Process]:
    """Everything that a small installation runs; ``senders``: processes for each channel that sends."""
    env = provider_env(ses_url)
    return [
        Process("beat", celery("beat", "--pidfile=", "-l", "WARNING"), env=env, cwd=PROJECT),
        worker("clock", queues="clock", processes=1, env=env, events=True),
        worker("materialise", queues="materialise", processes=1, env=env),
        worker("email", queues="email", processes=senders, env=env),
        worker("in_app", queues="in_app", processes=senders, env=env),
    ]


def provider_env(ses_url: str) -> dict[str, str]:
    return {
        "EMAIL_PROVIDER": "ses",
        "AWS_ENDPOINT_URL_SESV2": ses_url,
        "AWS_ACCESS_KEY_ID": "benchmark",
        "AWS_SECRET_ACCESS_KEY": "benchmark",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


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
    brokers = [redis.Redis.from_url(url).info("server") for url in (settings.BROKER_URL, settings.COUNTERS_URL)]
    return {"postgres": [_parent(backend)], "redis": [int(info["process_id"]) for info in brokers]}


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on, which is field 3 of proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pids: Sequence[int]) -> float:
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


@dataclass
class Ticks:
    """Listens to the clock worker's events and keeps the instants at which a tick began, in seconds."""

    started: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._names: dict[str, str] = {}
        self._app = Celery(broker=settings.BROKER_URL)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def lateness(self, *, since: float, until: float) -> list[float]:
        """By how much each tick came later than a second after the one before, in seconds, sorted."""
        meant = [at for at in self.started if since <= at <= until]
        return sorted(max(0.0, after - before - 1.0) for before, after in pairwise(meant))

    def _listen(self) -> None:
        handlers = {"task-received": self._received, "task-started": self._started}
        with self._app.connection() as connection:
            self._app.events.Receiver(connection, handlers=handlers).capture(limit=None, timeout=None, wakeup=False)

    def _received(self, event: Mapping[str, str]) -> None:
        if event["name"] == "delivery.tick":
            self._names[event["uuid"]] = event["name"]

    def _started(self, event: Mapping[str, object]) -> None:
        if self._names.pop(str(event["uuid"]), None):
            self.started.append(float(event["timestamp"]))  # type: ignore[arg-type]

"""The service's processes as a benchmark runs them, and an ear for its ticks."""

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from celery import Celery
from django.conf import settings

from benchmarks.environment import PROJECT, ROOT
from benchmarks.stubs import Stubs
from scheduler_project.local.fleet import fleet
from scheduler_project.local.supervisor import Process
from schedules.models import Channel

# Where the processes leave their output.
LOGS = ROOT / "processes"


def service(stubs: Stubs, *, senders: int, beside_web: bool = False) -> list[Process]:
    """Everything that sends; ``senders``: processes for each channel. The clock's worker tells of its tasks."""
    concurrency = {"clock": 1, "materialise": 1, **dict.fromkeys(Channel.values, senders)}
    started = fleet(concurrency=concurrency, env=provider_env(stubs), beside_web=beside_web)
    return [
        replace(each, cwd=PROJECT, command=(*each.command, "-E") if each.name == "clock" else each.command)
        for each in started
    ]


def naive(stubs: Stubs, *, processes: int, queue: str) -> Process:
    """The worker of the naive peer."""
    command = (sys.executable, "-m", "celery", "-A", "benchmarks.naive", "worker", "-Q", queue, "-c", str(processes))
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING", "-n", "naive@%h")
    return Process("naive", (*command, *quiet), env=provider_env(stubs), cwd=PROJECT)


def provider_env(stubs: Stubs) -> Mapping[str, str]:
    return {**stubs.ses.variables(), **stubs.fcm.variables()}


@dataclass
class Ticks:
    """Listens to the clock worker's events and keeps the instants at which a tick began, in seconds since 1970."""

    started: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._received: set[str] = set()
        self._app = Celery(broker=settings.BROKER_URL)
        threading.Thread(target=self._listen, daemon=True).start()

    def lateness(self, *, since: float, until: float) -> list[float]:
        """By how much each tick came later than a second after the one before, in seconds, sorted."""
        meant = [at for at in self.started if since <= at <= until]
        return sorted(max(0.0, after - before - 1.0) for before, after in pairwise(meant))

    def _listen(self) -> None:
        handlers = {"task-received": self._note_name, "task-started": self._note_start}
        with self._app.connection() as connection:
            self._app.events.Receiver(connection, handlers=handlers).capture(limit=None, timeout=None, wakeup=False)

    def _note_name(self, event: Mapping[str, Any]) -> None:
        # Only this event names the task.
        if event["name"] == "delivery.tick":
            self._received.add(event["uuid"])

    def _note_start(self, event: Mapping[str, Any]) -> None:
        if event["uuid"] in self._received:
            self._received.remove(event["uuid"])
            self.started.append(event["timestamp"])

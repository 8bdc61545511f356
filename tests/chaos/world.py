"""A running service and a person at its door, for all scenarios: the small one, and what every one can."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scheduler_project.local.fleet import beat, worker
from scheduler_project.local.supervisor import Process
from tests.running import PROJECT, Running, Service, running_service

UNKNOWN_S = 900
# At how many random instants a long scenario strikes, unless told otherwise.
POINTS = 20
# Names of the small world's processes, and how many children a worker has.
_NAMES: Mapping[str, tuple[str, ...]] = {"beat": ("beat-1", "beat-2"), "email": ("email-1", "email-2")}
_CONCURRENCY: Mapping[str, int] = {"email": 4, "push": 2}
_RESTARTS = 10_000


class Refused(Exception):
    """The service did not do what it was asked for; the text is its own."""


class Door:
    """The process at the door; see ``tests.chaos.door``. One that has died is followed by another."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = {**env, "DJANGO_SETTINGS_MODULE": "scheduler_project.settings"}
        self._process: subprocess.Popen[str] | None = None
        self._is_ready = False

    def open(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.door"],
            cwd=PROJECT, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._is_ready = False

    def await_ready(self) -> None:
        """Returns when the next request will be carried out at once."""
        if self._process is None:
            self.open()
        while not self._is_ready:
            self._is_ready = self._line() == "ready"

    def ask(self, name: str, **arguments: Any) -> tuple[datetime, datetime, Any]:
        """(begun, done, result) of an operation; raises ``Refused``."""
        self.await_ready()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.write(json.dumps({"do": name, **arguments}) + "\n")
        process.stdin.flush()
        while not (line := self._line()).startswith('{"begun"') and not line.startswith('{"error"'):
            pass  # the service's own log
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(f"{name}: {answer['error']}")
        return _instant(answer["begun"]), _instant(answer["done"]), answer["result"]

    def _line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise Refused("the door's process has ended")
        return line.rstrip("\n")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate(timeout=10)
        self._process = None


@dataclass
class World:
    """``is_quick``: small crowds, and deadlines shortened from outside; else real ones. ``points``: how often a long
    scenario strikes.
    """

    running: Service
    door: Door
    is_quick: bool
    points: int = POINTS
    scenes: int = 0

    def size(self, quick: int, long: int) -> int:
        return quick if self.is_quick else long

    def names(self, kind: str) -> list[str]:
        """The processes of a kind: ``beat``, or a queue."""
        raise NotImplementedError

    def children(self, kind: str) -> int:
        """How many processes each worker of that queue has."""
        raise NotImplementedError

    def kill(self, name: str) -> None:
        """kill -9 of a process with its children; its supervisor starts another."""
        raise NotImplementedError

    def pid(self, name: str) -> int:
        """Raises LookupError while it isn't running."""
        raise NotImplementedError

    def kill_child(self, name: str, chance: random.Random) -> None:
        """kill -9 of one of a worker's children."""
        if children := children_of(self.pid(name)):
            os.kill(chance.choice(children), signal.SIGKILL)

    def calm(self) -> None:
        """Both providers behave well again."""
        self.running.stub.clear_faults()
        self.running.push_stub.clear_faults()

    def hurry(self) -> None:
        """Let the deadlines of what the dead held pass at once: leases, and messages that may be lost."""
        self.running.sql(
            "UPDATE delivery_batch SET queued_at = queued_at - interval '1 min',"
            " lease_until = lease_until - interval '1 min' WHERE queued_at IS NOT NULL OR sending > 0"
        )
        self.running.sql("UPDATE delivery_delivery SET leased_until = leased_until - interval '1 min' WHERE state = 1")


@dataclass
class SmallWorld(World):
    """Two beats, eight e-mail processes in two workers, one worker for each other queue."""

    running: Running

    def names(self, kind: str) -> list[str]:
        return [*_NAMES.get(kind, (kind,))]

    def children(self, kind: str) -> int:
        return _CONCURRENCY.get(kind, 1)

    def kill(self, name: str) -> None:
        self.running.supervisor.kill(name)

    def pid(self, name: str) -> int:
        return self.running.supervisor.pid(name)


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def children_of(pid: int) -> list[int]:
    shown = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in shown.stdout.split()]


def _processes(env: dict[str, str]) -> list[Process]:
    return [
        *(beat(name=name, env=env, restarts=_RESTARTS) for name in _NAMES["beat"]),
        *(
            worker(queue, name=name, concurrency=_CONCURRENCY.get(queue, 1), env=env, restarts=_RESTARTS)
            for queue in ("clock", "materialise", "email", "push", "in_app")
            for name in _NAMES.get(queue, (queue,))
        ),
    ]


def settings(*, is_quick: bool) -> dict[str, str]:
    """What differs from a service that nobody harms, whatever it runs on."""
    return {
        "EMAIL_PROVIDER": "tests.chaos.deadly.DeadlySes",
        "PUSH_PROVIDER": "tests.chaos.deadly.DeadlyFcm",
        "UNKNOWN_S": str(UNKNOWN_S),
        # A hundredth of the real delays, or a fifth.
        "RETRY_FIRST_DELAY_S": "0.1" if is_quick else "2",
        # What is broken here is meant to fail, and nobody is there to let it go on.
        "BRAKE_FAILURES": "1000000000",
    }


@contextmanager
def running_world(root: Path, *, is_quick: bool, points: int = POINTS) -> Iterator[World]:
    """The small world, on servers of its own."""
    with running_service(root, _processes, settings=settings(is_quick=is_quick)) as running:
        door = Door(running.env)
        try:
            door.open()
            yield SmallWorld(running, door, is_quick, points)
        finally:
            door.close()

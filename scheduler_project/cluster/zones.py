"""The processes of a zone: which there are, where they listen, how each shows that it works."""

import http.client
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from scheduler_project.local import fleet
from scheduler_project.local.ports import LOOPBACK
from scheduler_project.local.supervisor import Process

ZONES = ("a", "b")
# Processes of each queue's worker, in each zone.
CONCURRENCY: Mapping[str, int] = {"clock": 1, "materialise": 1, "email": 2, "push": 1, "in_app": 1, "events": 1}
_PROJECT = Path(__file__).resolve().parents[2]
_RESTARTS = 10_000  # whatever is done to them
_ANSWER_S = 5.0


@dataclass(frozen=True)
class Member:
    """One process of the cluster: ``web-a`` is the web server of zone a. ``zone`` is empty outside of the zones."""

    name: str
    kind: str
    zone: str
    process: Process


@dataclass(frozen=True)
class Zone:
    """``variables`` are the environment of its processes, ``broker`` the address of the broker's Redis."""

    name: str
    web_port: int
    streams_port: int
    ready_path: str
    broker: str
    variables: Mapping[str, str]

    def members(self) -> Iterator[Member]:
        """All but the zone's PgBouncer, in the order in which they are started."""
        for queue, concurrency in CONCURRENCY.items():
            kind = queue.replace("_", "-")
            worker = fleet.worker(queue, name=self._called(kind), concurrency=concurrency, restarts=_RESTARTS)
            yield self._member(kind, worker, partial(self._waits_at_broker, worker.name, "brpop"))
        beat = fleet.beat(name=self._called("beat"), restarts=_RESTARTS)
        yield self._member("beat", beat, partial(self._waits_at_broker, beat.name, ""))
        reader = Process(self._called("reader"), (sys.executable, "manage.py", "poll_ses_events"), restarts=_RESTARTS)
        yield self._member("reader", reader, None)
        web = fleet.web(self.web_port, name=self._called("web"), restarts=_RESTARTS)
        yield self._member("web", web, partial(_answers, self.web_port, self.ready_path))
        streams = fleet.streams(self.streams_port, name=self._called("streams"), restarts=_RESTARTS)
        yield self._member("streams", streams, partial(_answers, self.streams_port, "/healthz"))

    def _called(self, kind: str) -> str:
        return f"{kind}-{self.name}"

    def _member(self, kind: str, process: Process, ready: Callable[[], bool] | None) -> Member:
        env = {**self.variables, "APPLICATION_NAME": process.name}
        return Member(process.name, kind, self.name, replace(process, env=env, cwd=_PROJECT, ready=ready))

    def _waits_at_broker(self, name: str, command: str) -> bool:
        """Whether the process named so has a connection to the broker whose last command was ``command``, or any."""
        try:
            with Redis.from_url(self.broker, socket_timeout=_ANSWER_S) as client:
                return any(each["name"] == name and command in each["cmd"] for each in client.client_list())
        except RedisError:
            return False


def _answers(port: int, path: str) -> bool:
    try:
        asked = http.client.HTTPConnection(LOOPBACK, port, timeout=_ANSWER_S)
        asked.request("GET", path)
        status = asked.getresponse().status
        asked.close()
    except (OSError, http.client.HTTPException):
        return False
    return status == http.client.OK

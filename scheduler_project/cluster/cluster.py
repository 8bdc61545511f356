"""The cluster, running: where it is, which processes it has, and what may be done to them."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scheduler_project.cluster.ground import Ground, standing
from scheduler_project.cluster.zones import ZONES, Member, Zone
from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.haproxy import Haproxy
from scheduler_project.local.pgbouncer import Pgbouncer
from scheduler_project.local.ports import LOOPBACK, free_port
from scheduler_project.local.prometheus import Prometheus
from scheduler_project.local.redis import Server
from scheduler_project.local.redis_cluster import Cluster as RedisCluster
from scheduler_project.local.supervisor import Supervisor
from scheduler_project.outside.client import Client
from stubs.testing import RunningFcm, RunningStub

# What a web server that may be used answers with 200.
READY_PATH = "/readyz"
_POLL_S = 0.05
# Of fourteen workers and six servers that begin at once on two processors.
_READY_S = 300.0
_SERVERS_READY_S = 120.0
# Of a program that asks.
_PATIENCE_S = 60.0
# What the proxy leads to.
ASKED = ("web", "streams")
# After SIGTERM, until whoever runs a process kills it: containers are given as much.
GRACE_S = 30.0
# As PgBouncer 1.18 understands them: SIGINT waits for transactions under way, SIGTERM does not.
_LEAVE: Mapping[str, int] = {"pgbouncer": signal.SIGINT, "haproxy": signal.SIGUSR1}


@dataclass(frozen=True)
class Running:
    """A process as it runs. ``pid`` is 0 while it doesn't; it leads the group of its children."""

    name: str
    kind: str
    zone: str
    pid: int


class Cluster:
    """``ground`` is what the zones stand on; the members are watched over by ``supervisor``, which restarts them.

    ``prometheus`` is one of them, or none.
    """

    def __init__(
        self,
        ground: Ground,
        proxy: Haproxy,
        members: list[Member],
        supervisor: Supervisor,
        prometheus: Prometheus | None = None,
    ) -> None:
        self.ground, self.proxy, self.prometheus = ground, proxy, prometheus
        self._members = {member.name: member for member in members}
        self._supervisor = supervisor

    @property
    def address(self) -> str:
        """Of the pages and the API, through the proxy."""
        return self.proxy.address

    @property
    def database(self) -> str:
        """PostgreSQL's own address, as the owner of the tables."""
        return self.ground.database

    @property
    def broker(self) -> Server:
        return self.ground.broker

    @property
    def counters(self) -> RedisCluster:
        return self.ground.counters

    @property
    def ses(self) -> RunningStub:
        return self.ground.ses

    @property
    def fcm(self) -> RunningFcm:
        return self.ground.fcm

    def program(self) -> Client:
        """One that uses the API through the proxy. Raises LocalServicesError."""
        client_id, secret = self.ground.client()
        return Client(self.address, client_id=client_id, secret=secret, timeout_s=_PATIENCE_S)

    def processes(self, *, zone: str = "", kind: str = "") -> list[Running]:
        """All, or those of a zone and of a kind, in the order in which they were started.

        Kinds are ``web``, ``streams``, ``beat``, ``reader``, ``pgbouncer``, ``haproxy``, ``prometheus`` and the
        queues.
        """
        return [
            Running(member.name, member.kind, member.zone, self._pid(member.name))
            for member in self._members.values()
            if zone in ("", member.zone) and kind in ("", member.kind)
        ]

    def kill(self, name: str) -> None:
        """kill -9 of a process with its children; another is started at once. Raises KeyError for an unknown name."""
        self._supervisor.kill(name)

    def term(self, name: str) -> None:
        """SIGTERM, or what tells the program to end in order; another is started once it has ended."""
        self._supervisor.kill(name, _LEAVE.get(self._members[name].kind, signal.SIGTERM))

    def stop(self, name: str, *, grace_s: float = GRACE_S) -> float:
        """End in order, and stay away until ``start``; return the seconds that it took.

        What has not ended within ``grace_s`` is killed, as a container would be, and counts as infinitely long.
        """
        self._supervisor.hold(name)
        begun = time.monotonic()
        self.term(name)
        while time.monotonic() - begun < grace_s:
            if not self._supervisor.is_running(name):
                return time.monotonic() - begun
            time.sleep(_POLL_S)
        self._supervisor.kill(name)
        return float("inf")

    def start(self, name: str) -> None:
        """Again, after ``stop`` or ``kill_zone``; returns without waiting for it to be ready."""
        self._supervisor.let_go(name)

    def restart(self, name: str, *, ready_s: float = _READY_S) -> float:
        """End in order and start again; return the seconds that ending took. Raises LocalServicesError if not ready."""
        seconds = self.stop(name)
        self.start(name)
        self.await_ready(name, seconds=ready_s)
        return seconds

    def renew_proxy(self) -> None:
        """Have the proxy begin anew without refusing anybody. Raises LocalServicesError if it isn't back in time."""
        before = self.proxy.worker()
        self._supervisor.kill("haproxy", signal.SIGUSR2)
        deadline = time.monotonic() + _SERVERS_READY_S
        while self.proxy.worker() in ("", before):
            if time.monotonic() > deadline:
                raise LocalServicesError("The proxy did not begin anew; see haproxy.log")
            time.sleep(_POLL_S)

    def kill_zone(self, zone: str) -> None:
        """kill -9 of all that runs in the zone, its PgBouncer too, at one moment. They stay away."""
        names = [each.name for each in self.processes(zone=zone)]
        for name in names:
            self._supervisor.hold(name)
        self._supervisor.kill_together(*names)

    def bring_back(self, zone: str, *, ready_s: float = _READY_S) -> None:
        """Start what was killed with the zone, and wait for it. Raises LocalServicesError if not ready by then."""
        names = [each.name for each in self.processes(zone=zone)]
        for name in names:
            self.start(name)
        self.await_ready(*names, seconds=ready_s)
        self.await_led(*(each.name for each in self.processes(zone=zone) if each.kind in ASKED))

    def await_ready(self, *names: str, seconds: float = _READY_S) -> None:
        """Until these, or all, can be used. Raises LocalServicesError naming what can't."""
        self._supervisor.wait_ready(*names, seconds=seconds)

    def end(self) -> None:
        """End all: first what works, then what it works by, so that outcomes can be written to the last.

        Told to hurry meanwhile, by a second Ctrl-C or SIGTERM, it kills what is left: nothing stays behind.
        """
        grace_s = 0.0
        try:
            self._end_what_works()
            grace_s = GRACE_S
        finally:
            self._supervisor.stop(grace_seconds=grace_s)

    def _end_what_works(self) -> None:
        for each in self.processes():
            self._supervisor.hold(each.name)
            if each.kind not in _LEAVE:
                self.term(each.name)
        working = [each.name for each in self.processes() if each.kind not in _LEAVE]
        deadline = time.monotonic() + GRACE_S
        while any(map(self._supervisor.is_running, working)) and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def await_led(self, *names: str, seconds: float = _SERVERS_READY_S) -> None:
        """Until the proxy leads to these, or to all that it may. Raises LocalServicesError."""
        wanted = {f"{kind}/{each.name}" for kind in ASKED for each in self.processes(kind=kind)}
        wanted = {server for server in wanted if not names or server.partition("/")[2] in names}
        deadline = time.monotonic() + seconds
        while not wanted <= self._led():
            if time.monotonic() > deadline:
                raise LocalServicesError(
                    f"The proxy does not lead to {', '.join(sorted(wanted))}; see {self.proxy.state}"
                )
            time.sleep(_POLL_S)

    def _led(self) -> set[str]:
        try:
            return {server for server, state in self.proxy.states().items() if state.startswith("UP")}
        except OSError:
            return set()

    def given_up(self) -> list[str]:
        """Names of processes that kept ending."""
        return self._supervisor.given_up

    def _pid(self, name: str) -> int:
        try:
            return self._supervisor.pid(name)
        except LookupError:
            return 0


@contextmanager
def running_cluster(
    root: Path,
    *,
    port: int = 0,
    settings: Mapping[str, str] | None = None,
    stub: str = "stubs.ses",
    fates: Sequence[Mapping[str, object]] = (),
    is_watched: bool = False,
    ready_path: str = READY_PATH,
    said: Callable[[str], None] = lambda _: None,
) -> Iterator[Cluster]:
    """A cluster with its data below ``root``, ready, up to the end of the block and of the thread that enters it.

    ``port`` is the proxy's (0: a free one); ``settings`` come in the environment of every process of the service;
    ``stub`` is the module of the stub of SES, ``fates`` are the rules of what it tells of messages. ``is_watched``: by
    Prometheus too. ``said`` is told what is being waited for. Raises LocalServicesError.
    """
    root = root.expanduser().resolve()
    said("PostgreSQL, Redis, a Redis Cluster of three, the providers' stubs, and the tables")
    with standing(root, settings=settings or {}, stub=stub, fates=fates) as ground:
        proxy = _proxy(port, ready_path)
        prometheus = _prometheus(ground, proxy) if is_watched else None
        members = _members(ground, proxy, prometheus)
        said(f"{len(members)} processes in zones {' and '.join(ZONES)}")
        supervisor = Supervisor([member.process for member in members], logs=root / "logs", output=sys.stderr)
        cluster = Cluster(ground, proxy, members, supervisor, prometheus)
        try:
            supervisor.start()
            servers = [each.name for each in cluster.processes() if each.kind in _LEAVE]
            cluster.await_ready(*servers, seconds=_SERVERS_READY_S)  # or all others wait for them in vain
            cluster.await_ready()
            cluster.await_led()
            yield cluster
        finally:
            cluster.end()


def _proxy(port: int, ready_path: str) -> Haproxy:
    ports = _free_ports(3 + 2 * len(ZONES))
    own, state, admin = port or next(ports), next(ports), next(ports)
    web, streams = ({zone: next(ports) for zone in ZONES} for _ in range(2))
    return Haproxy(own, state, admin, web, streams, ready_path)


def _prometheus(ground: Ground, proxy: Haproxy) -> Prometheus:
    web, streams = ([f"{LOOPBACK}:{port}" for port in ports.values()] for ports in (proxy.web, proxy.streams))
    targets = {"service": web[:1], "web": web, "streams": streams, "proxy": [f"{LOOPBACK}:{proxy.state_port}"]}
    return Prometheus(ground.root / "prometheus", next(_free_ports(1)), targets)


def _members(ground: Ground, proxy: Haproxy, prometheus: Prometheus | None) -> list[Member]:
    """In the order in which they are started."""
    members = []
    ports = _free_ports(len(ZONES))
    for name in ZONES:
        pooler = Pgbouncer(f"pgbouncer-{name}", ground.root / f"pgbouncer-{name}", next(ports), ground.as_application)
        members.append(Member(pooler.name, "pgbouncer", name, pooler.process()))
        variables = {**ground.environment, "DATABASE_URL": pooler.pooled}
        zone = Zone(name, proxy.web[name], proxy.streams[name], proxy.ready_path, ground.broker.url, variables)
        members += zone.members()
    members.append(Member("haproxy", "haproxy", "", proxy.process()))
    return [*members, Member("prometheus", "prometheus", "", prometheus.process())] if prometheus else members


def _free_ports(count: int) -> Iterator[int]:
    """Different ones."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[free_port()] = None
    return iter(found)

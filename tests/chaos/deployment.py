"""The service as it is deployed: two zones behind a proxy, PgBouncers and a Redis Cluster, and what befalls these."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from configparser import RawConfigParser
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from redis import Redis

from scheduler_project.cluster.cluster import Cluster, running_cluster
from scheduler_project.cluster.traffic import Traffic, traffic
from scheduler_project.cluster.zones import CONCURRENCY
from scheduler_project.local.ports import LOOPBACK
from scheduler_project.local.redis import Server
from tests.chaos.reporting import note
from tests.chaos.world import POINTS, Door, World, children_of, settings
from tests.running import KEYS, Database, Service

# Connections that a zone's PgBouncer has, by deploy/pgbouncer/pgbouncer.ini.
POOL = 40
_SETTINGS = {
    "MATERIALISE_AHEAD_S": "5",
    "ENCRYPTION_KEYS": KEYS.encryption[0].hex(),
    "BLIND_INDEX_KEY": KEYS.index.hex(),
    # Shows the real time until somebody sets it.
    "TEST_CLOCK": "true",
}


@dataclass
class Deployment(World):
    """``cluster`` is what runs."""

    cluster: Cluster = field(kw_only=True)

    def names(self, kind: str) -> list[str]:
        return [each.name for each in self.cluster.processes(kind=kind.replace("_", "-"))]

    def children(self, kind: str) -> int:
        return CONCURRENCY[kind]

    def kill(self, name: str) -> None:
        self.cluster.kill(name)

    def pid(self, name: str) -> int:
        (found,) = (each.pid for each in self.cluster.processes() if each.name == name)
        if not found:
            raise LookupError(f"{name} is not running")
        return found

    @contextmanager
    def traffic(self) -> Iterator[Traffic]:
        """Programs that ask the API through the proxy all the while, each request once, what they write with a key."""
        with traffic(self.cluster.program, keyed=True) as counted:
            yield counted
        for failure in counted.failures:
            note(f"  not answered: {failure}")

    def set_clock(self, ahead: timedelta) -> None:
        """Business time is so far ahead of the real one from now on."""
        self.running.sql(
            "INSERT INTO schedules_testclock (id, shift) VALUES (1, %s)"
            " ON CONFLICT (id) DO UPDATE SET shift = EXCLUDED.shift",
            ahead,
        )

    @contextmanager
    def taken_places(self, zones: Sequence[str]) -> Iterator[None]:
        """All connections that these zones' PgBouncers may have to the database are in somebody's transactions."""
        with ExitStack() as opened:
            for pooler in (f"pgbouncer-{zone}" for zone in zones):
                for _ in range(POOL):
                    connection = psycopg.connect(self._by(pooler), connect_timeout=5)
                    opened.callback(connection.close)
                    connection.execute("SELECT 1")  # it begins a transaction, which nobody ends
            yield

    def _by(self, pooler: str) -> str:
        """The database's address by a PgBouncer."""
        config = RawConfigParser(comment_prefixes=(";",))
        config.read(self.cluster.ground.root / pooler / "pgbouncer.ini")
        given = urlsplit(self.cluster.ground.as_application)
        user, _, _ = given.netloc.rpartition("@")
        return given._replace(netloc=f"{user}@{LOOPBACK}:{config['pgbouncer']['listen_port']}").geturl()

    @contextmanager
    def still_database(self) -> Iterator[None]:
        """PostgreSQL stands still altogether: it takes connections, and answers nothing."""
        first = self.running.postmaster()
        stopped = []
        for pid in (first, *children_of(first)):
            try:
                os.kill(pid, signal.SIGSTOP)
            except ProcessLookupError:
                continue
            stopped.append(pid)
        try:
            yield
        finally:
            for pid in reversed(stopped):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def locked_table(self, table: str) -> Iterator[None]:
        """Nobody may write to a table."""
        with psycopg.connect(self.cluster.database) as connection:
            connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            yield

    @contextmanager
    def slow_writes(self, table: str, *, seconds: float) -> Iterator[None]:
        """Each statement that changes a table takes so much longer."""
        with psycopg.connect(self.cluster.database, autocommit=True) as connection:
            connection.execute(
                f"CREATE OR REPLACE FUNCTION chaos_slow() RETURNS trigger LANGUAGE plpgsql"
                f" AS $$ BEGIN PERFORM pg_sleep({seconds:f}); RETURN NULL; END $$"
            )
            connection.execute(
                f"CREATE TRIGGER chaos_slow BEFORE UPDATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION chaos_slow()"
            )
            try:
                yield
            finally:
                connection.execute(f"DROP TRIGGER chaos_slow ON {table}")

    def fail_over(self, server: Server, *, lost_s: float, away_s: float) -> None:
        """Redis comes back after ``away_s`` as it was ``lost_s`` before: what it was told meanwhile is gone."""
        with Redis.from_url(server.url) as client:
            client.save()
        time.sleep(lost_s)
        server.kill()
        time.sleep(away_s)
        server.start()
        (server.redis.home / "dump.rdb").unlink()  # or the next start would find it
        self.cluster.counters.agree()

    @contextmanager
    def full_broker(self) -> Iterator[None]:
        """The broker's memory is used up: it refuses whatever needs more of it, and gives out what it has."""
        with Redis.from_url(self.running.broker.url) as broker:
            broker.config_set("maxmemory", broker.info("memory")["used_memory"] // 2)
            try:
                yield
            finally:
                broker.config_set("maxmemory", 0)

    def refused_for_memory(self) -> int:
        """How often the broker has refused something for want of memory since it started."""
        with Redis.from_url(self.running.broker.url) as broker:
            return int(broker.info("errorstats").get("errorstat_OOM", {}).get("count", 0))


@contextmanager
def running_deployment(root: Path, *, points: int = POINTS) -> Iterator[Deployment]:
    """All of a deployment below ``root``, with deadlines as they are. Raises LocalServicesError."""
    os.environ["LOCAL_PG_FSYNC"] = "off"
    given = {**settings(is_quick=False), **_SETTINGS}
    with running_cluster(root, settings=given, said=note) as cluster:
        ground = cluster.ground
        service = Service(
            root,
            {**ground.environment, "DATABASE_URL": ground.as_application},
            Database(cluster.database),
            cluster.broker,
            cluster.counters.nodes,
            cluster.ses,
            cluster.fcm,
            ground.ses_log,
            ground.fcm_log,
            ground.root / "database",
        )
        door = Door(service.env)
        try:
            door.open()
            yield Deployment(service, door, False, points, cluster=cluster)
        finally:
            door.close()
            service.database.close()

"""A whole service of real processes, seen from outside: its database by SQL, its providers by the stubs' own logs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from redis import Redis

from scheduler_project.local import services
from scheduler_project.local.redis import Server, running_server
from scheduler_project.local.supervisor import Process, Supervisor
from schedules.encryption import Keys, Keyset
from stubs.testing import RunningFcm, RunningStub, running_fcm, running_ses
from tests import migrated
from tests.migrated import PASSWORD

# As the ledger's table numbers them.
STATES = {
    0: "pending", 1: "sending", 2: "unknown", 10: "sent", 11: "failed", 12: "rate_limited", 13: "suppressed",
    14: "unaddressable", 15: "cancelled", 16: "erased", 17: "expired",
}  # fmt: skip

PROJECT = Path(__file__).resolve().parents[1]
# Under which the service keeps addresses and tokens; with them the tests put people in by SQL.
KEYS = Keys((bytes(range(32)),), bytes(range(32, 64)))
KEYSET = Keyset(KEYS)
APP = "notification_app"  # as audit.roles calls it, which needs Django
# Seconds for which a statement of ours waits for a database that is being restarted.
_AWAY_S = 60.0


class Database:
    """The service's database by SQL, across its restarts; every statement is a transaction of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows, if any. A statement that a restart cuts off is run again, so it must bear being run twice."""
        give_up = time.monotonic() + _AWAY_S
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=5)
                cursor = self._connection.execute(statement, parameters)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                self.close()
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.1)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


@dataclass
class Service:
    """The service under test, whoever runs it: ``sql`` is the way in, the stubs are the only way out.

    ``env`` is the environment of its processes. ``counters``: one server, or the nodes of a cluster. ``postgres``: the
    database's folder.
    """

    root: Path
    env: dict[str, str]
    database: Database
    broker: Server
    counters: list[Server]
    stub: RunningStub
    push_stub: RunningFcm
    log: Path
    push_log: Path
    postgres: Path

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.database.sql(statement, *parameters)

    def accepted(self) -> list[dict[str, Any]]:
        """What the stub took, by its own log."""
        return read_log(self.log)

    def wait_for(self, what: str, found: Any, *, seconds: float) -> None:
        """Until ``found()`` is true; the books must close at every look."""
        deadline = time.monotonic() + seconds
        while not found():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            self.assert_books_close()
            time.sleep(0.2)

    def assert_books_close(self) -> None:
        assert not self.open_books()

    def open_books(self) -> list[tuple[Any, ...]]:
        """Occurrences of which targeted, the batches' counters and the rows, counted here, disagree in some state."""
        counters = " || ".join(f"jsonb_build_object('{state}', {name})" for state, name in STATES.items())
        return self.sql(
            f"""
            SELECT o.id, o.targeted, b.counts, r.counts FROM schedules_occurrence o
            CROSS JOIN LATERAL (
                SELECT COALESCE(jsonb_object_agg(state, total), '{{}}') AS counts, COALESCE(sum(total), 0) AS size
                FROM (
                    SELECT key AS state, sum(value::int) AS total
                    FROM delivery_batch, jsonb_each_text({counters}) WHERE occurrence_id = o.id GROUP BY key
                ) s WHERE total > 0
            ) b
            CROSS JOIN LATERAL (
                SELECT COALESCE(jsonb_object_agg(state::text, total), '{{}}') AS counts FROM (
                    SELECT state, count(*) AS total FROM delivery_delivery WHERE occurrence_id = o.id GROUP BY state
                ) s
            ) r
            WHERE b.counts <> r.counts OR o.targeted <> b.size
            """
        )

    def restart_database(self, number: int = signal.SIGKILL) -> None:
        """End the server by a signal: SIGKILL is a crash, SIGINT an orderly restart. Its keeper starts it again."""
        os.kill(self.postmaster(), number)
        self.database.close()
        time.sleep(0.1)
        self.sql("SELECT 1")

    def postmaster(self) -> int:
        """The process id of PostgreSQL's first process."""
        return int((self.postgres / "postmaster.pid").read_text().split()[0])

    def flush(self, *servers: Server) -> None:
        for server in servers:
            with Redis.from_url(server.url) as client:
                client.flushall()

    @contextmanager
    def alongside(self, *processes: Process) -> Iterator[Supervisor]:
        """More processes of the service, up to the end of the block."""
        with Supervisor(processes, logs=self.root / "logs", output=sys.stderr) as supervisor:
            yield supervisor


@dataclass
class Running(Service):
    """A service whose processes are ours to start and end, one by one; ``manage`` is another way in."""

    supervisor: Supervisor

    def python(self, script: str) -> str:
        return _run([sys.executable, "manage.py", "shell", "--no-imports", "-c", script], self.env)

    def manage(self, *arguments: str) -> str:
        return _run([sys.executable, "manage.py", *arguments], self.env)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a stub's log; the last may be half written."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def _as_application(url: str) -> str:
    """The processes sign in as the role of a deployment; tests look on as the owner."""
    given = urlsplit(url)
    return given._replace(netloc=f"{APP}:{PASSWORD}@{given.hostname}:{given.port}").geturl()


def _run(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@contextmanager
def running_service(
    root: Path,
    processes: Callable[[dict[str, str]], list[Process]],
    *,
    stub: str = "stubs.ses",
    stub_options: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """The service on servers of its own below ``root``, with ``processes(environment)``.

    ``stub``, with ``stub_options`` on its command line, takes the e-mails, the stub of FCM the pushes. Broker and
    counters end with the block, and with the thread that enters it.
    """
    os.environ["LOCAL_PG_FSYNC"] = "off"
    is_migrated = migrated.copy(root / "local")
    urls = services.ensure(root=root / "local", need=frozenset({"database"}))
    log, push_log = root / "ses.ndjson", root / "fcm.ndjson"
    with ExitStack() as opened:
        broker, counters = (
            opened.enter_context(running_server(root=root / "redis", name=name)) for name in ("broker", "counters")
        )
        fcm = opened.enter_context(running_fcm(credentials=root / "fcm.json", log=push_log))
        env = {
            **os.environ,
            "DATABASE_URL": urls.database,
            "BROKER_URL": broker.url,
            "COUNTERS_URL": counters.url,
            "SECRET_KEY": "test",
            "ENCRYPTION_KEYS": KEYS.encryption[0].hex(),
            "BLIND_INDEX_KEY": KEYS.index.hex(),
            "MATERIALISE_AHEAD_S": "5",
            **fcm.variables(),
            **(settings or {}),
        }
        if not is_migrated:
            _run([sys.executable, "manage.py", "migrate", "--verbosity=0"], env)
            _run([sys.executable, "manage.py", "grant_roles"], {**env, "APP_DATABASE_PASSWORD": PASSWORD})
        env["DATABASE_URL"] = _as_application(urls.database)
        days = "from delivery.tasks import housekeeping; housekeeping()"
        _run([sys.executable, "manage.py", "shell", "--no-imports", "-c", days], env)
        ses = opened.enter_context(running_ses(log=log, module=stub, env=env, options=stub_options))
        env |= {**ses.variables(), **(settings or {})}
        database = Database(urls.database)
        opened.callback(database.close)
        supervisor = opened.enter_context(Supervisor(processes(env), logs=root / "logs", output=sys.stderr))
        postgres = root / "local" / "database"
        yield Running(root, env, database, broker, [counters], ses, fcm, log, push_log, postgres, supervisor)

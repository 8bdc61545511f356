"""A whole service of real processes, seen from outside: its database by SQL, its provider by the stub's own log."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from scheduler_project.local import services
from scheduler_project.local.supervisor import Process, Supervisor
from stubs.testing import RunningStub, running_ses

# As the ledger's table numbers them.
STATES = {
    0: "pending", 1: "sending", 2: "unknown", 10: "sent", 11: "failed", 12: "rate_limited", 13: "suppressed",
    14: "unaddressable", 15: "cancelled", 16: "erased", 17: "expired",
}  # fmt: skip

PROJECT = Path(__file__).resolve().parents[1]


@dataclass
class Running:
    """The service under test. ``sql`` and ``manage`` are the only ways in, ``stub`` the only way out."""

    env: dict[str, str]
    database: psycopg.Connection[Any]
    stub: RunningStub
    supervisor: Supervisor
    log: Path

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        cursor = self.database.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []

    def python(self, script: str) -> str:
        return _run([sys.executable, "manage.py", "shell", "--no-imports", "-c", script], self.env)

    def manage(self, *arguments: str) -> str:
        return _run([sys.executable, "manage.py", *arguments], self.env)

    def counts(self, schedule: int) -> dict[str, int]:
        """People by state, counted from the rows."""
        rows = self.sql(
            "SELECT d.state, count(*) FROM delivery_delivery d JOIN schedules_occurrence o ON o.id = d.occurrence_id"
            " WHERE o.schedule_id = %s GROUP BY 1",
            schedule,
        )
        return {STATES[state]: count for state, count in rows}

    def accepted(self) -> list[dict[str, Any]]:
        """What the stub took, by its own log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_for(self, what: str, found: Any, *, seconds: float) -> None:
        """Until ``found()`` is true; the books must close at every look."""
        deadline = time.monotonic() + seconds
        while not found():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            self.assert_books_close()
            time.sleep(0.2)

    def assert_books_close(self) -> None:
        """Targeted, the batches' counters and the rows, counted here, agree state by state."""
        counters = " || ".join(f"jsonb_build_object('{state}', {name})" for state, name in STATES.items())
        wrong = self.sql(
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
        assert not wrong


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
    settings: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """The service on servers of its own below ``root``, with ``processes(environment)``; ``stub`` takes the e-mails."""
    os.environ["LOCAL_PG_FSYNC"] = "off"
    urls = services.ensure(root=root / "local")
    log = root / "ses.ndjson"
    env = {
        **os.environ,
        "DATABASE_URL": urls.database,
        "BROKER_URL": urls.broker,
        "COUNTERS_URL": urls.counters,
        "SECRET_KEY": "test",
        "EMAIL_PROVIDER": "ses",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "MATERIALISE_AHEAD_S": "5",
        **(settings or {}),
    }
    _run([sys.executable, "manage.py", "migrate", "--verbosity=0"], env)
    _run([sys.executable, "manage.py", "shell", "--no-imports", "-c", "from delivery.tasks import daily; daily()"], env)
    with running_ses(log=log, module=stub, env=env) as ses, psycopg.connect(urls.database, autocommit=True) as database:
        env["AWS_ENDPOINT_URL_SESV2"] = ses.url
        with Supervisor(processes(env), logs=root / "logs") as supervisor:
            yield Running(env, database, ses, supervisor, log)

"""``/metrics`` of a whole service whose workers are killed and stopped: exact all the same, and a silence is heard."""

import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from scheduler_project.local.fleet import beat, worker
from scheduler_project.local.supervisor import Process
from tests.running import KEYSET, Running, running_service

PEOPLE = 4_000
Samples = dict[tuple[str, ...], float]


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


# Nobody works for these queues here.
UNATTENDED = {"push", "in_app", "events"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("metrics")
    shared = root / "prometheus"
    shared.mkdir()

    def processes(env: dict[str, str]) -> list[Process]:
        web = (sys.executable, "-m", "gunicorn", "scheduler_project.wsgi", "--bind", f"127.0.0.1:{port}")
        return [
            Process("web", (*web, "--workers", "2"), env={**env, "PROMETHEUS_MULTIPROC_DIR": str(shared)}),
            beat(env=env),
            worker("clock", env=env),
            worker("materialise", env=env),
            worker("email", concurrency=2, env=env, restarts=10),
        ]

    with running_service(root, processes) as service:
        yield service


@pytest.fixture
def scrape(running: Running, port: int) -> Callable[[], Samples]:
    def read() -> Samples:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    def is_up() -> bool:
        try:
            return bool(read())
        except OSError:
            return False

    running.wait_for("the page", is_up, seconds=60)
    return read


def total(samples: Samples, name: str) -> int:
    return int(sum(value for key, value in samples.items() if key[0] == name))


SCHEDULE = """
from datetime import timedelta
from schedules import clock, operations, templates
from schedules.definition import Definition
now = clock.now()
content = {"channel": "email", "locale": "en", "subject": "Counted", "text": "Hello {{ recipient.external_id }}"}
template = templates.save(name="Counted", contents=[content], by="system:test", now=now)
definition = Definition(
    name="Counted", channel="email", template_id=template.pk, schedule_type="once", audience_query={"all": []},
    run_at=now + timedelta(seconds=5),
)
operations.create(definition=definition, by="system:test", now=now)
"""


def test_counters_are_exact_though_workers_die_in_mid_run(running: Running, scrape: Callable[[], Samples]) -> None:
    running.stub.fault({"kind": "latency", "seconds": 0.1})
    addresses = [f"counted-{number}@example.com" for number in range(1, PEOPLE + 1)]
    running.sql(
        "INSERT INTO schedules_recipient"
        " (external_id, email, email_index, locale, time_zone, attributes, tags, consent)"
        " SELECT split_part(address, '@', 1), email, index, 'en', '', '{}', '[]', '{}'"
        " FROM unnest(%s::text[], %s::bytea[], %s::uuid[]) AS v(address, email, index)",
        addresses,
        [KEYSET.encrypt(address.encode(), b"schedules_recipient.email") for address in addresses],
        [KEYSET.index_of_address(address) for address in addresses],
    )
    running.python(SCHEDULE)

    seen = [0]
    for share in (0.1, 0.5):
        running.wait_for(f"{share} sent", lambda least=share * PEOPLE: rows(running, 10) > least, seconds=90)
        running.supervisor.kill("email")
        let_leases_run_out(running)
        seen.append(total(scrape(), "notifications_sent_total"))
        assert seen[-1] == rows(running, 10)  # nobody is left to write
        running.wait_for("its successor", lambda: running.supervisor.is_running("email"), seconds=30)
    running.wait_for("drained", lambda: rows(running, 0, 1) == 0, seconds=120)

    assert seen == sorted(seen)
    samples = scrape()
    unclear = rows(running, 2)
    assert total(samples, "notifications_sent_total") == rows(running, 10) == PEOPLE - unclear
    assert (
        samples["notifications_unknown_total", "email", "worker_lost"]
        == unclear
        == samples["swept_total", "lease_expired"]
    )
    assert samples["notifications_send_lateness_seconds_count", "email"] == rows(running, 10)
    assert unclear > 0

    running.sql("UPDATE delivery_delivery SET leased_until = leased_until - interval '15 min' WHERE state = 2")
    running.wait_for("settled", lambda: rows(running, 2) == 0, seconds=30)
    assert scrape()["notifications_failed_total", "email", "outcome_unknown"] == rows(running, 11) == unclear


def let_leases_run_out(running: Running) -> None:
    """The sweep's time, without waiting for it: nobody is there whose call could still be under way."""
    running.sql("UPDATE delivery_delivery SET leased_until = leased_until - interval '1 min' WHERE state = 1")
    running.sql(
        "UPDATE delivery_batch SET lease_until = lease_until - interval '1 min',"
        " queued_at = queued_at - interval '1 min'"
    )


def rows(running: Running, *states: int) -> int:
    return int(running.sql("SELECT count(*) FROM delivery_delivery WHERE state = ANY(%s)", list(states))[0][0])


def test_a_worker_that_is_connected_and_consumes_nothing_is_noticed(
    running: Running, scrape: Callable[[], Samples]
) -> None:
    running.wait_for("an answer", lambda: silent(scrape()) == UNATTENDED, seconds=60)
    group = running.supervisor.pid("email")
    os.killpg(group, signal.SIGSTOP)
    try:
        pass_by(running, 16, "canaries")
        running.wait_for("a canary in vain", lambda: asked_in_vain(running), seconds=60)
        pass_by(running, 61, "canary:email", "queue:email")
        pass_by(running, 16, "canaries")
        running.wait_for("the silence", lambda: scrape()["queue_silent_seconds", "email"] > 60, seconds=60)
        assert not silent(scrape()) & {"clock", "materialise"}
        log = (running.root / "logs" / "clock.log").read_text()
        named = [line for line in log.splitlines() if "queue_silent" in line and '"email"' in line]
        assert named
    finally:
        os.killpg(group, signal.SIGCONT)
    running.wait_for("its answer", lambda: "email" not in silent(scrape()), seconds=60)


def silent(samples: Samples) -> set[str]:
    """The queues that were asked and did not answer."""
    never = {queue for queue in UNATTENDED if ("queue_consumed_seconds", queue) not in samples}
    return never | {key[1] for key, value in samples.items() if key[0] == "queue_silent_seconds" and value > 0}


def asked_in_vain(running: Running) -> bool:
    return bool(
        running.sql(
            "SELECT 1 FROM delivery_heartbeat c JOIN delivery_heartbeat q ON q.name = 'queue:email'"
            " WHERE c.name = 'canary:email' AND c.seen_at > q.seen_at"
        )
    )


def pass_by(running: Running, seconds: int, *names: str) -> None:
    """So much time, for these heartbeats."""
    running.sql(
        "UPDATE delivery_heartbeat SET seen_at = seen_at - make_interval(secs => %s) WHERE name = ANY(%s)",
        seconds, list(names),
    )  # fmt: skip


def test_requests_are_counted_over_all_processes_of_the_web_server(
    running: Running, scrape: Callable[[], Samples]
) -> None:
    before = scrape()["django_http_requests_before_middlewares_total",]
    for _ in range(40):
        scrape()
    assert scrape()["django_http_requests_before_middlewares_total",] == before + 41

"""A worker that is connected and consumes nothing ends itself, whatever its neighbour at the same queue does."""

import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from django_celery_beat.schedulers import DatabaseScheduler
from kombu import Connection, Queue

import scheduler_project.celery  # noqa: F401 - what workers import
from scheduler_project import beat, watch
from scheduler_project.local.redis import Server
from scheduler_project.local.supervisor import Process, Supervisor
from tests.running import PROJECT
from tests.service import PATIENCE_S

# As the broker's library left it once: connected, and no place for a message is ever free again (celery #8091).
_DEAF = "redis.Channel.QoS.can_consume = lambda places: False"
# Its main thread hangs where Celery's end in order does not come to pass.
_HUNG = "signal.signal(signal.SIGTERM, signal.SIG_IGN); redis.Channel.QoS.can_consume = lambda places: False"
_WORKER = """
import signal, sys
from celery import signals
from kombu.transport import redis
from scheduler_project import celery as ours, watch

signals.celeryd_after_setup.receivers.clear()
watch.SILENT_S, watch.LOOK_S, watch._MERCY_S, ours.DRAIN_S = 1.0, 0.5, 1.0, 1.0

@signals.worker_ready.connect
def ready(**_):
    exec(sys.argv[1])

ours.app.worker_main(["worker", "-Q", "jobs", "-c", "1", "--loglevel=WARNING", "--without-gossip", "--without-mingle"])
"""


@pytest.mark.parametrize("how", [_DEAF, _HUNG], ids=["deaf", "deaf to SIGTERM too"])
def test_a_deaf_worker_ends(redis_server: Server, tmp_path: Path, how: str):
    env = {"BROKER_URL": redis_server.url, "CELERY_BROKER_URL": redis_server.url}
    process = Process("worker", (sys.executable, "-c", _WORKER, how), env=env, cwd=PROJECT)
    with Supervisor([process], logs=tmp_path / "logs") as supervisor:
        supervisor.hold("worker")
        deadline = time.monotonic() + PATIENCE_S
        while supervisor.is_running("worker"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert '"event": "process_silent"' in (tmp_path / "logs" / "worker.log").read_text()


def test_an_answer_of_the_broker_is_a_sign_of_life(redis_server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch._Life, "seen", 0.0)
    with Connection(redis_server.url) as connection, connection.Consumer([Queue("jobs")], on_message=print):
        deadline = time.monotonic() + PATIENCE_S
        while not watch._Life.seen:
            assert time.monotonic() < deadline
            with suppress(TimeoutError):
                connection.drain_events(timeout=1.5)


def test_a_turn_of_beat_is_a_sign_of_life(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watch._Life, "seen", 0.0)
    monkeypatch.setattr(DatabaseScheduler, "tick", lambda *_: 0.7)
    assert beat.Scheduler.tick(object.__new__(beat.Scheduler)) == 0.7
    assert watch._Life.seen > 0.0

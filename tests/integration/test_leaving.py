"""A worker that is told to end ends what is under way, hands back the rest, and loses nobody."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from redis import Redis

from delivery import leaving, sending
from delivery.models import Batch
from scheduler_project.celery import app
from scheduler_project.local.redis import Server
from scheduler_project.local.supervisor import Process, Supervisor
from tests.books import assert_books_close
from tests.factories import ScheduleFactory, people
from tests.service import PATIENCE_S, states

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.django_db
def test_the_calls_at_hand_are_recorded_and_all_others_are_handed_out_again_at_once(
    service, provider, monkeypatch, settings
):
    settings.CALLS_IN_FLIGHT = 1
    monkeypatch.setattr(provider, "max_per_call", 10)
    people(60)
    schedule = ScheduleFactory()
    service.open()
    (handout,) = service.publish()
    told = []
    monkeypatch.setattr(leaving, "is_leaving", lambda: bool(told))
    provider.meanwhile = staticmethod(lambda: told.append(True))
    sending.send(batch_ids=handout.batch_ids)
    assert_books_close()
    assert states(schedule) == {"sent": 10, "pending": 50}
    assert Batch.objects.get().queued_at is None
    sending.send(batch_ids=handout.batch_ids)  # a message that its worker had taken already
    assert states(schedule) == {"sent": 10, "pending": 50}
    monkeypatch.setattr(leaving, "is_leaving", lambda: False)
    service.send(rounds=5)
    assert states(schedule) == {"sent": 60}
    assert set(provider.reached().values()) == {1}


def test_a_process_that_its_worker_has_forked_hears_of_it():
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)  # until the parent has left
        os._exit(7 if leaving.is_leaving() else 0)
    os.close(read)
    try:
        assert not leaving.is_leaving()
        leaving.leave()
        os.close(write)
        _, status = os.waitpid(child, 0)
    finally:
        leaving._said[0] = 0
    assert os.waitstatus_to_exitcode(status) == 7


# A worker of the service's own Celery application, with tasks that need no database.
_WORKER = """
import os, sys, time
from celery import signals
from scheduler_project import celery as ours
signals.celeryd_after_setup.receivers.clear()
ours.DRAIN_S = float(sys.argv[1])
told = sys.argv[2]

@ours.app.task(name="tests.work")
def work(seconds, name):
    with open(told, "a") as file:
        print("begun", name, file=file, flush=True)
        time.sleep(seconds)
        print("done", name, file=file, flush=True)

ours.app.worker_main(["worker", "-Q", "jobs", "-c", "1", "--loglevel=WARNING", "--without-gossip", "--without-mingle"])
"""


@pytest.mark.parametrize(("seconds", "limit", "is_done"), [(1.5, 600.0, True), (600.0, 0.5, False)])
def test_sigterm_waits_for_a_task_so_long_and_gives_messages_back(
    redis_server: Server, tmp_path: Path, seconds: float, limit: float, is_done: bool
):
    told = tmp_path / "told"
    env = {"BROKER_URL": redis_server.url, "CELERY_BROKER_URL": redis_server.url}
    process = Process("worker", (sys.executable, "-c", _WORKER, str(limit), str(told)), env=env, cwd=PROJECT)
    with Redis.from_url(redis_server.url) as broker, Supervisor([process], logs=tmp_path / "logs") as supervisor:
        supervisor.hold("worker")
        with app.connection_for_write(redis_server.url) as connection:
            for name in ("first", "second", "third"):
                app.send_task("tests.work", [seconds, name], queue="jobs", connection=connection)
        _await(lambda: told.exists() and "begun first" in told.read_text())
        supervisor.kill("worker", signal.SIGTERM)
        _await(lambda: not supervisor.is_running("worker"))
        waiting = [json.loads(each)["headers"]["argsrepr"] for each in broker.lrange("jobs", 0, -1)]
        assert not broker.hlen("unacked")
    lines = told.read_text().split("\n")
    assert "begun third" not in lines
    assert ("done first" in lines) == is_done
    done = [name for name in ("first", "second", "third") if f"done {name}" in lines]
    assert len(waiting) == 3 - len(done)  # nobody's message is gone, none is there twice


def _await(found) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)

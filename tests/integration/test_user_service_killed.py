"""A worker that is killed while the user service tells it an audience: real processes, killed wherever they are."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from django.db import connection

from delivery.models import Delivery
from schedules.models import MirroredPerson, OccurrenceState, Recipient, Resolution
from tests.factories import NOW
from tests.running import PROJECT
from tests.service import in_threads
from tests.user_service import attempt, let_ask, named

pytestmark = pytest.mark.django_db(transaction=True)

# One attempt, at the instant at which the test stands.
WORKER = """
import sys
from datetime import datetime
import django
django.setup()
from delivery import materialise
from schedules import clock
now = datetime.fromisoformat(sys.argv[2])
clock.now = lambda: now
materialise.attempt(occurrence_id=int(sys.argv[1]), now=now)
"""
PEOPLE, PAGE = 90, 10
PATIENCE_S = 120.0


@contextmanager
def a_worker(occurrence, settings):
    """In a process of its own, on the test's database; killed at the end of the block at the latest."""
    known = connection.settings_dict
    address = f"{known['USER']}:{known['PASSWORD']}@{known['HOST']}:{known['PORT']}/{known['NAME']}"
    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "scheduler_project.settings",
        "DATABASE_URL": f"postgresql://{address}",
        "BROKER_URL": settings.BROKER_URL,
        "COUNTERS_URL": settings.COUNTERS_URL,
        "SECRET_KEY": settings.SECRET_KEY,
        "ERASURE_KEY": settings.ERASURE_KEY,
        "ENCRYPTION_KEYS": ",".join(settings.ENCRYPTION_KEYS),
        "BLIND_INDEX_KEY": settings.BLIND_INDEX_KEY,
        "USER_SERVICE_URL": settings.USER_SERVICE_URL,
        "USER_SERVICE_TOKEN": settings.USER_SERVICE_TOKEN,
        "USER_SERVICE_PAGE": str(settings.USER_SERVICE_PAGE),
        "LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-c", WORKER, str(occurrence.pk), NOW.isoformat()]
    process = subprocess.Popen(command, cwd=PROJECT, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=PATIENCE_S)


def wait_until(found, process):
    deadline = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < deadline, "not within two minutes"
        assert process.poll() is None, "the worker has ended by itself"
        time.sleep(0.01)


def pages_kept():
    return Resolution.objects.values_list("pages", flat=True).first() or 0


def test_killed_again_and_again_it_loses_and_doubles_nobody(opened, user_service, settings):
    settings.USER_SERVICE_PAGE = PAGE
    names = user_service.put_people(PEOPLE)
    occurrence = opened()
    user_service.fault("latency", seconds=0.15)
    kills = (2, 4, 5)
    for enough in kills:
        with a_worker(occurrence, settings) as process:
            wait_until(lambda enough=enough: pages_kept() >= enough, process)
            process.kill()
            process.wait(timeout=PATIENCE_S)
        assert Delivery.objects.count() == 0
        type(occurrence).objects.update(materialise_lease_until=None)
        let_ask()
    kept = pages_kept()
    user_service.running.clear_faults()
    asked = user_service.pages_asked
    deadline = time.monotonic() + PATIENCE_S
    # What the dead one had begun is rolled back as soon as the database notices.
    while (after := attempt(occurrence)).state != OccurrenceState.RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (after.targeted, named(occurrence)) == (PEOPLE, names)
    assert Recipient.objects.count() == MirroredPerson.objects.count() == PEOPLE
    resolution = Resolution.objects.get()
    assert (resolution.pages, resolution.people, resolution.repeated) == (PEOPLE // PAGE, PEOPLE, 0)
    assert user_service.pages_asked - asked <= PEOPLE // PAGE - kept + 1
    assert asked <= kept + len(kills) + 1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_workers_at_once_and_a_service_that_fails_in_every_way(opened, user_service, settings, naps, seed):
    """No lease holds them apart: each begins again whatever the others do."""
    settings.USER_SERVICE_PAGE, settings.USER_SERVICE_TIMEOUT_S = PAGE, 2.0
    names = user_service.put_people(PEOPLE)
    occurrence = opened()
    of_pages = {"match": {"operation": "Page", "to": "*"}, "rate": 0.08}
    kinds = [{"kind": kind} for kind in ("half", "garbage", "short", "reset", "contradict", "repeat")]
    statuses = [{"kind": "status", "status": status} for status in (410, 429, 500, 503)]
    user_service.running.fault(*({**each, **of_pages} for each in (*kinds, *statuses)), seed=seed)
    deadline = time.monotonic() + PATIENCE_S

    def work():
        while attempt(occurrence).state == OccurrenceState.MATERIALISING:
            assert time.monotonic() < deadline, "not within two minutes"

    in_threads(work, work, work)
    after = type(occurrence).objects.get()
    assert (after.state, after.targeted, named(after)) == (OccurrenceState.RUNNING, PEOPLE, names)
    assert Resolution.objects.get().people == PEOPLE
    assert Recipient.objects.count() == PEOPLE

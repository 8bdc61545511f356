"""A worker that is killed while messages are rendered, or between that and the call: real processes."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection

from delivery import sending
from delivery.models import Delivery, InboxMessage, State
from schedules.models import MessageTemplate, Recipient
from schedules.template_service import mirror
from tests.books import assert_books_close
from tests.factories import NOW, ScheduleFactory, people
from tests.running import PROJECT
from tests.service import expire_leases, reasons, states
from tests.template_service import template

pytestmark = pytest.mark.django_db(transaction=True)

# One message's batches, at the instant at which the test stands. With a second argument it dies once all is rendered.
WORKER = """
import os, signal, sys
from datetime import datetime
import django
django.setup()
from delivery import calls, sending
from schedules import clock
now = datetime.fromisoformat(sys.argv[2])
clock.now = lambda: now
if sys.argv[3:]:
    calls._reserve = lambda prepared: os.kill(os.getpid(), signal.SIGKILL)
sending.send(batch_ids=[int(pk) for pk in sys.argv[1].split(",")])
"""
PEOPLE = 150
PATIENCE_S = 120.0


@contextmanager
def a_worker(batch_ids, settings, *more, now=NOW, **env):
    """In a process of its own, on the test's database; killed at the end of the block at the latest."""
    known = connection.settings_dict
    address = f"{known['USER']}:{known['PASSWORD']}@{known['HOST']}:{known['PORT']}/{known['NAME']}"
    env = {
        **os.environ,
        **env,
        "DJANGO_SETTINGS_MODULE": "scheduler_project.settings",
        "DATABASE_URL": f"postgresql://{address}",
        **{name: str(getattr(settings, name)) for name in TOLD},
        "ENCRYPTION_KEYS": ",".join(settings.ENCRYPTION_KEYS),
        "LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-c", WORKER, ",".join(map(str, batch_ids)), now.isoformat(), *more]
    process = subprocess.Popen(command, cwd=PROJECT, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=PATIENCE_S)


TOLD = (
    *("BROKER_URL", "COUNTERS_URL", "SECRET_KEY", "ERASURE_KEY", "BLIND_INDEX_KEY"),
    *("TEMPLATE_SERVICE_URL", "TEMPLATE_SERVICE_TOKEN"),
)


@pytest.fixture
def run(service, template_service):
    """A run of people in a channel, handed out to be sent: the schedule, and the ids of its batches."""

    def open_it(channel):
        people(PEOPLE)
        said = [{"channel": channel, "locale": "en", "subject": "Hello", "text": "{{ recipient.external_id }}"}]
        template_service.put(template("welcome", contents=said))
        mirror.mirror_all(now=NOW)
        schedule = ScheduleFactory(channel=channel, template_id=MessageTemplate.objects.get().pk)
        service.open()
        return schedule, [pk for handout in service.publish() for pk in handout.batch_ids]

    return open_it


def given_back(service, batch_ids):
    """The sweep finds whom the dead one held; the batches are sent again."""
    expire_leases()
    service.sweep()
    service.after(timedelta(minutes=1))
    sending.send(batch_ids=batch_ids)
    assert_books_close()


def test_killed_between_rendering_and_writing_everybody_has_the_message_once(service, run, settings):
    schedule, batch_ids = run("in_app")
    with a_worker(batch_ids, settings, "dies") as process:
        assert process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    assert states(schedule)["sending"] > 0
    assert not InboxMessage.objects.exists()
    given_back(service, batch_ids)
    assert states(schedule) == {"sent": PEOPLE}
    names = dict(Recipient.objects.values_list("pk", "external_id"))
    assert {message.recipient_id: message.body for message in InboxMessage.objects.all()} == names


def test_killed_between_rendering_and_the_call_the_books_say_so_of_these_alone(service, run, settings, provider):
    schedule, batch_ids = run("email")
    credentials = {"EMAIL_PROVIDER": "ses", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with a_worker(batch_ids, settings, "dies", **credentials) as process:
        assert process.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    held = states(schedule)["sending"]
    assert 0 < held <= 100
    given_back(service, batch_ids)
    assert reasons(schedule) == {"unknown: worker_lost": held, "sent: ": PEOPLE - held}
    assert max(provider.reached().values()) == 1
    assert len(provider.reached()) == PEOPLE - held


def test_killed_again_and_again_while_the_service_renders(service, run, settings, template_service):
    schedule, batch_ids = run("in_app")
    template_service.fault("latency", seconds=0.4)
    for _ in range(3):
        asked = template_service.asked()
        with a_worker(batch_ids, settings, now=service.now) as process:
            deadline = time.monotonic() + PATIENCE_S
            while template_service.asked() == asked and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.kill()
            process.wait(timeout=PATIENCE_S)
        assert_books_close()
        expire_leases()
        service.sweep()
        service.after(timedelta(minutes=1))
    template_service.clear_faults()
    given_back(service, batch_ids)
    assert reasons(schedule) == {"sent: ": PEOPLE}
    assert InboxMessage.objects.count() == PEOPLE
    assert not Delivery.objects.exclude(state=State.SENT).exists()

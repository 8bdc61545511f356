"""Everything at once, at random: no two of our own transactions lock each other out, and the books close."""

import random
import time
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from threading import Lock

import pytest
from django.db import OperationalError, connection
from psycopg.errors import DeadlockDetected

from audit.roles import APP
from delivery import dispatch, erasure, materialise, pace, sending
from delivery import sweep as sweeping
from delivery.ledger import rows as terms
from delivery.models import Delivery, State
from delivery.providers.base import Answer, Verdict
from schedules import clock, operations
from schedules.definition import InvalidDefinition
from schedules.models import Occurrence, Recipient, Schedule
from schedules.occurrences import ApplyTo
from tests import roles
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, TemplateFactory, people
from tests.service import MINUTE, in_threads

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 3.0
VERDICTS = [Verdict.SENT] * 4 + [Verdict.TRANSIENT, Verdict.THROTTLED, Verdict.UNKNOWN, Verdict.PERMANENT]


class Mix:
    """What each kind of process does, again and again. ``deadlocks`` are those that the server reported to anyone."""

    def __init__(self, templates):
        self.templates = templates
        self.deadlocks = []

    def looping(self, work, seed):
        def run():
            rng = random.Random(seed)
            end = time.monotonic() + SECONDS
            with self._noting_deadlocks():
                while time.monotonic() < end:
                    work(rng)
                    time.sleep(rng.random() / 100)

        return run

    @contextmanager
    def _noting_deadlocks(self):
        def execute(run, sql, parameters, many, context):
            try:
                return run(sql, parameters, many, context)
            except OperationalError as error:
                if isinstance(error.__cause__, DeadlockDetected):
                    self.deadlocks.append(f"{error} in {sql}")
                raise

        with connection.cursor() as cursor:
            cursor.execute("SET deadlock_timeout = '5ms'")
        with connection.execute_wrapper(execute):
            yield

    def send(self, rng):
        for message in dispatch.take_due(now=clock.now()):
            sending.send(batch_ids=message.batch_ids)
        some = Delivery.objects.filter(state=State.PENDING).values_list("batch_id", flat=True)[:200]
        sending.send(batch_ids=rng.sample(sorted(set(some)), k=min(3, len(set(some)))))

    def sweep(self, rng):
        sweeping.sweep(now=clock.now())

    def materialise(self, rng):
        dispatch.open_due(now=clock.now())
        for pk in dispatch.to_materialise():
            if materialise.lease(pk):
                try:
                    materialise.materialise(occurrence_id=pk, now=clock.now())
                except materialise.Superseded:
                    materialise.give_back(pk)

    def edit(self, rng):
        changes = rng.choice(
            [
                {"template_id": rng.choice(self.templates).pk},
                {"audience_query": rng.choice([{"all": []}, {"field": "tags", "op": "contains", "value": "vip"}])},
                {"name": f"Named {rng.random()}"},
            ]
        )
        pk = rng.choice(Schedule.objects.values_list("pk", flat=True))
        apply_to = rng.choice(list(ApplyTo))
        try:
            operations.update(schedule_id=pk, changes=changes, by=BY, now=clock.now(), apply_to=apply_to)
            operations.pause(schedule_id=pk, by=BY, now=clock.now())
            time.sleep(rng.random() / 50)
            operations.resume(schedule_id=pk, by=BY, now=clock.now())
            if rng.random() < 0.1:
                operations.cancel(schedule_id=pk, by=BY, now=clock.now())
        except (operations.NotAllowed, InvalidDefinition):
            pass

    def erase(self, rng):
        pk = rng.choice(Recipient.objects.values_list("pk", flat=True))
        erasure.forget(recipient_id=pk, by=BY, now=clock.now())


class Answers:
    """The provider's own record: how often it said that it had, or may have, accepted a message."""

    def __init__(self, seed):
        self._rng = random.Random(seed)
        self._lock = Lock()
        self.accepted = Counter()

    def __call__(self, message):
        with self._lock:
            verdict = self._rng.choice(VERDICTS)
            if verdict in (Verdict.SENT, Verdict.UNKNOWN):
                self.accepted[message.key] += 1
        time.sleep(0.0005)
        return Answer(message.key, verdict, "so", retry_after=1.0)


@pytest.fixture(autouse=True)
def _quick_to_see_a_deadlock(django_db_setup, django_db_blocker):
    """The server looks for one after a second unless it is told otherwise, which is a superuser's to allow."""
    with django_db_blocker.unblock(), roles.owner(), connection.cursor() as cursor:
        cursor.execute(f"GRANT SET ON PARAMETER deadlock_timeout TO {APP}")


@pytest.mark.parametrize("seed", range(3))
def test_nobody_is_locked_out_whatever_works_at_once(service, provider, monkeypatch, settings, seed):
    settings.BATCH_SIZE = 20
    monkeypatch.setattr(terms, "LEASE_S", 0.02)  # so that the sweep and the workers want the same rows
    settings.UNKNOWN_S = 0.3
    monkeypatch.setattr(pace, "slow_down", lambda *_, **__: None)  # or there would be nothing but waiting
    begun = time.monotonic()
    monkeypatch.setattr(clock, "now", lambda: NOW + timedelta(minutes=time.monotonic() - begun))
    people(60, tags=["vip"])
    people(80)
    templates = [TemplateFactory() for _ in range(3)]
    for _ in range(3):
        ScheduleFactory(template_id=templates[0].pk)
    ScheduleFactory(template_id=templates[0].pk, cron="* * * * *", max_runs=6)
    answers = provider.answer = Answers(seed)
    mix = Mix(templates)
    works = [mix.send, mix.send, mix.send, mix.sweep, mix.sweep, mix.materialise, mix.materialise, mix.edit, mix.erase]
    in_threads(*[mix.looping(work, seed * 100 + index) for index, work in enumerate(works)])
    assert mix.deadlocks == []
    assert_books_close()
    assert set(answers.accepted.values()) == {1}
    provider.reset()
    drained = Occurrence.objects.open()
    deadline = time.monotonic() + 120
    while drained.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
        service.at(clock.now() + 10 * MINUTE).step()
    assert not drained.exists()
    assert not Delivery.objects.filter(state__lt=State.SENT).exists()

"""People are erased at random moments while a run sends: no call for them starts later than promised."""

import random
import threading
import time

import pytest
from django.db import connections

from delivery import calls, dispatch, erasure, sending
from delivery.models import Delivery, State
from delivery.receipts import LAST_CALL
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.service import only_occurrence, states

pytestmark = pytest.mark.django_db(transaction=True)

MOMENTS = 8
SEED = 20261122


def test_no_call_starts_later_than_promised_after_an_erasure_in_the_middle_of_a_run(
    service, provider, settings, monkeypatch
):
    """Some claims are held up longer than their permit lasts, others not at all; the provider takes its time."""
    chance = random.Random(SEED)
    settings.CALLS_IN_FLIGHT = 2
    # The whole wait of a claim that is held up lies between its claim and its call.
    holds = iter([0.0, 0.3, sending.PERMIT_S + 0.5, 0.0, 1.0])
    compose = calls.compose

    def compose_late(*args, **kwargs):
        time.sleep(next(holds, 0.0))
        return compose(*args, **kwargs)

    monkeypatch.setattr(calls, "compose", compose_late)
    monkeypatch.setattr(provider, "meanwhile", staticmethod(lambda: time.sleep(0.25)))
    persons = people(300)
    schedules = [ScheduleFactory(), ScheduleFactory()]
    service.open()
    ended = threading.Event()

    def send():
        try:
            while handouts := dispatch.take_due(now=NOW):
                for handout in handouts:
                    sending.send(batch_ids=handout.batch_ids)
        finally:
            ended.set()
            connections.close_all()

    sender = threading.Thread(target=send)
    sender.start()
    erased = {}
    for person in chance.sample(persons, MOMENTS):
        ended.wait(chance.uniform(0.0, 0.8))
        erasure.forget(recipient_id=person.pk, by=BY, now=NOW)
        erased[person.pk] = time.monotonic()
    in_the_middle = not ended.is_set()
    sender.join(60)
    assert in_the_middle, "the run was over before the last erasure: the test shows nothing"
    late = [
        call.started_at - erased[message.recipient_id]
        for call in provider.calls
        for message in call.messages
        if message.recipient_id in erased and call.started_at > erased[message.recipient_id]
    ]
    assert max(late, default=0.0) <= LAST_CALL.total_seconds()
    assert_books_close()
    for schedule in schedules:
        outcomes = states(schedule)
        assert outcomes.keys() <= {"sent", "erased"}
        assert outcomes.total() == only_occurrence(schedule).targeted == 300
    unsent = Delivery.objects.filter(recipient_id__in=erased, state=State.ERASED)
    assert unsent.exists(), "everybody had been sent to before: the test shows nothing"
    handed_over = {message.key for message in provider.messages()}
    assert handed_over.isdisjoint(map(str, unsent))

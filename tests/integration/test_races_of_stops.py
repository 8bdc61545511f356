"""Claims and calls meet everything that stops them: pause, cancellation, deletion, stop switches, erasure."""

import time

import pytest
from django.db import connections, transaction

from delivery import calls, erasure, ledger, sending
from delivery.ledger import Tally
from delivery.models import Delivery, InboxMessage, State
from delivery.providers.base import Verdict
from schedules import stops
from schedules.models import Occurrence
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.races import (
    CLAIMING,
    cancel,
    claim_some,
    delete,
    pause,
    sending_of,
    settle,
    sweeping_now,
)
from tests.service import only_occurrence, reasons, states

pytestmark = pytest.mark.django_db(transaction=True)


# --- Claims and everything that stops them ---------------------------------------------------------------------------


def stop_everything(schedule):
    stops.stop_sending(scope="all", by=BY, now=NOW)


def stop_the_channel(schedule):
    stops.stop_sending(scope="channel:email", by=BY, now=NOW)


def stop_the_schedule(schedule):
    stops.stop_sending(scope=f"schedule:{schedule.pk}", by=BY, now=NOW)


def erase_everyone(schedule):
    for pk in Delivery.objects.values_list("recipient_id", flat=True):
        erasure.forget(recipient_id=pk, by=BY, now=NOW)


STOPS = [pause, cancel, delete, stop_everything, stop_the_channel, stop_the_schedule]
hindered = pytest.mark.parametrize("hinder", [*STOPS, erase_everyone], ids=lambda hinder: hinder.__name__)


@hindered
def test_what_is_committed_before_a_worker_claims_reaches_nobody(service, provider, meeting, hinder):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(ledger, "claim")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    hinder(schedule)
    gate.open()
    worker.result()
    assert provider.calls == []
    assert_books_close()


@hindered
def test_a_claim_that_looked_before_finishes_and_is_recorded_as_what_it_was(
    started, service, provider, meeting, settings, hinder
):
    settings.CALLS_IN_FLIGHT = 1  # a claim is one call of fifty
    schedule, batch_ids = started
    worker = meeting.rival(sending_of(batch_ids), halt_at=CLAIMING)
    hinder(schedule)
    meeting.go_on()
    worker.result()
    erased = hinder is erase_everyone
    assert sum(provider.reached().values()) == (0 if erased else 50)
    service.step()
    assert states(schedule)["sent"] == (50 if erased else 100)
    assert states(schedule)["sending"] == 0
    assert set(provider.reached().values()) <= {1}


@pytest.mark.parametrize("hinder", STOPS, ids=lambda hinder: hinder.__name__)
def test_what_is_rendered_until_its_permit_is_over_is_handed_back(service, provider, meeting, monkeypatch, hinder):
    monkeypatch.setattr(sending, "PERMIT_S", 0.2)
    people(3)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(calls, "compose")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    hinder(schedule)
    time.sleep(0.25)
    gate.open()
    worker.result()
    assert provider.calls == []
    assert reasons(schedule) == {"pending: ": 3}
    assert set(Delivery.objects.values_list("attempt", "called_at", "claim_token")) == {(0, None, None)}
    assert_books_close()
    if hinder is pause:
        service.resume(schedule)
        service.step()
        assert set(provider.reached().values()) == {1}
        assert states(schedule) == {"sent": 3}


@pytest.mark.parametrize("hinder", [pause, cancel], ids=lambda hinder: hinder.__name__)
def test_in_app_messages_rendered_until_the_permit_is_over_are_not_written(service, meeting, monkeypatch, hinder):
    monkeypatch.setattr(sending, "PERMIT_S", 0.2)
    people(3)
    schedule = ScheduleFactory(channel="in_app")
    service.open()
    Occurrence.objects.update(begun_at=NOW)  # so that a cancellation need not wait for the first claim
    (message,) = service.publish()
    gate = meeting.gate(calls, "compose")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    hinder(schedule)
    time.sleep(0.25)
    gate.open()
    worker.result()
    assert not InboxMessage.objects.exists()
    assert reasons(schedule) == {"pending: ": 3}


def test_no_call_starts_later_than_the_permit_after_a_pause(service, provider, meeting, monkeypatch, settings):
    """Scaled to a third: rendering takes 0.6 s of 1 s, one line is shared by calls of 0.5 s; 5 s are promised."""
    monkeypatch.setattr(sending, "PERMIT_S", 1.0)
    composing = calls.compose

    def slowly(*arguments, **keywords):
        time.sleep(0.6)
        return composing(*arguments, **keywords)

    monkeypatch.setattr(calls, "compose", slowly)
    provider.meanwhile = staticmethod(lambda: time.sleep(0.5))
    settings.CALLS_IN_FLIGHT = 1
    people(1_000)
    schedule = ScheduleFactory()
    service.open()
    messages = service.publish()
    workers = [meeting.rival(sending_of(message.batch_ids)) for message in messages]
    workers += [meeting.rival(sending_of(message.batch_ids)) for message in messages]  # and each message twice
    while not provider.calls:
        time.sleep(0.01)
    pause(schedule)
    committed = time.monotonic()
    for worker in workers:
        worker.result()
    assert max(call.started_at for call in provider.calls) <= committed + 5 / 3
    assert 0 < states(schedule)["sent"] < 1_000
    assert states(schedule)["sending"] == 0
    assert_books_close()


def test_a_person_erased_during_the_call_keeps_what_the_call_came_to(service, provider):
    persons = people(3)
    schedule = ScheduleFactory()
    service.open()

    def forget():
        erasure.forget(recipient_id=persons[0].pk, by=BY, now=NOW)
        connections.close_all()

    provider.meanwhile = staticmethod(forget)
    service.send()
    assert states(schedule) == {"sent": 3}


def test_an_erasure_waits_for_the_claim_and_leaves_it_the_call_that_starts(started, meeting):
    schedule, batch_ids = started
    gate = meeting.gate(Tally, "flush")
    worker = meeting.rival(lambda: claim_some(batch_ids))
    gate.wait()
    waiting = Delivery.objects.filter(state=State.PENDING).order_by("recipient_id")
    with transaction.atomic():
        free = set(waiting.select_for_update(skip_locked=True).values_list("recipient_id", flat=True))
    claimed = next(pk for pk in waiting.values_list("recipient_id", flat=True) if pk not in free)
    erasing = meeting.rival(lambda: erasure.forget(recipient_id=claimed, by=BY, now=NOW))
    erasing.wait_for_lock()
    assert erasure.forget(recipient_id=min(free), by=BY, now=NOW).pending == 1
    gate.open()
    claim = worker.result()
    assert erasing.result().pending == 0
    assert settle(claim, state=State.SENT) == 50
    assert reasons(schedule) == {"sent: ": 100, "pending: ": 19, "erased: profile_gone": 1}


# --- Retry and cancellation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [cancel, delete], ids=["cancelled", "deleted"])
@pytest.mark.parametrize("verdict", [Verdict.TRANSIENT, Verdict.THROTTLED, Verdict.NOT_STARTED])
def test_who_is_handed_back_after_the_cancellation_ends_cancelled(service, provider, end, verdict):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    provider.answers(verdict)

    def meanwhile():
        end(schedule)
        sweeping_now()  # must not close what is still being sent
        connections.close_all()

    provider.meanwhile = staticmethod(meanwhile)
    service.send()
    assert only_occurrence(schedule).closed_at is None
    assert states(schedule) == {"pending": 3}
    service.sweep()
    assert set(reasons(schedule)) == {f"cancelled: {only_occurrence(schedule).reason}"}
    assert only_occurrence(schedule).closed_at == NOW
    assert len(provider.calls) == 1

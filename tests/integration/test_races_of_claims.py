"""Claims, answers and the sweep meet, on connections of their own, at points chosen here."""

import time
from collections import Counter
from uuid import uuid4

import pytest
from django.db import transaction

from delivery import ledger, sending
from delivery.ledger import Tally
from delivery.ledger import tally as tallying
from delivery.models import Batch, InboxMessage, State
from delivery.providers.ses import SesProvider
from schedules.occurrences import ApplyTo
from tests.books import assert_books_close
from tests.factories import NOW, ScheduleFactory, people
from tests.races import (
    CLAIMING,
    VIPS,
    claim_some,
    leases_expire,
    sending_of,
    settle,
    sweeping_now,
)
from tests.service import HOUR, MINUTE, in_threads, only_occurrence, states

pytestmark = pytest.mark.django_db(transaction=True)


# --- Sending twice ---------------------------------------------------------------------------------------------------


def test_one_message_ten_times_at_once_reaches_each_person_once(service, provider):
    people(600)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    provider.meanwhile = staticmethod(lambda: time.sleep(0.01))
    in_threads(*[sending_of(message.batch_ids)] * 10)
    assert states(schedule) == {"sent": 600}
    assert set(provider.reached().values()) == {1}


def test_one_message_ten_times_at_once_lies_in_each_inbox_once(service):
    people(600)
    schedule = ScheduleFactory(channel="in_app")
    service.open()
    (message,) = service.publish()
    in_threads(*[sending_of(message.batch_ids)] * 10)
    service.send(rounds=2)  # a worker that finds every row locked by another lets go of the batch
    assert states(schedule) == {"sent": 600}
    assert InboxMessage.objects.count() == 600


def test_two_claims_at_once_share_no_one(started, meeting):
    _, batch_ids = started
    gate = meeting.gate(Tally, "flush")
    first = meeting.rival(lambda: claim_some(batch_ids))
    gate.wait()
    (work,) = ledger.take_up(batch_ids, now=NOW)
    with transaction.atomic():
        second = ledger.claim([work], token=uuid4(), limit=50, now=NOW, tally=Tally())[0]
        transaction.set_rollback(True)
    gate.open()
    ids = Counter(person.recipient_id for person in [*first.result().people, *second.people])
    assert (len(ids), set(ids.values())) == (70, {1})


def test_a_claim_that_looked_before_another_committed_takes_none_of_its_people(started, meeting):
    _, batch_ids = started
    late = meeting.rival(lambda: claim_some(batch_ids), halt_at=CLAIMING)
    first = claim_some(batch_ids)
    meeting.go_on()
    assert {person.recipient_id for person in late.result().people}.isdisjoint(
        person.recipient_id for person in first.people
    )
    assert_books_close()


def test_a_batch_let_go_while_another_worker_answers_is_due_when_that_answer_says(started, meeting):
    schedule, batch_ids = started
    claims = [claim_some(batch_ids) for _ in range(2)]
    gate = meeting.gate(Tally, "flush", behind=True)
    answering = meeting.rival(lambda: settle(claims[0], state=State.PENDING, reason="busy", due_at=NOW + MINUTE))
    gate.wait()
    releasing = meeting.rival(lambda: ledger.let_go(batch_ids[0], day=NOW.date()))
    releasing.wait_for_lock()
    gate.open()
    assert answering.result() == 50
    releasing.result()
    assert Batch.objects.get().next_due_at == NOW + MINUTE
    settle(claims[1], state=State.SENT)
    assert states(schedule) == {"sent": 70, "pending": 50}
    assert_books_close()


def test_workers_that_hold_the_same_batches_take_them_in_one_order(service, provider, meeting, monkeypatch, settings):
    monkeypatch.setattr(sending, "PATIENCE_S", 0.0)  # or a deadlock would only be tried again
    settings.CALLS_IN_FLIGHT = 1
    people(5)
    schedules = []
    for due in (NOW, NOW - MINUTE):  # the second one's batch is made later, and sent first
        schedules.append(ScheduleFactory(run_at=due, now=NOW - HOUR))
        service.open()
    (message,) = service.publish()
    claims = [claim_some([batch_id], limit=2) for batch_id in sorted(message.batch_ids)]
    service.pause(schedules[0])
    gate = meeting.gate(tallying, "let_go_locked")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()  # the second batch's answers are counted, and the first batch is about to be let go of
    other = meeting.rival(lambda: settle(*claims, state=State.SENT))
    other.wait_for_lock()
    gate.open()
    worker.result()
    assert other.result() == 4
    assert [states(schedule) for schedule in schedules] == [{"sent": 2, "pending": 3}, {"sent": 5}]
    assert_books_close()


# --- The sweep and slow workers --------------------------------------------------------------------------------------


def test_the_permit_keeps_the_promise_of_five_seconds_and_the_lease_outlives_the_call():
    assert sending.PERMIT_S + 1 < 5
    connect, read = 3, 10
    assert SesProvider.__init__.__kwdefaults__["connect_timeout"] == connect
    assert SesProvider.__init__.__kwdefaults__["read_timeout"] == read
    assert sending.PERMIT_S + connect + read < ledger.LEASE_S
    assert sending.PATIENCE_S < ledger.LEASE_S


@pytest.mark.parametrize("answer", [State.SENT, State.FAILED])
def test_an_answer_that_meets_the_sweep_settles_what_the_sweep_gave_up(started, meeting, answer):
    schedule, batch_ids = started
    claim = claim_some(batch_ids)
    leases_expire()
    gate = meeting.gate(Tally, "flush")
    swept = meeting.rival(sweeping_now)
    gate.wait()
    answering = meeting.rival(lambda: settle(claim, state=answer, reason="so"))
    answering.wait_for_lock()
    gate.open()
    assert (swept.result().lease_expired, answering.result()) == (50, 50)
    assert states(schedule) == Counter(sent=50, pending=20) + Counter({answer.label: 50})
    assert_books_close()


def test_the_sweep_leaves_alone_what_is_just_being_answered(started, meeting):
    schedule, batch_ids = started
    claim = claim_some(batch_ids)
    leases_expire()
    gate = meeting.gate(Tally, "flush")
    answering = meeting.rival(lambda: settle(claim, state=State.SENT))
    gate.wait()
    assert meeting.rival(sweeping_now).result().lease_expired == 0
    gate.open()
    answering.result()
    assert sweeping_now().lease_expired == 0
    assert states(schedule) == {"sent": 100, "pending": 20}
    assert_books_close()


def test_a_claim_that_the_sweep_has_given_up_can_not_be_taken_back(started):
    schedule, batch_ids = started
    claim = claim_some(batch_ids)
    leases_expire()
    sweeping_now()
    tally = Tally()
    assert ledger.take_back(claim.work, token=claim.token, tally=tally) == 0
    tally.flush()
    assert states(schedule) == {"sent": 50, "unknown": 50, "pending": 20}


def test_sweeps_at_once_settle_each_row_once(service, provider, settings):
    settings.BATCH_SIZE = 20
    people(200)
    lost, ended = ScheduleFactory(), ScheduleFactory()
    service.open()
    for message in service.publish():
        for pk in message.batch_ids:
            if Batch.objects.get(pk=pk).occurrence_id == only_occurrence(lost).pk:
                claim_some([pk])
    leases_expire()
    service.cancel(ended)
    swept = in_threads(*[sweeping_now] * 4)
    assert sum(each.lease_expired for each in swept) == 200
    assert sum(each.cancelled for each in swept) == 200
    assert sum(each.requeued for each in swept) == 0
    assert (states(lost), states(ended)) == ({"unknown": 200}, {"cancelled": 200})
    assert only_occurrence(ended).closed_at == NOW


def test_an_occurrence_that_gets_people_again_is_not_closed_by_a_sweep_that_looked_before(service, provider, meeting):
    people(1, tags=["vip"])
    schedule = ScheduleFactory(audience_query=VIPS)
    service.open()
    service.send()
    people(3)
    swept = meeting.rival(sweeping_now, halt_at="WHERE o.closed_at IS NULL AND o.state IN ('running', 'cancelled')")
    service.update(schedule, audience_query={"all": []}, apply_to=ApplyTo.UNSENT)
    service.materialise()
    meeting.go_on()
    assert swept.result().closed == 0
    service.step()
    assert states(schedule) == {"sent": 4}
    assert only_occurrence(schedule).closed_at == NOW

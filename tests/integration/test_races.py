"""Whoever meets whomever: each race that the design names, on connections of their own, at points chosen here."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.db.models import F

from delivery import calls, dispatch, erasure, ledger, materialise, partitions, sending
from delivery import sweep as sweeping
from delivery.ledger import Outcome, Tally
from delivery.ledger import tally as tallying
from delivery.materialise import attempts
from delivery.models import Batch, Delivery, InboxMessage, State
from delivery.providers.base import Verdict
from delivery.providers.ses import SesProvider
from schedules import operations
from schedules.models import Occurrence, OccurrenceState, Recipient
from schedules.occurrences import ApplyTo, Effect
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, TemplateFactory, people
from tests.interleaving import Meeting
from tests.service import HOUR, MINUTE, in_threads, only_occurrence, reasons, states

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = NOW - timedelta(days=1_000)  # leases are real time
VIPS = {"field": "tags", "op": "contains", "value": "vip"}
# Where a claim has its snapshot: after that it no longer learns what others commit.
CLAIMING = "WHERE o.id = ANY(%(occurrences)s::bigint[]) AND o.state = 'running' AND o.ends_at"


@pytest.fixture
def meeting(service, monkeypatch):
    met = Meeting(monkeypatch)
    yield met
    met.close()


@pytest.fixture
def started(service, provider):
    """A schedule of 120 people, 50 of them sent to, the rest published to a worker: (schedule, batch ids)."""
    people(120)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    claim_some(message.batch_ids, settle_as=State.SENT)
    return schedule, message.batch_ids


def claim_some(batch_ids, *, limit=50, settle_as=None, now=NOW):
    (work,) = ledger.take_up(batch_ids, now=now)
    tally = Tally()
    with transaction.atomic():
        claim = ledger.claim([work], token=uuid4(), limit=limit, now=now, tally=tally)[0]
        tally.flush()
    if settle_as is not None:
        settle(claim, state=settle_as)
    return claim


def settle(*claims, state, **fields):
    tally, count = Tally(), 0
    with transaction.atomic():
        for claim in claims:
            outcomes = [Outcome(person.recipient_id, state, **fields) for person in claim.people]
            count += ledger.settle(claim, outcomes, now=NOW, called_at=NOW, tally=tally)
        tally.flush()
    return count


def leases_expire():
    Delivery.objects.exclude(leased_until=None).update(leased_until=LONG_AGO)
    Batch.objects.exclude(lease_until=None).update(lease_until=LONG_AGO)


def tick():
    return dispatch.open_due(now=NOW)


def materialising(schedule):
    return lambda: materialise.materialise(occurrence_id=only_occurrence(schedule).pk, now=NOW)


def sending_of(batch_ids):
    return lambda: sending.send(batch_ids=batch_ids)


def editing_of(schedule, *, now=NOW, expected_version=None, **changes):
    return lambda: operations.update(
        schedule_id=schedule.pk, changes=changes, by=BY, now=now, expected_version=expected_version
    )


def sweeping_now():
    return sweeping.sweep(now=NOW)


# --- Ticks and edits -------------------------------------------------------------------------------------------------


def test_ticks_at_once_open_each_occurrence_once(service):
    schedules = [ScheduleFactory() for _ in range(15)] + [ScheduleFactory(cron="*/5 * * * *") for _ in range(15)]
    service.after(6 * MINUTE)
    opened = in_threads(*[lambda: dispatch.open_due(now=service.now)] * 4)
    ids = [pk for each in opened for pk in each.occurrence_ids]
    assert len(ids) == len(set(ids)) == Occurrence.objects.count() == 30
    for schedule in schedules:
        schedule.refresh_from_db()
        assert schedule.runs == 1


def test_a_tick_does_not_wait_for_another_and_opens_nothing_of_its(service, meeting):
    schedule = ScheduleFactory()
    gate = meeting.gate(dispatch, "_move_on")
    first = meeting.rival(tick)
    gate.wait()
    assert tick().occurrence_ids == []
    gate.open()
    assert first.result().occurrence_ids == [only_occurrence(schedule).pk]
    assert tick().occurrence_ids == []


def test_a_tick_passes_over_a_schedule_that_is_being_edited_and_opens_it_next_time(service, meeting):
    schedule = ScheduleFactory()
    with transaction.atomic():
        service.update(schedule, name="Edited")
        assert meeting.rival(tick).result().occurrence_ids == []
    tick()
    assert only_occurrence(schedule).version == 2


def test_an_edit_waits_for_the_tick_and_sees_the_occurrence_it_opened(service, meeting):
    schedule = ScheduleFactory(cron="*/5 * * * *")
    service.after(5 * MINUTE)
    gate = meeting.gate(dispatch, "_move_on")
    ticking = meeting.rival(lambda: dispatch.open_due(now=service.now))
    gate.wait()
    editing = meeting.rival(editing_of(schedule, now=service.now, cron="*/10 * * * *"))
    editing.wait_for_lock()
    gate.open()
    ticking.result()
    (touched,) = editing.result().touched
    assert (touched.occurrence_id, touched.effect) == (only_occurrence(schedule).pk, Effect.CANCELLED)
    schedule.refresh_from_db()
    assert schedule.next_occurrence_at == NOW + 10 * MINUTE
    for minutes in range(6, 22):
        service.at(NOW + minutes * MINUTE).step()
    fired = Occurrence.objects.exclude(state=OccurrenceState.CANCELLED).order_by("occurrence_at")
    assert list(fired.values_list("occurrence_at", flat=True)) == [NOW + 10 * MINUTE, NOW + 20 * MINUTE]


def test_a_cancellation_waits_for_the_tick_and_ends_what_it_opened(service, provider, meeting):
    people(2)
    schedule = ScheduleFactory()
    gate = meeting.gate(dispatch, "_move_on")
    ticking = meeting.rival(tick)
    gate.wait()
    cancelling = meeting.rival(lambda: cancel(schedule))
    cancelling.wait_for_lock()
    gate.open()
    ticking.result()
    cancelling.result()
    assert only_occurrence(schedule).state == OccurrenceState.CANCELLED
    service.step()
    assert provider.calls == []
    assert only_occurrence(schedule).closed_at == NOW


def test_a_template_exchanged_while_the_tick_looks_is_the_one_that_is_sent(service, provider, meeting):
    people(1)
    schedule = ScheduleFactory()
    other = TemplateFactory(text="the other one")
    ticking = meeting.rival(tick, halt_at='WHERE ("schedules_schedule"."next_run_at" <=')
    service.update(schedule, template_id=other.pk)
    meeting.go_on()
    ticking.result()
    service.step()
    assert [message.text for message in provider.messages()] == ["the other one"]


# --- Materialising ---------------------------------------------------------------------------------------------------


def test_of_many_workers_one_gets_the_lease(service):
    schedule = ScheduleFactory()
    service.tick()
    pk = only_occurrence(schedule).pk
    assert sorted(in_threads(*[lambda: materialise.lease(pk)] * 5)) == [False] * 4 + [True]


def test_materialised_twice_at_once_there_is_one_set_of_rows(service, meeting):
    people(700)
    schedule = ScheduleFactory()
    service.tick()
    gate = meeting.gate(attempts, "_advance")
    first = meeting.rival(materialising(schedule))
    gate.wait()
    with pytest.raises(materialise.UnderWay):
        meeting.rival(materialising(schedule)).result()
    gate.open()
    assert first.result().targeted == 700
    with pytest.raises(materialise.Superseded):
        materialising(schedule)()
    assert states(schedule) == {"pending": 700}
    assert_books_close()


def test_who_materialises_for_longer_than_the_lease_is_not_disturbed(service, meeting):
    people(3)
    schedule = ScheduleFactory()
    service.tick()
    (pk,) = dispatch.to_materialise()
    gate = meeting.gate(attempts, "_advance")
    first = meeting.rival(lambda: materialise.attempt(occurrence_id=pk, now=NOW))
    gate.wait()
    for _ in range(2):
        seconds_pass(attempts.LEASE_S + 1)
        assert dispatch.to_materialise() == [pk]
        assert meeting.rival(lambda: materialise.attempt(occurrence_id=pk, now=NOW)).result() is None
        assert dispatch.to_materialise() == []  # nobody asks again at once
    gate.open()
    assert first.result().targeted == 3
    assert states(schedule) == {"pending": 3}


def seconds_pass(seconds):
    """In real time, for whoever waits to be materialised."""
    step = timedelta(seconds=seconds)
    Occurrence.objects.update(
        materialise_lease_until=F("materialise_lease_until") - step,
        materialise_queued_at=F("materialise_queued_at") - step,
    )


def test_what_a_worker_that_died_was_materialising_is_found_within_half_a_minute(service, meeting):
    people(3)
    schedule = ScheduleFactory()
    service.tick()
    (pk,) = dispatch.to_materialise()
    assert materialise.lease(pk)  # and nothing more is heard of it
    seconds_pass(31)
    service.materialise()
    assert states(schedule) == {"pending": 3}


def test_what_was_being_materialised_when_the_database_went_away_is_done_as_soon_as_it_is_back(service, meeting):
    people(3)
    schedule = ScheduleFactory()
    service.tick()
    (pk,) = dispatch.to_materialise()
    gate = meeting.gate(attempts, "_advance")
    first = meeting.rival(lambda: materialise.attempt(occurrence_id=pk, now=NOW))
    gate.wait()
    first.kill()
    gate.open()
    with pytest.raises(OperationalError):
        first.result()
    service.materialise()
    assert states(schedule) == {"pending": 3}


def test_after_a_crash_in_the_middle_the_second_worker_writes_everything(service, meeting):
    people(700)
    schedule = ScheduleFactory()
    service.tick()
    gate = meeting.gate(attempts, "_advance")
    first = meeting.rival(materialising(schedule))
    gate.wait()
    with pytest.raises(materialise.UnderWay):
        meeting.rival(materialising(schedule)).result()
    first.kill()
    assert materialising(schedule)().targeted == 700
    gate.open()
    with pytest.raises(OperationalError):
        first.result()
    assert states(schedule) == {"pending": 700}
    assert_books_close()


def test_an_edit_in_the_middle_of_materialising_wins(service, meeting):
    people(3, tags=["vip"])
    people(4)
    schedule = ScheduleFactory()
    service.tick()
    gate = meeting.gate(attempts, "_advance")
    first = meeting.rival(materialising(schedule))
    gate.wait()
    service.update(schedule, audience_query=VIPS)
    gate.open()
    with pytest.raises(materialise.Superseded):
        first.result()
    assert not Delivery.objects.exists()
    service.materialise()
    assert states(schedule) == {"pending": 3}


def test_an_edit_waits_for_what_is_materialised_and_has_it_done_again(service, provider, meeting):
    people(3, tags=["vip"])
    people(4)
    schedule = ScheduleFactory()
    service.tick()
    gate = meeting.gate(attempts, "_advance", behind=True)
    first = meeting.rival(materialising(schedule))
    gate.wait()
    editing = meeting.rival(editing_of(schedule, audience_query=VIPS))
    editing.wait_for_lock()
    gate.open()
    assert first.result().targeted == 7
    assert [touched.effect for touched in editing.result().touched] == [Effect.REMATERIALISED]
    service.step()
    assert reasons(schedule) == {"sent: ": 3, "cancelled: edited": 4}


def test_a_cancellation_in_the_middle_of_materialising_leaves_nobody(service, provider, meeting):
    people(3)
    schedule = ScheduleFactory()
    service.tick()
    gate = meeting.gate(attempts, "_advance")
    first = meeting.rival(materialising(schedule))
    gate.wait()
    service.cancel(schedule)
    gate.open()
    with pytest.raises(materialise.Superseded):
        first.result()
    service.step()
    assert (only_occurrence(schedule).targeted, only_occurrence(schedule).closed_at) == (0, NOW)


def test_materialising_again_meets_an_answer_and_counts_it_once(started, service, meeting):
    schedule, batch_ids = started
    claim = claim_some(batch_ids)
    service.update(schedule, audience_query={"field": "locale", "op": "eq", "value": "en"}, apply_to=ApplyTo.UNSENT)
    gate = meeting.gate(Tally, "flush")
    answering = meeting.rival(lambda: settle(claim, state=State.SENT))
    gate.wait()
    materialising(schedule)()
    gate.open()
    assert answering.result() == 50
    assert states(schedule) == {"sent": 100, "pending": 20}
    assert_books_close()


def test_who_was_being_sent_to_while_the_audience_was_edited_is_asked_before_it_is_tried_again(service, provider):
    people(2, tags=["vip"])
    people(3)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    claim = claim_some(message.batch_ids)
    service.update(schedule, audience_query=VIPS, apply_to=ApplyTo.UNSENT)
    service.materialise()
    assert settle(claim, state=State.PENDING, reason="busy", due_at=NOW) == 5
    service.update(schedule, template_id=TemplateFactory(text="the new text").pk, apply_to=ApplyTo.UNSENT)
    service.after(MINUTE).step()
    assert reasons(schedule) == {"sent: ": 2, "cancelled: edited": 3}
    assert {message.text for message in provider.messages()} == {"the new text"}


def test_an_edit_of_the_text_alone_asks_nobody_whether_he_is_still_meant(service, provider):
    people(3, tags=["vip"])
    schedule = ScheduleFactory(audience_query=VIPS)
    service.open()
    (message,) = service.publish()
    claim = claim_some(message.batch_ids, limit=2)
    Recipient.objects.update(tags=[])
    service.update(schedule, template_id=TemplateFactory(text="the new text").pk, apply_to=ApplyTo.UNSENT)
    settle(claim, state=State.PENDING, reason="busy", due_at=NOW)
    sending.send(batch_ids=message.batch_ids)
    assert reasons(schedule) == {"sent: ": 3}


def test_who_is_erased_while_the_audience_is_written_is_targeted_and_not_sent_to(service, provider, meeting):
    persons = people(3)
    schedule = ScheduleFactory()
    service.tick()
    gate = meeting.gate(attempts, "_advance")
    first = meeting.rival(materialising(schedule))
    gate.wait()
    erasure.forget(recipient_id=persons[0].pk, by=BY, now=NOW)
    gate.open()
    assert first.result().targeted == 3
    service.step()
    assert reasons(schedule) == {"erased: profile_gone": 1, "sent: ": 2}
    assert persons[0].pk not in provider.reached()


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


@pytest.fixture
def held_up(service, meeting):
    """A worker whose claim of three in-app messages is committed and of which none is written yet.

    The schedule, its people, the worker and the gate at which it stands.
    """
    persons = people(3, attributes={"points": 1})
    template = TemplateFactory(text="You have {{ points + 1 }} points.")
    Recipient.objects.filter(pk=persons[2].pk).update(attributes={"points": "many"})
    schedule = ScheduleFactory(channel="in_app", template_id=template.pk)
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(ledger, "hold")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    assert states(schedule) == {"sending": 3}
    return schedule, persons, worker, gate


def test_a_worker_that_loses_its_connection_between_claim_and_write_writes_once(held_up):
    schedule, _, worker, gate = held_up
    worker.kill()
    gate.open()
    worker.result()
    assert reasons(schedule) == {"sent: ": 2, "failed: template_error": 1}
    assert InboxMessage.objects.count() == 2


def test_a_claim_whose_worker_is_killed_is_written_by_another_once(service):
    people(3)
    schedule = ScheduleFactory(channel="in_app")
    service.open()
    (message,) = service.publish()
    claim_some(message.batch_ids)
    leases_expire()
    Batch.objects.update(queued_at=LONG_AGO)
    service.sweep()
    assert reasons(schedule) == {"pending: worker_lost": 3}
    assert not InboxMessage.objects.exists()
    service.after(MINUTE).step()
    assert states(schedule) == {"sent": 3}
    assert InboxMessage.objects.count() == 3


def test_a_worker_that_wakes_when_another_has_written_its_messages_writes_none(service, held_up):
    schedule, _, worker, gate = held_up
    leases_expire()
    service.sweep()
    service.after(MINUTE).send()
    assert reasons(schedule) == {"sent: ": 2, "failed: template_error": 1}
    gate.open()
    worker.result()
    assert reasons(schedule) == {"sent: ": 2, "failed: template_error": 1}
    assert InboxMessage.objects.count() == 2
    assert_books_close()


@pytest.mark.parametrize("by_another", [False, True], ids=["given up", "claimed by another"])
def test_a_worker_that_wakes_when_its_people_are_no_longer_its_own_writes_none(service, held_up, by_another):
    schedule, _, worker, gate = held_up
    leases_expire()
    service.sweep()
    if by_another:
        claim_some([Batch.objects.get().pk], now=NOW + MINUTE)
    gate.open()
    worker.result()
    assert not InboxMessage.objects.exists()
    assert states(schedule) == ({"sending": 3} if by_another else {"pending": 3})
    assert_books_close()


@pytest.mark.parametrize("who", [0, 2], ids=["a person with a message", "one whose message can't be rendered"])
def test_who_is_erased_between_claim_and_write_gets_no_message(held_up, who):
    schedule, persons, worker, gate = held_up
    erasure.forget(recipient_id=persons[who].pk, by=BY, now=NOW)
    gate.open()
    worker.result()
    if who == 0:
        assert reasons(schedule) == {"erased: profile_gone": 1, "sent: ": 1, "failed: template_error": 1}
    else:
        assert reasons(schedule) == {"sent: ": 2, "failed: template_error": 1}
    assert not InboxMessage.objects.filter(recipient_id=persons[who].pk).exists()
    assert_books_close()


def test_an_erasure_waits_for_the_message_that_is_being_written_and_takes_it_along(service, meeting):
    persons = people(3)
    schedule = ScheduleFactory(channel="in_app")
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(ledger, "hold", behind=True)
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    erasing = meeting.rival(lambda: erasure.forget(recipient_id=persons[0].pk, by=BY, now=NOW))
    erasing.wait_for_lock()
    gate.open()
    worker.result()
    erasing.result()
    assert states(schedule) == {"sent": 3}
    assert set(InboxMessage.objects.values_list("recipient_id", flat=True)) == {persons[1].pk, persons[2].pk}


@pytest.mark.parametrize("end", ["cancel", "pause"])
def test_what_is_claimed_when_the_schedule_is_stopped_is_written_within_its_permit(held_up, end):
    schedule, _, worker, gate = held_up
    {"cancel": cancel, "pause": pause}[end](schedule)
    gate.open()
    worker.result()
    assert reasons(schedule) == {"sent: ": 2, "failed: template_error": 1}
    assert InboxMessage.objects.count() == 2


# --- Claims and everything that stops them ---------------------------------------------------------------------------


def cancel(schedule):
    operations.cancel(schedule_id=schedule.pk, by=BY, now=NOW)


def pause(schedule):
    operations.pause(schedule_id=schedule.pk, by=BY, now=NOW)


def delete(schedule):
    operations.delete(schedule_id=schedule.pk, by=BY, now=NOW)


def stop_everything(schedule):
    operations.stop_sending(scope="all", by=BY, now=NOW)


def stop_the_channel(schedule):
    operations.stop_sending(scope="channel:email", by=BY, now=NOW)


def stop_the_schedule(schedule):
    operations.stop_sending(scope=f"schedule:{schedule.pk}", by=BY, now=NOW)


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
    """Scaled to a tenth: rendering takes 0.2 s of 0.3 s, and one line is shared by calls of 0.15 s."""
    monkeypatch.setattr(sending, "PERMIT_S", 0.3)
    composing = calls.compose

    def slowly(*arguments, **keywords):
        time.sleep(0.2)
        return composing(*arguments, **keywords)

    monkeypatch.setattr(calls, "compose", slowly)
    provider.meanwhile = staticmethod(lambda: time.sleep(0.15))
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
    assert max(call.started_at for call in provider.calls) <= committed + 0.3 + 0.1
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


# --- Dropping a partition --------------------------------------------------------------------------------------------

OLD = datetime(2026, 8, 3, 12, tzinfo=UTC)


@pytest.fixture
def old(service, provider):
    """A schedule whose only occurrence lies on a day past its retention."""
    partitions.ensure(first=OLD.date(), last=OLD.date())
    people(3)
    schedule = ScheduleFactory(run_at=OLD, now=OLD - MINUTE)
    service.at(OLD).open()
    yield schedule
    Occurrence.objects.all().delete()
    with connection.cursor() as cursor:
        for table in partitions.TABLES:
            cursor.execute(f"DROP TABLE IF EXISTS {table}_{OLD:%Y%m%d}")


def drop_old():
    return partitions.drop(before=(OLD + timedelta(days=1)).date())


def test_a_day_with_people_who_wait_is_not_dropped(service, old):
    service.pause(old)
    with pytest.raises(partitions.PartitionInUse):
        drop_old()
    assert states(old) == {"pending": 3}


@pytest.mark.parametrize("answer", [Verdict.SENT, Verdict.TRANSIENT, Verdict.UNKNOWN])
def test_a_day_with_a_call_under_way_is_not_dropped(service, provider, old, answer):
    refused = []

    def meanwhile():
        try:
            drop_old()
        except partitions.PartitionInUse:
            refused.append(True)
        connections.close_all()

    provider.meanwhile = staticmethod(meanwhile)
    provider.answers(answer)
    service.send()
    assert refused == [True]
    assert sum(states(old).values()) == 3


def test_a_day_is_dropped_once_its_books_are_closed(service, old):
    service.send()
    with pytest.raises(partitions.PartitionInUse):
        drop_old()
    service.sweep()
    assert drop_old() == [f"{table}_{OLD:%Y%m%d}" for table in sorted(partitions.TABLES)]
    assert not Delivery.objects.exists()


# --- Edits and the first claim ---------------------------------------------------------------------------------------


def test_a_first_claim_waits_for_the_edit_and_sends_its_words(service, provider, meeting):
    people(3)
    template, other = TemplateFactory(text="old"), TemplateFactory(text="new")
    schedule = ScheduleFactory(template_id=template.pk)
    service.open()
    (message,) = service.publish()
    with transaction.atomic():
        edit = service.update(schedule, template_id=other.pk)
        worker = meeting.rival(sending_of(message.batch_ids))
        worker.wait_for_lock()
    worker.result()
    assert [touched.effect for touched in edit.touched] == [Effect.REPINNED]
    assert {message.text for message in provider.messages()} == {"new"}
    assert set(Delivery.objects.values_list("version", flat=True)) == {2}


def test_a_first_claim_waits_for_an_edit_of_the_audience_and_claims_nobody(service, provider, meeting):
    people(3, tags=["vip"])
    people(4)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    with transaction.atomic():
        service.update(schedule, audience_query=VIPS)
        worker = meeting.rival(sending_of(message.batch_ids))
        worker.wait_for_lock()
    worker.result()
    assert provider.calls == []
    assert only_occurrence(schedule).begun_at is None
    service.step()
    assert reasons(schedule) == {"sent: ": 3, "cancelled: edited": 4}


def test_an_edit_waits_for_the_first_claim_and_sees_that_it_has_begun(service, provider, meeting):
    people(3)
    template, other = TemplateFactory(text="old"), TemplateFactory(text="new")
    schedule = ScheduleFactory(template_id=template.pk)
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(Tally, "flush")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    editing = meeting.rival(editing_of(schedule, template_id=other.pk))
    editing.wait_for_lock()
    gate.open()
    worker.result()
    assert [touched.effect for touched in editing.result().touched] == [Effect.UNTOUCHED]
    assert {message.text for message in provider.messages()} == {"old"}


def test_a_cancellation_waits_for_the_first_claim_whose_call_ends(service, provider, meeting):
    people(60)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(Tally, "flush")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    cancelling = meeting.rival(lambda: cancel(schedule))
    cancelling.wait_for_lock()
    gate.open()
    worker.result()
    cancelling.result()
    service.step()
    assert states(schedule)["sent"] + states(schedule)["cancelled"] == 60
    assert states(schedule)["sent"] >= 50
    assert only_occurrence(schedule).closed_at == NOW


def test_two_edits_at_once_follow_one_another(service, meeting):
    schedule = ScheduleFactory()
    with transaction.atomic():
        service.update(schedule, name="First", expected_version=1)
        second = meeting.rival(editing_of(schedule, name="Second", expected_version=1))
        second.wait_for_lock()
    with pytest.raises(operations.VersionConflict):
        second.result()
    schedule.refresh_from_db()
    assert (schedule.name, schedule.version) == ("First", 2)


def test_a_wave_put_off_while_a_worker_waits_for_it_is_sent_at_its_new_time(service, provider, meeting):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    gate = meeting.gate(ledger, "claim")
    worker = meeting.rival(sending_of(message.batch_ids))
    gate.wait()
    service.update(schedule, run_at=NOW + HOUR)
    gate.open()
    worker.result()
    service.run_to(NOW + HOUR - MINUTE)
    assert provider.calls == []
    service.run_to(NOW + HOUR)
    assert set(provider.reached().values()) == {1}
    assert states(schedule) == {"sent": 3}

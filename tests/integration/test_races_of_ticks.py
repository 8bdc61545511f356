"""Ticks, edits and those who materialise meet, on connections of their own, at points chosen here."""

from datetime import timedelta

import pytest
from django.db import OperationalError, transaction
from django.db.models import F

from delivery import dispatch, erasure, materialise, sending
from delivery.ledger import Tally
from delivery.materialise import attempts
from delivery.models import Delivery, State
from schedules.models import Occurrence, OccurrenceState, Recipient
from schedules.occurrences import ApplyTo, Effect
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, TemplateFactory, people
from tests.races import VIPS, cancel, claim_some, editing_of, materialising, settle, tick
from tests.service import MINUTE, in_threads, only_occurrence, reasons, states

pytestmark = pytest.mark.django_db(transaction=True)


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


def half_materialised(meeting, schedule, *, by=None):
    """A worker that has written the people and not yet its end: the gate at which it stands, and the worker."""
    gate = meeting.gate(attempts, "_advance")
    first = meeting.rival(by or materialising(schedule))
    gate.wait()
    return gate, first


def test_of_many_workers_one_gets_the_lease(service):
    schedule = ScheduleFactory()
    service.tick()
    pk = only_occurrence(schedule).pk
    assert sorted(in_threads(*[lambda: materialise.lease(pk)] * 5)) == [False] * 4 + [True]


def test_materialised_twice_at_once_there_is_one_set_of_rows(service, meeting):
    people(700)
    schedule = ScheduleFactory()
    service.tick()
    gate, first = half_materialised(meeting, schedule)
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
    gate, first = half_materialised(meeting, schedule, by=lambda: materialise.attempt(occurrence_id=pk, now=NOW))
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
    gate, first = half_materialised(meeting, schedule, by=lambda: materialise.attempt(occurrence_id=pk, now=NOW))
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
    gate, first = half_materialised(meeting, schedule)
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
    gate, first = half_materialised(meeting, schedule)
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
    gate, first = half_materialised(meeting, schedule)
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
    gate, first = half_materialised(meeting, schedule)
    erasure.forget(recipient_id=persons[0].pk, by=BY, now=NOW)
    gate.open()
    assert first.result().targeted == 3
    service.step()
    assert reasons(schedule) == {"erased: profile_gone": 1, "sent: ": 2}
    assert persons[0].pk not in provider.reached()

"""Trying again what has failed: the one way back from an outcome, asked for by a person."""

from datetime import timedelta

import pytest

from audit.models import Action, AuditEvent
from delivery import erasure, reopening
from delivery import sweep as sweeping
from delivery.models import Delivery, FailedAttempt
from delivery.providers.base import Answer, Verdict
from delivery.reopening import NotReopened, Reopened
from schedules import operations
from schedules.models import Occurrence, OccurrenceState, Schedule, ScheduleStatus
from tests.books import assert_books_close
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, people
from tests.interleaving import Meeting
from tests.recording import sent
from tests.service import DAY, HOUR, MINUTE, in_threads, only_occurrence, reasons, row_of, states

pytestmark = pytest.mark.django_db


@pytest.fixture
def persons():
    """Ten people who can be sent to."""
    return people(10)


@pytest.fixture
def failed(service, provider, persons):
    """A one-off that has ended: four sent, three refused, three rejected, one opted out, one without an address."""
    RecipientFactory(consent={"email": False})
    RecipientFactory(email="")
    said = {person.pk: "refused" for person in persons[4:7]} | {person.pk: "rejected" for person in persons[7:]}

    def answer(message):
        reason = said.get(message.recipient_id)
        return Answer(message.key, Verdict.PERMANENT, reason) if reason else sent(message)

    provider.answer = staticmethod(answer)
    schedule = ScheduleFactory()
    service.step()
    assert reasons(schedule) == OUTCOMES
    assert Schedule.objects.get().status == ScheduleStatus.FINISHED
    provider.reset()
    service.after(2 * HOUR)
    return schedule


OUTCOMES = {
    "sent: ": 4,
    "failed: refused": 3,
    "failed: rejected": 3,
    "suppressed: opted_out": 1,
    "unaddressable: no_address": 1,
}


def retry(service, schedule, **which):
    occurrence = schedule.occurrences.latest("occurrence_at")
    done = reopening.retry_failed(occurrence_id=occurrence.pk, by=BY, now=service.now, **which)
    assert_books_close()
    return done


def untouched(schedule):
    """Whether everything is as it was when the occurrence had ended."""
    occurrence = schedule.occurrences.get()
    events = AuditEvent.objects.filter(action=Action.DELIVERY_RETRY)
    return reasons(schedule) == OUTCOMES and occurrence.closed_at == NOW and not events.exists()


# --- Whom ------------------------------------------------------------------------------------------------------------


def test_all_who_have_failed_are_sent_to_again_and_nobody_else(service, provider, failed, persons):
    assert retry(service, failed) == Reopened(people=6)
    assert reasons(failed) == {**{k: v for k, v in OUTCOMES.items() if "failed" not in k}, "pending: ": 6}
    service.step()
    assert states(failed) == {"sent": 10, "suppressed": 1, "unaddressable": 1}
    assert provider.reached() == {person.pk: 1 for person in persons[4:]}
    assert row_of(failed, persons[0]).settled_at == NOW
    assert row_of(failed, persons[9]).settled_at == service.now


def test_those_of_one_reason_are(service, provider, failed, persons):
    assert retry(service, failed, reason="rejected").people == 3
    service.step()
    assert reasons(failed) == {
        "sent: ": 7,
        "failed: refused": 3,
        "suppressed: opted_out": 1,
        "unaddressable: no_address": 1,
    }
    assert set(provider.reached()) == {person.pk for person in persons[7:]}


def test_some_people_are_and_whoever_of_them_has_not_failed_stays_as_he_is(service, provider, failed, persons):
    asked = [persons[0].pk, persons[4].pk, persons[8].pk, 999_999_999]
    assert retry(service, failed, recipient_ids=asked).people == 2
    service.step()
    assert provider.reached() == {persons[4].pk: 1, persons[8].pk: 1}


def test_people_and_reason_together_mean_both(service, failed, persons):
    assert retry(service, failed, recipient_ids=[persons[4].pk, persons[8].pk], reason="refused").people == 1


@pytest.mark.parametrize("which", [{"recipient_ids": []}, {"reason": "no such"}, {"recipient_ids": [1]}], ids=str)
def test_where_nobody_is_meant_nothing_happens(service, failed, which):
    assert retry(service, failed, **which).people == 0
    assert untouched(failed)
    assert Schedule.objects.get().status == ScheduleStatus.FINISHED


# --- How it goes on --------------------------------------------------------------------------------------------------


def test_a_finished_one_off_runs_again_and_ends_again(service, failed):
    retry(service, failed)
    occurrence = only_occurrence(failed)
    assert (occurrence.state, occurrence.closed_at) == (OccurrenceState.RUNNING, None)
    assert Schedule.objects.get().status == ScheduleStatus.ACTIVE
    service.sweep()
    assert only_occurrence(failed).closed_at is None
    service.after(MINUTE).step()
    occurrence = only_occurrence(failed)
    assert (occurrence.state, occurrence.closed_at) == (OccurrenceState.FINISHED, service.now)
    assert Schedule.objects.get().status == ScheduleStatus.FINISHED
    assert Occurrence.objects.count() == 1


def test_they_are_due_at_once_with_four_attempts_and_what_failed_before_is_kept(service, provider, failed, persons):
    before = FailedAttempt.objects.count()
    retry(service, failed)
    row = row_of(failed, persons[9])
    assert (row.due_at, row.attempt, row.settled_at, row.detail) == (service.now, 0, None, "")
    provider.answers(Verdict.TRANSIENT, "busy")
    for attempt in (1, 2, 3, 4):
        service.step()
        assert row_of(failed, persons[9]).attempt == attempt
        service.after(HOUR)
    assert reasons(failed)["failed: busy"] == 6
    assert set(provider.reached().values()) == {4}
    assert FailedAttempt.objects.count() == before + 24


def test_what_fails_again_can_be_tried_again(service, provider, failed):
    provider.answers(Verdict.PERMANENT, "again")
    for _ in range(2):
        assert retry(service, failed).people == 6
        service.step()
        assert reasons(failed)["failed: again"] == 6
        service.after(MINUTE)


def test_the_wave_does_not_expire_however_long_ago_it_was(service, provider, failed):
    retry(service.after(5 * DAY), failed)
    service.step()
    assert states(failed)["sent"] == 10


def test_while_the_schedule_is_paused_they_wait(service, provider, failed):
    retry(service, failed)
    service.pause(failed)
    service.step()
    assert states(failed)["pending"] == 6
    service.resume(failed)
    service.step()
    assert states(failed)["sent"] == 10


def test_a_cron_goes_on_beside_it(service, provider):
    people(3)
    schedule = ScheduleFactory(cron="0 * * * *")
    provider.answers(Verdict.PERMANENT, "rejected")
    service.run_to(NOW + HOUR)
    provider.reset()
    service.after(MINUTE)
    assert retry(service, schedule).people == 3
    assert Schedule.objects.get().status == ScheduleStatus.ACTIVE
    service.run_to(NOW + 2 * HOUR)
    assert states(schedule) == {"sent": 6}
    assert set(schedule.occurrences.values_list("state", flat=True)) == {OccurrenceState.FINISHED}


def test_one_that_is_still_running_takes_them_up_beside_the_others(service, provider, settings):
    settings.BATCH_SIZE = settings.PUBLISH_WINDOW_ROWS = 10
    people(30)
    schedule = ScheduleFactory()
    service.open()
    provider.answers(Verdict.PERMANENT, "rejected")
    service.send()
    assert states(schedule) == {"failed": 10, "pending": 20}
    provider.reset()
    retry(service, schedule)
    service.send(rounds=6)
    assert states(schedule) == {"sent": 30}


def test_what_may_have_arrived_is_sent_again_on_request(service, provider):
    people(3)
    schedule = ScheduleFactory()
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    service.step()
    assert retry(service, schedule).people == 0  # it is not known yet
    Delivery.objects.update(leased_until=NOW - 1_000 * DAY)
    service.sweep()
    assert reasons(schedule) == {"failed: outcome_unknown": 3}
    provider.reset()
    assert retry(service, schedule, reason="outcome_unknown").people == 3
    service.step()
    assert states(schedule) == {"sent": 3}
    assert set(provider.reached().values()) == {1}


def test_what_may_have_arrived_keeps_its_place_under_a_cap_while_it_waits_to_be_sent_again(service, provider):
    people(1)
    schedule = ScheduleFactory(max_per_user_per_day=1)
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    service.step()
    Delivery.objects.update(leased_until=NOW - 1_000 * DAY)
    service.sweep()
    provider.reset()
    assert retry(service, schedule).people == 1
    service.pause(schedule)
    service.after(MINUTE)
    other = ScheduleFactory(max_per_user_per_day=1, run_at=service.now, now=service.now - MINUTE)
    service.step()
    assert (states(schedule), reasons(other)) == ({"pending": 1}, {"rate_limited: daily_cap": 1})
    service.resume(schedule)
    service.step()
    assert states(schedule) == {"sent": 1}


def test_who_was_erased_since_is_not_sent_to(service, provider, failed, persons):
    erasure.forget(recipient_id=persons[9].pk, by=BY, now=service.now)
    assert retry(service, failed).people == 6
    service.step()
    assert reasons(failed)["erased: profile_gone"] == 1
    assert persons[9].pk not in provider.reached()


def test_it_stands_in_the_audit_with_who_asked_for_it(service, failed):
    retry(service, failed, reason="rejected")
    event = AuditEvent.objects.get(action=Action.DELIVERY_RETRY)
    assert (event.actor_id, event.schedule_id, event.created_at) == (BY, failed.pk, service.now)
    assert event.payload_diff == {"occurrence": only_occurrence(failed).pk, "reason": "rejected", "people": 3}


# --- Refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [operations.cancel, operations.delete], ids=["cancelled", "deleted"])
def test_of_a_schedule_that_was_ended_nothing_is_tried_again(service, provider, settings, end):
    settings.BATCH_SIZE = settings.PUBLISH_WINDOW_ROWS = 10
    people(20)
    schedule = ScheduleFactory()
    service.open()
    provider.answers(Verdict.PERMANENT, "rejected")
    service.send()
    end(schedule_id=schedule.pk, by=BY, now=NOW)
    service.sweep()
    before = reasons(schedule)
    with pytest.raises(NotReopened, match="duplicate it to send again"):
        retry(service, schedule)
    assert reasons(schedule) == before
    assert only_occurrence(schedule).state == OccurrenceState.CANCELLED


def test_nor_of_an_occurrence_that_was_called_off_while_the_schedule_goes_on(service, provider, settings):
    people(3)
    schedule = ScheduleFactory(cron="0 * * * *")
    service.run_to(NOW + HOUR)
    schedule.occurrences.update(state=OccurrenceState.CANCELLED)
    with pytest.raises(NotReopened, match="The occurrence is cancelled"):
        retry(service, schedule)


def test_after_seven_days_it_is_too_late(service, failed):
    ends_at = only_occurrence(failed).ends_at
    service.at(ends_at)
    with pytest.raises(NotReopened, match="end of its seven days"):
        retry(service, failed)
    assert untouched(failed)
    assert retry(service.at(ends_at - timedelta(seconds=1)), failed).people == 6


def test_nor_when_its_day_has_been_dropped(service, failed):
    Occurrence.objects.update(outcomes={"failed": 6})
    with pytest.raises(NotReopened):
        reopening.retry_failed(occurrence_id=only_occurrence(failed).pk, by=BY, now=service.now)
    Occurrence.objects.update(outcomes=None)


def test_an_occurrence_that_there_is_not_is_named_so(service):
    with pytest.raises(Occurrence.DoesNotExist):
        reopening.retry_failed(occurrence_id=999_999_999, by=BY, now=NOW)


# --- At once ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_asked_for_twice_at_once_each_is_sent_to_once(service, provider, failed, persons):
    pk = only_occurrence(failed).pk
    done = in_threads(*[lambda: reopening.retry_failed(occurrence_id=pk, by=BY, now=service.now)] * 4)
    assert sorted(each.people for each in done) == [0, 0, 0, 6]
    assert AuditEvent.objects.filter(action=Action.DELIVERY_RETRY).count() == 1
    service.step()
    assert provider.reached() == {person.pk: 1 for person in persons[4:]}


@pytest.mark.django_db(transaction=True)
def test_a_sweep_that_looked_before_does_not_close_it(service, provider, persons, monkeypatch):
    provider.answers(Verdict.PERMANENT, "rejected")
    schedule = ScheduleFactory()
    service.open()
    service.send()
    meeting = Meeting(monkeypatch)
    halted = "WHERE o.closed_at IS NULL AND o.state IN ('running', 'cancelled')"
    try:
        swept = meeting.rival(lambda: sweeping.sweep(now=NOW), halt_at=halted)
        assert retry(service, schedule).people == 10
        meeting.go_on()
        assert swept.result().closed == 0
    finally:
        meeting.close()
    provider.reset()
    service.step()
    assert states(schedule) == {"sent": 10}
    assert only_occurrence(schedule).closed_at == NOW

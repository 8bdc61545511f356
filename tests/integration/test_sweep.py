"""The sweep: what nobody holds any more gets its outcome, and nothing else does."""

from datetime import timedelta
from uuid import uuid4

import pytest

from delivery import counts, ledger
from delivery.ledger import Outcome, Settlement, Tally
from delivery.models import Batch, Delivery, InboxMessage, State
from delivery.providers.base import Verdict
from schedules import operations
from schedules.models import Occurrence, OccurrenceState, Schedule, ScheduleStatus
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.service import DAY, HOUR, MINUTE, only_occurrence, reasons, states

pytestmark = pytest.mark.django_db

LONG_AGO = NOW - 1_000 * DAY  # leases are real time


def claim_of(service):
    """A claim of everyone in the only batch, whose worker goes silent."""
    (message,) = service.publish()
    (work,) = ledger.take_up(message.batch_ids, now=service.now)
    tally = Tally()
    claim = ledger.claim([work], token=uuid4(), limit=50, now=service.now, tally=tally)[0]
    tally.flush()
    assert_books_close()
    return claim


def settle(claim, state, *, now, **fields):
    tally = Tally()
    outcomes = [Outcome(person.recipient_id, state, verdict="sent", **fields) for person in claim.people]
    count = ledger.settle([Settlement(claim, outcomes, now)], now=now, tally=tally)
    tally.flush()
    assert_books_close()
    return count


def leases_expire():
    Delivery.objects.exclude(leased_until=None).update(leased_until=LONG_AGO)
    Batch.objects.exclude(lease_until=None).update(lease_until=LONG_AGO)


# --- Leases ----------------------------------------------------------------------------------------------------------


def test_who_is_being_sent_to_keeps_the_lease_for_half_a_minute_of_real_time(service):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    claim_of(service)
    assert service.after(5 * HOUR).sweep().lease_expired == 0
    assert states(schedule) == {"sending": 3}


def test_a_call_whose_worker_is_lost_becomes_unknown_and_is_not_repeated(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    claim_of(service)
    leases_expire()
    assert service.sweep().lease_expired == 3
    assert reasons(schedule) == {"unknown: worker_lost": 3}
    service.after(MINUTE).step()
    assert provider.calls == []


def test_a_late_word_that_nobody_answered_is_no_news(service, provider):
    """The sweep has found that the worker was lost; that its call ended without an answer is counted no second time."""
    people(3)
    schedule = ScheduleFactory()
    service.open()
    claim = claim_of(service)
    leases_expire()
    service.sweep()
    before = counts.read()
    for _ in range(2):
        assert settle(claim, State.UNKNOWN, now=service.now, reason="no_answer", was_asked=True) == 0
    assert reasons(schedule) == {"unknown: worker_lost": 3}
    assert counts.read() == before


def test_of_a_batch_only_the_calls_whose_lease_is_over_become_unknown(service, provider):
    people(60)
    schedule = ScheduleFactory()
    service.open()
    claim_of(service)
    leases_expire()
    Batch.objects.update(queued_at=None)
    claim_of(service)  # the other ten, whose lease stands
    Batch.objects.update(lease_until=LONG_AGO)
    assert service.sweep().lease_expired == 50
    assert states(schedule) == {"unknown": 50, "sending": 10}


@pytest.mark.parametrize("channel", ["in_app", "email"], ids=["in_app", "outbox"])
def test_where_a_repeat_does_no_harm_a_lost_call_is_made_again_but_not_for_ever(service, channel):
    people(3)
    schedule = ScheduleFactory(channel=channel)
    service.open()
    for attempt in (1, 2, 3, 4):
        service.after(MINUTE)
        claim_of(service)
        leases_expire()
        assert service.sweep().lease_expired == 3
        assert set(Delivery.objects.values_list("attempt", flat=True)) == {attempt}
        Batch.objects.update(queued_at=None)
        if attempt < 4:
            assert reasons(schedule) == {"pending: worker_lost": 3}
    # Whether the outbox has it nobody knows; in-app messages are written with their outcome, hence were not.
    assert reasons(schedule) == {("failed" if channel == "in_app" else "unknown") + ": worker_lost": 3}
    assert service.publish() == []


def test_a_lost_call_that_is_made_again_is_sent(service):
    people(3)
    schedule = ScheduleFactory(channel="in_app")
    service.open()
    claim_of(service)
    leases_expire()
    Batch.objects.update(queued_at=None)
    service.after(MINUTE).sweep()
    due = list(Delivery.objects.order_by("due_at").values_list("due_at", flat=True))
    assert service.now <= due[0] < due[1] < due[2] <= service.now + timedelta(seconds=10)  # not as one crowd
    service.at(due[2]).send()
    assert states(schedule) == {"sent": 3}
    assert InboxMessage.objects.count() == 3


def test_who_was_lost_in_a_cancelled_occurrence_is_not_tried_again(service):
    people(3)
    schedule = ScheduleFactory(channel="in_app")
    service.open()
    claim_of(service)
    service.cancel(schedule)
    leases_expire()
    service.sweep()
    assert reasons(schedule) == {"cancelled: cancelled": 3}


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        ({"state": State.SENT}, "sent: "),
        ({"state": State.FAILED, "reason": "rejected"}, "failed: rejected"),
        ({"state": State.PENDING, "reason": "busy", "due_at": NOW + HOUR}, "pending: busy"),
    ],
    ids=["sent", "failed", "transient"],
)
def test_an_unknown_is_settled_by_the_answer_that_comes_late(service, provider, late, expected):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    claim = claim_of(service)
    leases_expire()
    service.sweep()
    assert settle(claim, now=NOW + MINUTE, **late) == 3
    assert reasons(schedule) == {expected: 3}


def test_an_answer_that_comes_after_the_unknown_has_failed_changes_nothing(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    claim = claim_of(service)
    for _ in range(2):
        leases_expire()
        service.sweep()
    assert settle(claim, State.SENT, now=NOW + HOUR) == 0
    assert reasons(schedule) == {"failed: outcome_unknown": 3}


def test_a_slow_worker_settles_only_those_who_are_still_its_own(service):
    persons = people(3)
    schedule = ScheduleFactory()
    service.open()
    claim = claim_of(service)
    gone = Delivery.objects.filter(recipient_id=persons[0].pk)
    gone.update(state=State.FAILED, reason="resolved", claim_token=None, settled_at=NOW)
    Batch.objects.update(sending=2, failed=1)
    assert settle(claim, State.SENT, now=NOW) == 2
    assert reasons(schedule) == {"failed: resolved": 1, "sent: ": 2}


def test_an_unknown_answer_is_unknown_for_a_quarter_of_an_hour_of_real_time_and_then_failed(service, provider):
    people(3)
    schedule = ScheduleFactory()
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    service.step()
    assert service.after(3 * DAY).sweep().unknown_failed == 0
    assert reasons(schedule) == {"unknown: read_timeout": 3}
    leases_expire()
    assert service.sweep().unknown_failed == 3
    assert reasons(schedule) == {"failed: outcome_unknown": 3}
    assert only_occurrence(schedule).state == OccurrenceState.FINISHED


# --- Messages --------------------------------------------------------------------------------------------------------


def test_a_batch_whose_message_was_lost_is_handed_out_again_after_three_quarters_of_a_minute(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    assert service.publish()
    assert service.sweep().requeued == 0
    Batch.objects.update(queued_at=LONG_AGO)
    assert service.sweep().requeued == 1
    service.send()
    assert states(schedule) == {"sent": 3}


# --- Ended occurrences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "reason"), [(operations.cancel, "cancelled"), (operations.delete, "deleted")], ids=["cancel", "delete"]
)
def test_who_waits_in_a_cancelled_occurrence_is_cancelled(service, provider, end, reason):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    end(schedule_id=schedule.pk, by=BY, now=NOW)
    assert service.sweep().cancelled == 3
    assert reasons(schedule) == {f"cancelled: {reason}": 3}
    occurrence = only_occurrence(schedule)
    assert (occurrence.state, occurrence.closed_at) == (OccurrenceState.CANCELLED, NOW)


def test_what_was_sent_before_the_cancellation_stays_sent(service, provider, settings):
    settings.BATCH_SIZE = settings.PUBLISH_WINDOW_ROWS = 40
    people(120)
    schedule = ScheduleFactory()
    service.open()
    service.send()
    gone_out = states(schedule)["sent"]
    service.cancel(schedule)
    service.sweep()
    assert reasons(schedule) == {"sent: ": gone_out, "cancelled: cancelled": 120 - gone_out}


def test_who_would_be_tried_again_is_cancelled_where_the_schedule_is(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    claim = claim_of(service)
    service.cancel(schedule)
    service.sweep()
    assert states(schedule) == {"sending": 3}
    assert only_occurrence(schedule).closed_at is None
    settle(claim, State.PENDING, now=NOW, reason="busy", due_at=NOW + MINUTE)
    service.at(NOW + MINUTE).step()
    assert reasons(schedule) == {"cancelled: cancelled": 3}
    assert provider.calls == []


def test_a_cancelled_occurrence_that_was_never_materialised_closes_with_nobody(service):
    people(3)
    schedule = ScheduleFactory()
    service.tick()
    service.cancel(schedule)
    service.sweep()
    occurrence = only_occurrence(schedule)
    assert (occurrence.targeted, occurrence.closed_at) == (0, NOW)


def test_who_still_waits_after_seven_days_expires(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    service.pause(schedule)
    assert service.at(NOW + 7 * DAY - MINUTE).sweep().ended == 0
    assert service.at(NOW + 7 * DAY).sweep().ended == 3
    assert reasons(schedule) == {"expired: occurrence_ended": 3}
    assert only_occurrence(schedule).state == OccurrenceState.FINISHED


def test_an_occurrence_whose_audience_was_never_found_is_missed_after_seven_days(service):
    people(3)
    schedule = ScheduleFactory()
    service.tick()
    service.at(NOW + 7 * DAY).sweep()
    occurrence = only_occurrence(schedule)
    assert (occurrence.state, occurrence.reason) == (OccurrenceState.MISSED, "not_materialised")
    assert occurrence.closed_at == service.now


def test_who_waits_while_an_edit_never_comes_to_an_end_expires_after_seven_days(service):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    service.update(schedule, audience_query={"field": "tags", "op": "contains", "value": "vip"})
    service.at(NOW + 7 * DAY).sweep()
    assert reasons(schedule) == {"expired: occurrence_ended": 3}
    assert only_occurrence(schedule).closed_at is not None


def test_an_occurrence_put_off_under_a_pause_that_never_ends_expires_in_the_end(service):
    people(3)
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    service.open()
    service.update(schedule, run_at=NOW + DAY)
    service.pause(schedule)
    service.at(NOW + 7 * DAY).sweep()
    assert states(schedule) == {"pending": 3}
    service.at(NOW + 8 * DAY).sweep()
    assert reasons(schedule) == {"expired: occurrence_ended": 3}
    service.resume(schedule)
    service.step()
    assert Schedule.objects.get().status == ScheduleStatus.FINISHED


# --- Closing ---------------------------------------------------------------------------------------------------------


def test_an_occurrence_closes_when_its_last_row_has_an_outcome(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    claim = claim_of(service)
    assert service.sweep().closed == 0
    settle(claim, State.SENT, now=NOW)
    assert service.at(NOW + MINUTE).sweep().closed == 1
    occurrence = only_occurrence(schedule)
    assert (occurrence.state, occurrence.closed_at) == (OccurrenceState.FINISHED, NOW + MINUTE)
    assert service.sweep().closed == 0


def test_an_occurrence_with_a_wave_ahead_stays_open(service, provider):
    people(1, time_zone="Asia/Kolkata")
    people(1, time_zone="UTC")
    schedule = ScheduleFactory(run_at=NOW + DAY, time_zone_mode="user_local")
    service.run_to(NOW + DAY - HOUR)
    assert states(schedule) == {"sent": 1, "pending": 1}
    assert only_occurrence(schedule).closed_at is None


def test_a_cron_with_runs_ahead_is_not_finished(service, provider):
    schedule = ScheduleFactory(cron="0 * * * *")
    service.run_to(NOW + 3 * HOUR)
    schedule.refresh_from_db()
    assert schedule.status == ScheduleStatus.ACTIVE
    assert Occurrence.objects.filter(state=OccurrenceState.FINISHED).count() == 3


def test_a_paused_schedule_is_not_finished_before_it_is_resumed(service, provider):
    schedule = ScheduleFactory()
    service.open()
    service.pause(schedule)
    service.sweep()
    schedule.refresh_from_db()
    assert schedule.status == ScheduleStatus.PAUSED
    service.resume(schedule)
    service.sweep()
    assert Schedule.objects.get().status == ScheduleStatus.FINISHED


def test_many_batches_are_settled_in_several_transactions(service, settings):
    settings.BATCH_SIZE = 2
    people(250)
    schedule = ScheduleFactory()
    service.open()
    assert Batch.objects.count() == 125
    service.cancel(schedule)
    assert service.sweep().cancelled == 250
    assert states(schedule) == {"cancelled": 250}


def test_a_sweep_with_nothing_to_do_does_nothing(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 3}
    assert not any(vars(service.after(timedelta(seconds=2)).sweep()).values())

"""The failure brake: what goes wrong for most is held before it goes wrong for all, until a person lets it go on."""

import pytest

from audit.models import Action, AuditEvent
from delivery import brake, sending
from delivery import sweep as sweeping
from delivery.models import Delivery, State
from delivery.providers.base import Answer, Verdict
from schedules import operations
from schedules.models import Occurrence, OccurrenceState
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.recording import sent
from tests.service import DAY, HOUR, MINUTE, in_threads, only_occurrence, reasons, states

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _small(settings):
    """Ten failures are many, and each look of the tick publishes one batch of twenty people."""
    settings.BRAKE_FAILURES, settings.BRAKE_SHARE, settings.BRAKE_GROWTH = 10, 0.5, 10.0
    settings.BATCH_SIZE = settings.PUBLISH_WINDOW_ROWS = 20


@pytest.fixture
def failing(provider):
    """From now on the first so many messages fail, the others are sent."""

    def set_up(number, verdict=Verdict.PERMANENT):
        turns = iter([verdict] * number)

        def answer(message):
            failed = next(turns, None)
            return Answer(message.key, failed, "rejected") if failed else sent(message)

        provider.answer = staticmethod(answer)

    return set_up


def release(service, schedule, *, by=BY):
    return operations.release_occurrence(occurrence_id=only_occurrence(schedule).pk, by=by, now=service.now)


def send_all(service):
    """Batch after batch, a minute between, with a sweep after each."""
    for _ in range(12):
        service.send()
        service.sweep()
        service.after(MINUTE)


# --- Too many failures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "before", "held"),
    [(10, 0, True), (9, 0, False), (20, 0, True), (10, 1, False), (19, 1, False), (20, 1, True), (20, 2, False)],
    ids=str,
)
def test_an_occurrence_is_held_by_many_failures_that_are_half_of_its_outcomes(service, failing, failures, before, held):
    """``before`` so many batches without a failure; then ``failures`` of twenty."""
    people(100)
    schedule = ScheduleFactory()
    service.open()
    for _ in range(before):
        service.send()
    failing(failures)
    service.send()
    assert service.sweep().held == held
    assert only_occurrence(schedule).held_reason == ("failures" if held else "")
    assert states(schedule)["pending"] == 80 - 20 * before


def test_a_held_occurrence_asks_for_nobody_and_others_go_on(service, provider, failing):
    people(60)
    schedule = ScheduleFactory()
    service.open()
    failing(20)
    service.send()
    (late,) = service.publish()
    assert service.sweep().held == 1
    occurrence = only_occurrence(schedule)
    assert (occurrence.held_reason, occurrence.held_at, occurrence.released_at) == ("failures", NOW, None)
    other = ScheduleFactory(run_at=NOW + MINUTE)
    asked = len(provider.messages())
    sending.send(batch_ids=late.batch_ids)  # published before it was held
    send_all(service.after(MINUTE))
    service.open()
    send_all(service)
    assert states(schedule) == {"failed": 20, "pending": 40}
    assert states(other) == {"sent": 60}
    assert {message.occurrence_id for message in provider.messages()[asked:]} == {only_occurrence(other).pk}
    assert only_occurrence(schedule).closed_at is None


def test_holding_and_releasing_are_in_the_audit(service, failing):
    people(40)
    schedule = ScheduleFactory()
    service.open()
    failing(20)
    service.send()
    service.sweep()
    release(service, schedule)
    pk = only_occurrence(schedule).pk
    held, released = AuditEvent.objects.filter(action__startswith="occurrence.").order_by("id")
    assert (held.action, held.actor_id, held.schedule_id) == (Action.OCCURRENCE_HOLD, brake.BY, schedule.pk)
    assert held.payload_diff == {"occurrence": pk, "held_reason": ["", "failures"], "failed": 20}
    assert (released.action, released.actor_id) == (Action.OCCURRENCE_RELEASE, BY)
    assert released.payload_diff == {"occurrence": pk, "held_reason": ["failures", ""]}


def test_answers_that_never_came_count_as_failures(service, failing):
    people(40)
    schedule = ScheduleFactory()
    service.open()
    failing(20, Verdict.UNKNOWN)
    service.send()
    assert service.sweep().held == 1
    assert reasons(schedule) == {"unknown: rejected": 20, "pending: ": 20}


def test_who_will_be_tried_again_has_not_failed(service, failing):
    people(40)
    schedule = ScheduleFactory()
    service.open()
    failing(20, Verdict.TRANSIENT)
    service.send()
    assert service.sweep().held == 0
    assert states(schedule) == {"pending": 40}


def test_an_occurrence_with_nobody_left_is_not_held(service, failing):
    people(20)
    schedule = ScheduleFactory()
    failing(20)
    service.step()
    occurrence = only_occurrence(schedule)
    assert (occurrence.held_reason, occurrence.state) == ("", OccurrenceState.FINISHED)


def test_failures_of_long_ago_do_not_count(service, failing):
    people(60)
    schedule = ScheduleFactory()
    service.open()
    failing(20)
    service.send()
    assert service.after(brake.RECENT).sweep().held == 0
    send_all(service)
    assert states(schedule) == {"failed": 20, "sent": 40}


# --- Released --------------------------------------------------------------------------------------------------------


def test_released_it_goes_on_where_it_stopped_and_is_not_held_by_the_same_failures(service, provider, failing):
    people(100)
    schedule = ScheduleFactory()
    service.open()
    failing(20)
    service.send()
    service.sweep()
    service.after(MINUTE)
    assert release(service, schedule)
    assert only_occurrence(schedule).released_at == service.now
    assert service.sweep().held == 0
    service.after(MINUTE)
    send_all(service)
    assert states(schedule) == {"failed": 20, "sent": 80}
    assert set(provider.reached().values()) == {1}
    assert AuditEvent.objects.filter(action=Action.OCCURRENCE_HOLD).count() == 1
    assert only_occurrence(schedule).state == OccurrenceState.FINISHED


def test_new_failures_hold_it_again(service, failing):
    people(100)
    schedule = ScheduleFactory()
    service.open()
    failing(40)
    service.send()
    service.sweep()
    service.after(MINUTE)
    release(service, schedule)
    service.after(MINUTE).send()
    assert service.sweep().held == 1
    occurrence = only_occurrence(schedule)
    assert (occurrence.held_at, occurrence.released_at) == (service.now, None)
    assert states(schedule) == {"failed": 40, "pending": 60}


def test_what_is_not_held_can_not_be_released_and_is_not_audited(service, provider):
    people(1)
    schedule = ScheduleFactory()
    service.open()
    assert not release(service, schedule)
    assert not AuditEvent.objects.filter(action=Action.OCCURRENCE_RELEASE).exists()


def test_released_late_a_wave_that_had_started_runs_on_and_one_that_had_not_expires(service, failing):
    people(60, time_zone="Europe/Berlin")
    people(60, time_zone="UTC")
    schedule = ScheduleFactory(run_at=NOW + DAY, time_zone_mode="user_local")
    service.run_to(NOW + DAY - 2 * HOUR)
    failing(20)
    service.at(NOW + DAY - HOUR).send()
    assert service.sweep().held == 1
    service.at(NOW + DAY + 2 * HOUR)
    release(service, schedule)
    send_all(service)
    assert reasons(schedule) == {"failed: rejected": 20, "sent: ": 40, "expired: paused": 60}


# --- Held to the end -------------------------------------------------------------------------------------------------


@pytest.fixture
def held(service, failing):
    """A schedule whose occurrence is held with twenty people pending."""
    people(40)
    schedule = ScheduleFactory()
    service.open()
    failing(20)
    service.send()
    service.sweep()
    assert only_occurrence(schedule).held_reason
    return schedule


def test_a_held_occurrence_that_is_cancelled_ends(service, held):
    service.cancel(held)
    service.sweep()
    assert reasons(held) == {"failed: rejected": 20, "cancelled: cancelled": 20}
    assert only_occurrence(held).closed_at == NOW


def test_a_held_occurrence_that_nobody_releases_ends_after_seven_days(service, held):
    service.at(only_occurrence(held).ends_at).sweep()
    assert reasons(held) == {"failed: rejected": 20, "expired: occurrence_ended": 20}


@pytest.mark.django_db(transaction=True)
def test_sweeps_at_once_hold_it_once(service, failing):
    people(40)
    ScheduleFactory()
    service.open()
    failing(20)
    service.send()
    swept = in_threads(*[lambda: sweeping.sweep(now=NOW)] * 4)
    assert sorted(each.held for each in swept) == [0, 0, 0, 1]
    assert AuditEvent.objects.filter(action=Action.OCCURRENCE_HOLD).count() == 1


# --- An audience that has grown --------------------------------------------------------------------------------------


@pytest.fixture
def daily(service, provider, monkeypatch):
    """A daily schedule whose first occurrence has reached three people."""
    monkeypatch.setattr(brake, "LEAST_AUDIENCE", 25)
    people(3)
    schedule = ScheduleFactory(cron="0 12 * * *")
    service.run_to(NOW + 3 * HOUR)
    assert states(schedule) == {"sent": 3}
    return schedule


def latest():
    return Occurrence.objects.latest("occurrence_at")


@pytest.mark.parametrize(("more", "held"), [(27, False), (28, True)])
def test_an_audience_more_than_ten_times_the_last_one_is_held_before_anyone_gets_it(
    service, provider, daily, more, held
):
    people(more)
    asked = len(provider.messages())
    service.at(NOW + DAY + 2 * HOUR).open()
    assert latest().targeted == 3 + more
    assert latest().held_reason == ("audience_grown" if held else "")
    send_all(service)
    assert len(provider.messages()) - asked == (0 if held else 3 + more)
    if held:
        event = AuditEvent.objects.get(action=Action.OCCURRENCE_HOLD)
        assert event.payload_diff["targeted"] == [3, 3 + more]
        operations.release_occurrence(occurrence_id=latest().pk, by=BY, now=service.now)
        send_all(service)
        assert Delivery.objects.filter(occurrence_id=latest().pk, state=State.SENT).count() == 3 + more


def test_a_small_audience_may_grow_as_it_likes(service, daily, monkeypatch):
    monkeypatch.setattr(brake, "LEAST_AUDIENCE", 60)
    people(50)
    service.at(NOW + DAY + 2 * HOUR).open()
    assert (latest().targeted, latest().held_reason) == (53, "")


def test_the_first_occurrence_has_none_to_be_compared_with(service, provider, monkeypatch):
    monkeypatch.setattr(brake, "LEAST_AUDIENCE", 25)
    people(40)
    schedule = ScheduleFactory()
    service.open()
    assert only_occurrence(schedule).held_reason == ""


def test_compared_is_with_the_last_occurrence_that_was_sent_and_not_with_one_called_off(service, provider, daily):
    people(50)
    service.at(NOW + DAY + 2 * HOUR).open()
    assert latest().held_reason == "audience_grown"
    Occurrence.objects.filter(pk=latest().pk).update(state=OccurrenceState.CANCELLED, reason="edited", held_reason="")
    service.sweep()
    service.at(NOW + 2 * DAY + 2 * HOUR).open()
    assert latest().held_reason == "audience_grown"


def test_one_held_occurrence_does_not_hold_the_schedules_next(service, provider, daily):
    people(50)
    service.at(NOW + DAY + 2 * HOUR).open()
    first = latest()
    people(400)
    operations.release_occurrence(occurrence_id=first.pk, by=BY, now=service.now)
    send_all(service)
    service.at(NOW + 2 * DAY + 2 * HOUR).open()
    assert (latest().targeted, latest().held_reason) == (453, "")

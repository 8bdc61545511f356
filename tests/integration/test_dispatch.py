"""The tick: which occurrences it opens, what it makes of those found late, and which batches it hands out."""

from datetime import timedelta

import pytest

from audit.models import AuditEvent
from delivery import advance, dispatch
from delivery.models import Batch
from schedules import operations, stops
from schedules.models import Occurrence, OccurrenceState, Schedule, ScheduleStatus
from schedules.recurrence import TZDATA_VERSION
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.service import DAY, HOUR, MINUTE, only_occurrence, reasons, states

pytestmark = pytest.mark.django_db


def occurrences(schedule):
    """(instant, state) of each occurrence, the first one first."""
    return list(schedule.occurrences.order_by("occurrence_at").values_list("occurrence_at", "state"))


# --- Opening ---------------------------------------------------------------------------------------------------------


def test_a_schedule_is_opened_a_minute_ahead_and_not_before(service):
    schedule = ScheduleFactory(run_at=NOW + 10 * MINUTE)
    service.at(NOW + 9 * MINUTE - timedelta(seconds=1)).tick()
    assert not schedule.occurrences.exists()
    service.at(NOW + 9 * MINUTE).tick()
    occurrence = only_occurrence(schedule)
    assert occurrence.state == OccurrenceState.MATERIALISING
    assert occurrence.occurrence_at == occurrence.opens_at == NOW + 10 * MINUTE
    assert occurrence.ends_at == occurrence.opens_at + 7 * DAY


def test_a_second_tick_finds_nothing_to_open(service):
    ScheduleFactory()
    assert len(service.tick().occurrence_ids) == 1
    assert service.tick().occurrence_ids == []


def test_the_next_run_lies_strictly_past_the_occurrence_just_opened(service):
    schedule = ScheduleFactory(cron="0 9 * * *", time_zone="Europe/Berlin")
    for _ in range(5):
        schedule.refresh_from_db()
        before = schedule.next_run_at
        service.at(before).tick()
        schedule.refresh_from_db()
        assert schedule.next_run_at > before
    assert [at for at, _ in occurrences(schedule)] == [NOW.replace(hour=8) + DAY * n for n in range(1, 6)]
    assert schedule.runs == 5


@pytest.mark.parametrize("status", [ScheduleStatus.DRAFT, ScheduleStatus.PAUSED, ScheduleStatus.CANCELLED])
def test_only_an_active_schedule_is_opened(service, status):
    schedule = ScheduleFactory()
    Schedule.objects.filter(pk=schedule.pk).update(status=status)
    assert service.tick().occurrence_ids == []


def test_an_occurrence_is_pinned_to_the_versions_that_stand_when_it_opens(service):
    schedule = ScheduleFactory(run_at=NOW + HOUR)
    service.update(schedule, name="Better")
    service.at(NOW + HOUR).tick()
    assert (only_occurrence(schedule).version, only_occurrence(schedule).template_version) == (2, 1)


# --- Once, and in a range --------------------------------------------------------------------------------------------


def test_a_one_off_finishes_its_schedule(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.step()
    service.step()
    schedule.refresh_from_db()
    assert (schedule.status, schedule.next_run_at) == (ScheduleStatus.FINISHED, None)
    assert states(schedule) == {"sent": 3}


def test_an_empty_audience_is_an_occurrence_of_zero_that_finishes(service, provider):
    schedule = ScheduleFactory()
    service.step()
    occurrence = only_occurrence(schedule)
    assert (occurrence.state, occurrence.targeted, occurrence.closed_at) == (OccurrenceState.FINISHED, 0, NOW)


def test_a_cron_runs_from_start_to_end_both_inclusive(service):
    start, end = NOW + 2 * DAY, NOW + 4 * DAY
    schedule = ScheduleFactory(cron="0 10 * * *", start_at=start, end_at=end)
    service.run_to(NOW + 10 * DAY)
    assert [at for at, _ in occurrences(schedule)] == [start, start + DAY, end]
    schedule.refresh_from_db()
    assert schedule.status == ScheduleStatus.FINISHED


def test_a_cron_ends_after_its_number_of_runs(service):
    schedule = ScheduleFactory(cron="0 10 * * *", max_runs=2)
    service.run_to(NOW + 10 * DAY)
    assert [at for at, _ in occurrences(schedule)] == [NOW + DAY, NOW + 2 * DAY]
    schedule.refresh_from_db()
    assert schedule.status == ScheduleStatus.FINISHED


def test_a_pause_costs_a_user_local_cron_none_of_its_runs(service):
    schedule = ScheduleFactory(cron="0 9 * * *", time_zone_mode="user_local", max_runs=2)
    schedule.refresh_from_db()
    service.at(schedule.next_run_at).step()  # open from here on for 26 hours
    service.after(HOUR).pause(schedule)
    service.after(HOUR).resume(schedule)
    service.run_to(service.now + 3 * DAY)
    assert len(occurrences(schedule)) == 2


# --- Found late ------------------------------------------------------------------------------------------------------


def test_an_occurrence_found_within_the_grace_is_sent(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.at(NOW + 59 * MINUTE).step()
    assert states(schedule) == {"sent": 3}


def test_an_occurrence_found_past_the_grace_is_missed_and_the_schedule_goes_on(service, provider):
    people(3)
    schedule = ScheduleFactory(cron="0 11 * * *")
    opened = service.at(NOW + 2 * HOUR + timedelta(seconds=1)).tick()
    assert (opened.occurrence_ids, opened.missed) == ([], 1)
    occurrence = only_occurrence(schedule)
    assert (occurrence.state, occurrence.reason) == (OccurrenceState.MISSED, "down")
    assert occurrence.closed_at == service.now
    schedule.refresh_from_db()
    assert schedule.next_run_at == NOW + HOUR + DAY


def test_the_grace_is_the_schedules_own(service, provider):
    people(3)
    schedule = ScheduleFactory(misfire_grace_minutes=180)
    service.at(NOW + 3 * HOUR).step()
    assert states(schedule) == {"sent": 3}


def test_a_user_local_occurrence_found_late_is_opened_while_any_wave_can_start(service, provider):
    people(1, time_zone="Pacific/Kiritimati")  # UTC+14
    people(1, time_zone="Pacific/Pago_Pago")  # UTC-11
    schedule = ScheduleFactory(run_at=NOW + DAY, time_zone_mode="user_local")
    service.at(NOW + DAY + 11 * HOUR).step()
    assert reasons(schedule) == {"expired: down": 1, "sent: ": 1}


def test_a_one_off_paused_past_its_grace_is_missed_because_of_the_pause(service):
    schedule = ScheduleFactory(run_at=NOW + 10 * MINUTE)
    service.pause(schedule)
    service.at(NOW + 2 * HOUR).resume(schedule)
    service.tick()
    occurrence = only_occurrence(schedule)
    assert (occurrence.state, occurrence.reason) == (OccurrenceState.MISSED, "paused")


def test_an_outage_of_five_hours_is_caught_up_with_in_a_few_ticks(service):
    schedule = ScheduleFactory(cron="* * * * *", misfire_grace_minutes=0)
    service.at(NOW + 5 * HOUR)
    for _ in range(4):
        service.tick()
    schedule.refresh_from_db()
    assert schedule.next_run_at == NOW + 5 * HOUR + 2 * MINUTE  # the one of the next minute is open already
    assert schedule.occurrences.filter(state=OccurrenceState.MISSED).count() == schedule.runs - 2 == 299


def test_unpausing_a_cron_replays_nothing(service):
    schedule = ScheduleFactory(cron="0 * * * *")
    service.pause(schedule)
    service.at(NOW + 5 * HOUR + MINUTE).resume(schedule)
    service.run_to(NOW + 6 * HOUR)
    assert [at for at, _ in occurrences(schedule)] == [NOW + 6 * HOUR]


# --- Recurrences that raise ------------------------------------------------------------------------------------------


@pytest.fixture
def one_broken(monkeypatch):
    """Two crons due in a minute; the recurrence of the first raises."""
    broken, sound = ScheduleFactory(cron="1 10 * * *"), ScheduleFactory(cron="1 * * * *")

    def raising(timing, **arguments):
        if timing.cron == "1 10 * * *":
            raise ZeroDivisionError("no such day")
        return original(timing, **arguments)

    original = dispatch.next_firing
    monkeypatch.setattr(dispatch, "next_firing", raising)
    return broken, sound


def test_a_schedule_whose_recurrence_raises_is_broken_with_its_reason_and_the_others_commit(service, one_broken):
    broken, sound = one_broken
    opened = service.at(NOW + MINUTE).tick()
    assert (opened.broken, opened.occurrence_ids) == (1, [only_occurrence(sound).pk])
    broken.refresh_from_db()
    assert broken.status == ScheduleStatus.BROKEN
    assert "ZeroDivisionError" in broken.status_reason
    assert "no such day" not in broken.status_reason  # words that nobody foresaw may quote somebody
    assert broken.next_run_at is None
    assert not broken.occurrences.exists()
    event = AuditEvent.objects.get(action="schedule.break")
    assert (event.schedule_id, event.actor_id) == (broken.pk, "system:tick")
    assert event.payload_diff["status"] == ["active", "broken"]


def test_a_broken_schedule_is_activated_again_once_it_is_mended(service, one_broken):
    broken, _ = one_broken
    service.at(NOW + MINUTE).tick()
    operations.update(schedule_id=broken.pk, changes={"cron": "5 10 * * *"}, by=BY, now=service.now)
    operations.activate(schedule_id=broken.pk, by=BY, now=service.now)
    service.at(NOW + 5 * MINUTE).tick()
    assert only_occurrence(broken).occurrence_at == NOW + 5 * MINUTE


# --- New zone data ---------------------------------------------------------------------------------------------------


def aged(schedule, **fields):
    """The schedule as another release of the zone data left it."""
    Schedule.objects.filter(pk=schedule.pk).update(zone_data="2019a", **fields)


def test_new_zone_data_moves_what_lies_ahead(service):
    schedule = ScheduleFactory(cron="0 9 * * *", time_zone="Europe/Berlin")
    schedule.refresh_from_db()
    right = schedule.next_run_at
    aged(schedule, next_run_at=right + HOUR, next_occurrence_at=right + HOUR)
    assert dispatch.refresh_zone_data(now=NOW) == 1
    schedule.refresh_from_db()
    assert (schedule.next_run_at, schedule.next_occurrence_at, schedule.zone_data) == (right, right, TZDATA_VERSION)
    assert dispatch.refresh_zone_data(now=NOW) == 0


def test_new_zone_data_repeats_no_occurrence_that_was_opened(service):
    schedule = ScheduleFactory(cron="0 11 * * *")
    service.at(NOW + 59 * MINUTE).tick()
    aged(schedule)
    dispatch.refresh_zone_data(now=service.now)
    schedule.refresh_from_db()
    assert schedule.next_occurrence_at == NOW + HOUR + DAY


def test_new_zone_data_leaves_the_identity_of_a_postponed_one_off(service, provider):
    people(3)
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    service.open()
    service.update(schedule, run_at=NOW + 2 * DAY)
    aged(schedule)
    dispatch.refresh_zone_data(now=service.now)
    service.run_to(NOW + 2 * DAY)
    assert len(provider.messages()) == 3
    assert len(occurrences(schedule)) == 1


def test_a_schedule_that_new_zone_data_breaks_does_not_hold_up_the_others(service, monkeypatch):
    lost, sound = ScheduleFactory(cron="0 9 * * *"), ScheduleFactory(cron="0 8 * * *")
    aged(lost, time_zone="Mars/Olympus")
    aged(sound)
    dispatch.refresh_zone_data(now=NOW)
    lost.refresh_from_db()
    sound.refresh_from_db()
    assert (lost.status, sound.status) == (ScheduleStatus.BROKEN, ScheduleStatus.ACTIVE)
    assert "Mars/Olympus" in lost.status_reason
    assert sound.zone_data == TZDATA_VERSION


# --- Handing out -----------------------------------------------------------------------------------------------------


def test_batches_are_handed_out_two_seconds_ahead_and_once(service, settings):
    settings.PUBLISH_AHEAD_S = 2.0
    people(3)
    ScheduleFactory(run_at=NOW + MINUTE)
    service.open()
    assert service.at(NOW + timedelta(seconds=57)).publish() == []
    (message,) = service.at(NOW + timedelta(seconds=58)).publish()
    assert (message.channel, message.batch_ids) == ("email", [Batch.objects.get().pk])
    assert service.publish() == []


def test_each_channel_has_messages_of_its_own(service):
    people(3)
    for channel in ("email", "push", "in_app"):
        ScheduleFactory(channel=channel)
    service.open()
    assert [message.channel for message in service.publish()] == ["email", "push", "in_app"]


def test_a_message_carries_two_thousand_people_at_the_most(service):
    people(2_600)
    ScheduleFactory()
    service.open()
    assert [len(message.batch_ids) for message in service.publish()] == [4, 2]


def test_a_queue_holds_a_window_of_people_and_the_rest_waits(service, settings):
    settings.BATCH_SIZE, settings.PUBLISH_WINDOW_ROWS = 50, 100
    people(300)
    ScheduleFactory()
    service.open()
    (message,) = service.publish()
    assert len(message.batch_ids) == 2
    assert service.publish() == []
    Batch.objects.filter(pk__in=message.batch_ids).update(queued_at=None)
    assert len(service.publish()) == 1


def test_who_is_due_first_is_handed_out_first(service, settings):
    settings.PUBLISH_AHEAD_S = 2.0
    settings.PUBLISH_WINDOW_ROWS = 60
    people(60)
    later, sooner = ScheduleFactory(run_at=NOW + timedelta(seconds=1)), ScheduleFactory()
    service.open()
    (message,) = service.publish()
    assert set(Batch.objects.filter(pk__in=message.batch_ids).values_list("occurrence__schedule", flat=True)) == {
        sooner.pk
    }
    assert later.pk != sooner.pk


@pytest.mark.parametrize("scope", ["all", "channel:email", "schedule"])
def test_what_is_stopped_is_not_handed_out(service, scope):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    scope = f"schedule:{schedule.pk}" if scope == "schedule" else scope
    stops.stop_sending(scope=scope, by=BY, now=NOW)
    assert service.publish() == []
    stops.go_sending(scope=scope, by=BY, now=NOW)
    assert len(service.publish()) == 1


def test_what_is_stopped_elsewhere_is_handed_out(service):
    people(3)
    ScheduleFactory()
    service.open()
    stops.stop_sending(scope="channel:push", by=BY, now=NOW)
    another = ScheduleFactory(run_at=NOW + HOUR)
    stops.stop_sending(scope=f"schedule:{another.pk}", by=BY, now=NOW)
    assert len(service.publish()) == 1


def test_what_is_paused_is_materialised_but_not_handed_out(service):
    people(3)
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    service.tick()
    service.pause(schedule)
    service.materialise()
    assert states(schedule) == {"pending": 3}
    assert service.at(NOW + MINUTE).publish() == []
    service.resume(schedule)
    assert len(service.publish()) == 1


def test_an_occurrence_whose_worker_died_is_materialised_by_another(service):
    ScheduleFactory()
    service.tick()
    Occurrence.objects.update(materialise_lease_until="2999-01-01T00:00:00Z")
    assert dispatch.to_materialise() == []
    Occurrence.objects.update(materialise_lease_until="2020-01-01T00:00:00Z")
    assert dispatch.to_materialise() == [Occurrence.objects.get().pk]


@pytest.mark.parametrize("status", [ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED, ScheduleStatus.BROKEN])
def test_whoever_advances_the_clock_waits_for_all_that_is_being_materialised(service, status):
    ScheduleFactory()
    service.tick()
    Schedule.objects.update(status=status)
    assert advance._due(NOW)[1] == 1
    service.materialise()
    assert advance._due(NOW)[1] == 0

"""Send windows and how long people wait for them: who is due when, who is too late, and what an edit does to it."""

from datetime import datetime, timedelta

import pytest

from delivery.explain import Code
from delivery.explain.why import of_delivery
from delivery.forecast import forecast
from delivery.models import Batch, Delivery, ZoneSource
from delivery.providers.base import Verdict
from schedules.definition import Definition, InvalidDefinition
from schedules.models import OccurrenceState
from schedules.occurrences import Effect
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.service import DAY, HOUR, MINUTE, only_occurrence, reasons, row_of, states

pytestmark = pytest.mark.django_db

# NOW is Saturday, 10:00 in UTC.
EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
MONDAY = datetime.fromisoformat("2026-11-23T00:00:00Z")


def window(begins, ends, days=EVERY_DAY):
    return {"days": days, "from": begins, "to": ends}


def opens(service, schedule):
    service.open()
    return only_occurrence(schedule)


# --- When they are due -----------------------------------------------------------------------------------------------


def test_each_person_is_due_when_the_window_is_open_on_their_own_clock(service):
    offsets = {"Asia/Kathmandu": 5.75, "Europe/Berlin": 1, "UTC": 0, "America/New_York": -5, "Asia/Tokyo": 9}
    persons = {zone: people(1, time_zone=zone)[0] for zone in offsets}
    stray = RecipientFactory(time_zone="Mars/Olympus")
    schedule = ScheduleFactory(send_window=window("10:00", "18:30"), time_zone="Asia/Tokyo")
    opens(service, schedule)
    due = {zone: row_of(schedule, person).wave_at for zone, person in persons.items()}
    tomorrow = NOW.replace(hour=10) + DAY
    assert due == {
        "Asia/Kathmandu": NOW,  # 15:45
        "Europe/Berlin": NOW,
        "UTC": NOW,  # just opened
        "America/New_York": NOW + 5 * HOUR,
        "Asia/Tokyo": tomorrow - 9 * HOUR,  # 19:00: over for today
    }
    assert row_of(schedule, stray).wave_at == tomorrow - 9 * HOUR
    sources = {zone: row_of(schedule, person).zone_source for zone, person in persons.items()}
    assert set(sources.values()) == {ZoneSource.PROFILE}
    assert row_of(schedule, stray).zone_source == ZoneSource.INVALID


def test_in_user_local_mode_the_window_moves_those_hours_that_lie_outside(service, provider):
    berlin, york = people(1, time_zone="Europe/Berlin")[0], people(1, time_zone="America/New_York")[0]
    schedule = ScheduleFactory(
        run_at=MONDAY - 3 * HOUR,  # Sunday, 21:00 on each clock
        time_zone_mode="user_local",
        send_window=window("09:00", "20:00", ["mon", "tue", "wed", "thu", "fri"]),
    )
    schedule.refresh_from_db()
    service.run_to(MONDAY + DAY)
    assert states(schedule) == {"sent": 2}
    for person, offset in ((berlin, 1), (york, -5)):
        called = row_of(schedule, person).called_at
        assert abs(called - (MONDAY + 9 * HOUR - offset * HOUR)) < MINUTE
        assert row_of(schedule, person).wave_at == MONDAY + 9 * HOUR - offset * HOUR


def test_waves_by_window_have_batches_of_their_own(service):
    people(60, time_zone="UTC")
    people(70, time_zone="Asia/Tokyo")
    ScheduleFactory(send_window=window("09:00", "18:00"))
    service.open()
    waves = {batch.wave_at: batch.size for batch in Batch.objects.all()}
    assert waves == {NOW: 60, NOW + 14 * HOUR: 70}


def test_nobody_pays_for_a_window_that_there_is_not(service, django_assert_num_queries):
    people(2)
    schedule = ScheduleFactory()
    opens(service, schedule)
    assert set(Delivery.objects.values_list("expires_at", "zone_source")) == {(None, ZoneSource.FIXED)}
    assert Batch.objects.get().expires_at is None


def test_a_firing_that_is_found_late_is_not_missed_while_the_window_lies_ahead(service, provider):
    people(1, time_zone="UTC")
    schedule = ScheduleFactory(send_window=window("20:00", "21:00"), misfire_grace_minutes=30)
    service.at(NOW + 3 * HOUR).open()
    assert row_of(schedule, only_person()).wave_at == NOW + 10 * HOUR
    service.run_to(NOW + 11 * HOUR)
    assert states(schedule) == {"sent": 1}


def test_a_firing_is_missed_once_the_window_has_passed_for_all(service):
    people(1, time_zone="UTC")
    schedule = ScheduleFactory(send_window=window("09:00", "21:00"), misfire_grace_minutes=30)
    service.at(NOW + 2 * DAY).open()
    assert (only_occurrence(schedule).state, only_occurrence(schedule).reason) == (OccurrenceState.MISSED, "down")


def only_person():
    row = Delivery.objects.get()
    return type("P", (), {"pk": row.recipient_id})


# --- At the claim ----------------------------------------------------------------------------------------------------


def test_who_is_claimed_after_the_window_has_closed_waits_for_the_next_without_an_attempt(service, provider):
    people(2, time_zone="UTC")
    schedule = ScheduleFactory(send_window=window("09:00", "11:00"), misfire_grace_minutes=180, max_per_user_per_day=1)
    service.open()
    service.at(NOW + 90 * MINUTE).send()
    assert provider.messages() == []
    assert reasons(schedule) == {"pending: outside_window": 2}
    row = Delivery.objects.first()
    assert (row.due_at, row.wave_at, row.attempt, row.called_at) == (NOW - HOUR + DAY, NOW, 0, None)
    story = of_delivery(row, occurrence=only_occurrence(schedule), person=None, now=service.now)
    assert story.code == Code.WAITS_FOR_WINDOW
    service.at(NOW - HOUR + DAY).step()  # though the wave is a day old by now, nobody of it is late
    assert states(schedule) == {"sent": 2}


def test_a_retry_past_the_windows_end_waits_for_the_next_one(service, provider):
    people(1, time_zone="UTC")
    schedule = ScheduleFactory(run_at=NOW, send_window=window("09:00", "10:01"))
    service.open()
    provider.answers(Verdict.TRANSIENT)
    service.send()
    service.at(NOW + 2 * MINUTE).send()
    row = Delivery.objects.get()
    assert (row.reason, row.due_at, row.attempt) == ("outside_window", NOW - HOUR + DAY, 1)
    provider.reset()
    service.at(NOW - HOUR + DAY).send()
    assert (states(schedule), Delivery.objects.get().attempt) == ({"sent": 1}, 2)


def test_a_run_resumed_outside_its_window_waits(service, provider):
    people(1, time_zone="UTC")
    schedule = ScheduleFactory(send_window=window("09:00", "11:00"), misfire_grace_minutes=600)
    service.open()
    service.pause(schedule)
    service.at(NOW + 3 * HOUR).send()
    service.resume(schedule)
    service.send()
    assert reasons(schedule) == {"pending: outside_window": 1}
    service.at(NOW + DAY).step()
    assert states(schedule) == {"sent": 1}


# --- Waiting too long ------------------------------------------------------------------------------------------------


def test_who_would_wait_longer_for_the_window_than_the_schedule_allows_expires_at_once(service):
    people(1, time_zone="UTC")
    people(1, time_zone="Asia/Tokyo")
    schedule = ScheduleFactory(send_window=window("09:00", "18:00"), expires_after_minutes=120)
    service.open()
    assert reasons(schedule) == {"pending: ": 1, "expired: waited_too_long": 1}
    assert Delivery.objects.get(state=0).expires_at == NOW + 2 * HOUR


def test_a_window_that_opens_after_the_runs_life_lets_its_people_expire(service):
    person = people(1, time_zone="Etc/GMT+12")[0]
    schedule = ScheduleFactory(
        run_at=MONDAY + 9 * HOUR + MINUTE,
        now=MONDAY - DAY,
        time_zone_mode="user_local",
        send_window=window("09:00", "09:01", ["mon"]),
    )
    schedule.refresh_from_db()
    service.at(schedule.next_run_at).open()
    assert row_of(schedule, person).wave_at == MONDAY + 7 * DAY + 21 * HOUR
    assert reasons(schedule) == {"expired: occurrence_ended": 1}


@pytest.mark.parametrize("is_paused", [False, True])
def test_what_could_not_be_sent_in_time_expires_whatever_kept_it(service, provider, is_paused):
    people(2)
    schedule = ScheduleFactory(expires_after_minutes=30, misfire_grace_minutes=600)
    service.open()
    if is_paused:
        service.pause(schedule)
    service.at(NOW + 29 * MINUTE).sweep()
    assert states(schedule) == {"pending": 2}
    assert service.at(NOW + 30 * MINUTE).sweep().waited == 2
    assert reasons(schedule) == {"expired: waited_too_long": 2}
    row = Delivery.objects.first()
    assert of_delivery(row, occurrence=None, person=None, now=service.now).code == Code.WAITED_TOO_LONG


def test_a_worker_that_is_quicker_than_the_sweep_sends_to_nobody_too_late(service, provider):
    people(2)
    schedule = ScheduleFactory(expires_after_minutes=30, misfire_grace_minutes=600)
    service.open()
    service.at(NOW + 30 * MINUTE).send()
    assert provider.messages() == []
    assert reasons(schedule) == {"expired: waited_too_long": 2}


# --- Edits -----------------------------------------------------------------------------------------------------------


def test_another_window_moves_who_waits(service, provider):
    people(1, time_zone="UTC")
    schedule = ScheduleFactory(run_at=NOW + MINUTE, send_window=window("12:00", "13:00"))
    service.open()
    assert Delivery.objects.get().wave_at == NOW + 2 * HOUR
    edit = service.update(schedule, send_window=window("15:00", "16:00"))
    assert [touched.effect for touched in edit.touched] == [Effect.RETIMED]
    service.materialise()
    assert (Delivery.objects.get().wave_at, Delivery.objects.get().due_at) == (NOW + 5 * HOUR, NOW + 5 * HOUR)
    service.run_to(NOW + 6 * HOUR)
    assert states(schedule) == {"sent": 1}


def test_without_its_window_whoever_waited_for_it_is_due_at_once(service, provider):
    people(1, time_zone="UTC")
    schedule = ScheduleFactory(send_window=window("20:00", "21:00"))
    service.open()
    service.at(NOW + 3 * HOUR)  # more than the misfire grace after the schedule's own hour
    service.update(schedule, send_window=None)
    service.materialise()
    service.send()
    assert states(schedule) == {"sent": 1}


def test_an_edit_of_who_gets_it_keeps_those_who_wait_for_the_next_window(service, provider):
    people(1, time_zone="UTC", tags=["a"])
    schedule = ScheduleFactory(send_window=window("09:00", "11:00"), misfire_grace_minutes=120)
    service.open()
    service.at(NOW + 90 * MINUTE).send()
    assert reasons(schedule) == {"pending: outside_window": 1}
    service.at(NOW + 5 * HOUR)
    service.update(schedule, audience_query={"field": "tags", "op": "contains", "value": "a"})
    service.materialise()
    service.run_to(NOW + DAY)
    assert states(schedule) == {"sent": 1}


def test_a_run_that_has_begun_keeps_its_window_unless_the_edit_is_for_the_unsent(service, provider, settings):
    settings.BATCH_SIZE = settings.PUBLISH_WINDOW_ROWS = 10
    people(30, time_zone="UTC")
    schedule = ScheduleFactory(send_window=window("09:00", "18:00"))
    service.open()
    service.send()
    begun = states(schedule)
    assert begun.keys() == {"sent", "pending"}
    first = service.update(schedule, send_window=window("12:00", "18:00"))
    assert [touched.effect for touched in first.touched] == [Effect.UNTOUCHED]
    second = service.update(schedule, send_window=window("14:00", "18:00"), apply_to="unsent")
    assert [touched.effect for touched in second.touched] == [Effect.RETIMED]
    service.materialise()
    assert set(Delivery.objects.filter(state=0).values_list("due_at", flat=True)) == {NOW + 4 * HOUR}
    settings.PUBLISH_WINDOW_ROWS = 20_000
    service.run_to(NOW + 5 * HOUR)
    assert states(schedule) == {"sent": 30}
    assert set(provider.reached().values()) == {1}


# --- What is told before ---------------------------------------------------------------------------------------------


def test_the_forecast_shows_the_waves_as_they_will_be(service):
    people(2, time_zone="UTC")
    people(3, time_zone="Asia/Tokyo")
    people(4, time_zone="America/New_York")
    schedule = ScheduleFactory(send_window=window("10:00", "18:00"), expires_after_minutes=10 * 60)
    told = forecast(definition=Definition.of(schedule), now=NOW - MINUTE)
    assert [(wave.at, wave.people) for wave in told.waves] == [(NOW, 2), (NOW + 5 * HOUR, 4)]
    assert (told.targeted, told.expiring) == (9, 3)
    service.open()
    assert reasons(schedule) == {"pending: ": 6, "expired: waited_too_long": 3}


# --- What can't be kept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"days": [], "from": "09:00", "to": "20:00"}, "sendWindow/days"),
        ({"days": ["monday"], "from": "09:00", "to": "20:00"}, "sendWindow/days"),
        ({"days": ["mon", "mon"], "from": "09:00", "to": "20:00"}, "sendWindow/days"),
        ({"days": [["mon"]], "from": "09:00", "to": "20:00"}, "sendWindow/days"),
        ({"days": "mon", "from": "09:00", "to": "20:00"}, "sendWindow/days"),
        ({"days": ["mon"], "from": "9", "to": "20:00"}, "sendWindow/from"),
        ({"days": ["mon"], "from": "24:00", "to": "20:00"}, "sendWindow/from"),
        ({"days": ["mon"], "from": "09:00", "to": "24:30"}, "sendWindow/to"),
        ({"days": ["mon"], "from": "09:00", "to": 20}, "sendWindow/to"),
        ({"days": ["mon"], "from": "09:00"}, "sendWindow/to"),
        ({"days": ["mon"], "from": "09:00", "to": "20:00", "\ud800zone": "UTC"}, "sendWindow"),
    ],
)
@pytest.mark.parametrize("draft", [False, True])
def test_a_window_that_is_none_is_refused_even_of_a_draft(given, field, draft):
    with pytest.raises(InvalidDefinition) as refused:
        ScheduleFactory(send_window=given, draft=draft)
    assert [problem.field for problem in refused.value.problems] == [field]


@pytest.mark.parametrize("minutes", [0, -1, 10_081])
def test_a_wait_that_is_none_is_refused(minutes):
    with pytest.raises(InvalidDefinition) as refused:
        ScheduleFactory(expires_after_minutes=minutes)
    assert [problem.field for problem in refused.value.problems] == ["expiresAfterMinutes"]


def test_a_definition_with_a_window_reads_back_as_it_was_written():
    given = window("22:00", "06:30", ["fri"])
    definition = Definition.of(ScheduleFactory(send_window=given, expires_after_minutes=90))
    assert Definition.from_json(definition.to_json()) == definition
    assert definition.to_json()["sendWindow"] == given
    assert timedelta(minutes=definition.window.closes - definition.window.opens) == timedelta(hours=8, minutes=30)

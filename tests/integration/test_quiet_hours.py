"""Quiet hours: who is due when, who waits at the claim, who never gets it, and what changes of them do."""

from datetime import datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from audit.models import AuditEvent
from delivery import holdings
from delivery.explain import Code, explain
from delivery.explain.why import of_delivery
from delivery.forecast import forecast, past_zones
from delivery.models import Delivery, ZoneSource
from delivery.providers.base import Verdict
from frontend import wording
from schedules import recipients
from schedules.definition import Definition
from schedules.models import Recipient
from schedules.occurrences import Effect
from schedules.recipients import InvalidRecipient
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, people
from tests.service import DAY, HOUR, MINUTE, only_occurrence, reasons, row_of, states

pytestmark = pytest.mark.django_db

# NOW is Saturday, 10:00 in UTC.
NIGHT = {"from": "22:00", "to": "07:00"}
MORNING = {"from": "09:00", "to": "11:30"}
LUNCH = {"from": "12:00", "to": "14:00"}
EVERY_DAY = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


def sets(person, hours, *, at=NOW):
    return recipients.update(recipient_id=person.pk, changes={"quiet_hours": hours}, by=BY, now=at)


def told_of(schedule, person, service):
    return explain(schedule_id=schedule.pk, external_id=person.external_id, now=service.now)


# --- When they are due ------------------------------------------------------------------------------------------------


def test_whoever_has_quiet_hours_is_due_when_they_end_on_the_own_clock(service, provider):
    tokyo = people(1, time_zone="Asia/Tokyo", quiet_hours={"from": "18:00", "to": "20:30"})[0]  # 19:00 there
    kathmandu = people(1, time_zone="Asia/Kathmandu", quiet_hours=NIGHT)[0]  # 15:45
    stray = RecipientFactory(time_zone="Mars/Olympus", quiet_hours=MORNING)
    homeless = RecipientFactory(time_zone="", quiet_hours=MORNING)
    plain = people(3, time_zone="Asia/Tokyo")
    schedule = ScheduleFactory()
    service.open()
    due = {person.pk: row_of(schedule, person).wave_at for person in (tokyo, kathmandu, stray, homeless, *plain)}
    assert due == {
        tokyo.pk: NOW + 90 * MINUTE,
        kathmandu.pk: NOW,
        stray.pk: NOW + 90 * MINUTE,
        homeless.pk: NOW + 90 * MINUTE,
        **{person.pk: NOW for person in plain},
    }
    sources = [row_of(schedule, person).zone_source for person in (tokyo, stray, homeless, plain[0])]
    assert sources == [ZoneSource.PROFILE, ZoneSource.INVALID, ZoneSource.MISSING, ZoneSource.FIXED]
    service.run_to(NOW + 2 * HOUR)
    assert states(schedule) == {"sent": 7}
    assert abs(row_of(schedule, tokyo).called_at - (NOW + 90 * MINUTE)) < MINUTE


def test_in_user_local_mode_and_with_a_window_both_have_to_be_open(service, provider):
    window = {"days": EVERY_DAY, "from": "06:00", "to": "12:00"}
    berlin = people(1, time_zone="Europe/Berlin", quiet_hours=NIGHT)[0]
    late = people(1, time_zone="Europe/Berlin", quiet_hours={"from": "05:00", "to": "11:00"})[0]
    plain = people(1, time_zone="Europe/Berlin")[0]
    midnight = NOW.replace(hour=0) + DAY
    schedule = ScheduleFactory(run_at=midnight + 5 * HOUR, time_zone_mode="user_local", send_window=window)
    schedule.refresh_from_db()
    service.run_to(midnight + DAY)
    assert states(schedule) == {"sent": 3}
    due = {person.pk: row_of(schedule, person).wave_at for person in (berlin, late, plain)}
    assert due == {
        berlin.pk: midnight + 6 * HOUR,  # seven o'clock there
        late.pk: midnight + 10 * HOUR,
        plain.pk: midnight + 5 * HOUR,
    }


def test_nobody_pays_for_quiet_hours_that_nobody_has(service, provider):
    people(3)
    ScheduleFactory()
    service.open()
    with CaptureQueriesContext(connection) as without:
        service.send()
    Recipient.objects.first().delete()
    RecipientFactory(quiet_hours=NIGHT)
    ScheduleFactory(run_at=service.after(HOUR).now)
    service.open()
    with CaptureQueriesContext(connection) as beside:
        service.send()
    assert len(without) == len(beside) > 0


@pytest.mark.parametrize(
    ("channel", "purpose"), [("in_app", "marketing"), ("email", "transactional"), ("push", "transactional")]
)
def test_what_disturbs_nobody_and_what_was_ordered_comes_at_once(service, channel, purpose):
    person = people(1, quiet_hours=MORNING)[0]
    DeviceFactory(recipient=person)
    schedule = ScheduleFactory(channel=channel, purpose=purpose)
    service.step()
    assert row_of(schedule, person).wave_at == NOW
    assert states(schedule) == {"sent": 1}


# --- At the claim -----------------------------------------------------------------------------------------------------


def test_quiet_hours_that_are_set_once_the_run_is_there_hold_from_the_next_claim(service, provider):
    anna, ben = people(2, time_zone="UTC")
    schedule = ScheduleFactory(max_per_user_per_day=1)
    service.open()
    sets(anna, MORNING)
    service.send()
    assert set(provider.reached()) == {ben.pk}
    row = row_of(schedule, anna)
    assert (row.reason, row.due_at, row.wave_at, row.attempt) == ("quiet_hours", NOW + 90 * MINUTE, NOW, 0)
    story = told_of(schedule, anna, service)
    assert story.code == Code.WAITS_FOR_QUIET_HOURS
    assert "from 09:00 to 11:30, kept it from coming at 2026-11-21 10:00:00 UTC" in wording.explanation(story)
    service.at(NOW + 89 * MINUTE).step()
    assert set(provider.reached()) == {ben.pk}
    service.at(NOW + 90 * MINUTE).step()  # more than the misfire grace after its hour, and not late
    assert (states(schedule), provider.reached()) == ({"sent": 2}, {anna.pk: 1, ben.pk: 1})


def test_quiet_hours_taken_away_count_from_the_next_claim_and_no_earlier(service, provider):
    person = people(1, time_zone="UTC", quiet_hours=MORNING)[0]
    schedule = ScheduleFactory()
    service.open()
    sets(person, None)
    service.at(NOW + 89 * MINUTE).step()
    assert states(schedule) == {"pending": 1}
    service.at(NOW + 90 * MINUTE).step()
    assert states(schedule) == {"sent": 1}


def test_a_retry_that_falls_into_quiet_hours_waits_for_their_end(service, provider):
    person = people(1, time_zone="UTC", quiet_hours={"from": "10:01", "to": "12:00"})[0]
    schedule = ScheduleFactory()
    service.open()
    provider.answers(Verdict.TRANSIENT)
    service.send()
    service.at(NOW + 2 * MINUTE).send()
    row = row_of(schedule, person)
    assert (row.reason, row.due_at, row.attempt) == ("quiet_hours", NOW + 2 * HOUR, 1)
    provider.reset()
    service.at(NOW + 2 * HOUR).send()
    assert (states(schedule), row_of(schedule, person).attempt) == ({"sent": 1}, 2)


def test_what_would_wait_longer_than_it_may_expires(service, provider):
    placed = people(1, time_zone="UTC", quiet_hours=MORNING)[0]
    claimed = people(1, time_zone="UTC")[0]
    schedule = ScheduleFactory(expires_after_minutes=60)
    service.open()
    sets(claimed, MORNING)
    service.send()
    assert reasons(schedule) == {"expired: waited_too_long": 1, "pending: quiet_hours": 1}
    assert "from 09:00 to 11:30, kept it" in wording.explanation(told_of(schedule, placed, service))
    service.at(NOW + HOUR).sweep()
    assert reasons(schedule) == {"expired: waited_too_long": 2}


def test_a_window_that_lies_in_the_quiet_hours_ends_it_with_a_reason(service, provider):
    window = {"days": EVERY_DAY, "from": "09:30", "to": "11:00"}
    placed = people(1, time_zone="UTC", quiet_hours=MORNING)[0]
    claimed = people(1, time_zone="UTC")[0]
    schedule = ScheduleFactory(send_window=window)
    told = forecast(definition=Definition.of(schedule), now=NOW - MINUTE)
    assert (told.targeted, told.expiring, [wave.people for wave in told.waves]) == (2, 1, [1])
    service.open()
    sets(claimed, MORNING)
    service.send()
    assert provider.messages() == []
    assert reasons(schedule) == {"expired: window_in_quiet_hours": 2}
    for person in (placed, claimed):
        story = told_of(schedule, person, service)
        assert story.code == Code.WINDOW_IN_QUIET_HOURS
        assert "quiet hours of this person" in wording.explanation(story)


def test_whoever_has_it_on_one_device_gets_it_on_the_other_in_quiet_hours_too(service, provider):
    person = people(1, time_zone="UTC")[0]
    first, second = DeviceFactory.create_batch(2, recipient=person)
    schedule = ScheduleFactory(channel="push")
    service.open()
    Delivery.objects.update(reached=str(first.pk))
    sets(person, MORNING)
    service.send()
    assert states(schedule) == {"sent": 1}
    assert [target.device_id for message in provider.messages() for target in message.targets] == [second.pk]


# --- What is told before, and edits -----------------------------------------------------------------------------------


def test_the_forecast_shows_the_waves_as_they_will_be(service):
    people(4, time_zone="UTC")
    people(2, time_zone="UTC", quiet_hours=MORNING)
    people(1, time_zone="Asia/Tokyo", quiet_hours={"from": "18:00", "to": "19:30"})
    people(1, time_zone="Asia/Tokyo", quiet_hours={"from": "18:00", "to": "17:00"})
    schedule = ScheduleFactory(expires_after_minutes=10 * 60, max_per_user_per_day=1)
    told = forecast(definition=Definition.of(schedule), now=NOW - MINUTE, editing=schedule.pk)
    assert [(wave.at, wave.people) for wave in told.waves] == [
        (NOW, 4),
        (NOW + 30 * MINUTE, 1),
        (NOW + 90 * MINUTE, 2),
    ]
    assert (told.targeted, told.expiring, told.attempted) == (8, 1, 7)
    service.open()
    assert reasons(schedule) == {"pending: ": 7, "expired: waited_too_long": 1}
    waves = dict(Delivery.objects.filter(state=0).values_list("recipient_id", "wave_at"))
    assert sorted(waves.values()) == [NOW] * 4 + [NOW + 30 * MINUTE] + [NOW + 90 * MINUTE] * 2


def test_an_hour_that_quiet_ones_move_is_not_past(service):
    people(1, time_zone="Asia/Tokyo")  # 19:00 there
    people(1, time_zone="Asia/Tokyo", quiet_hours={"from": "12:00", "to": "20:00"})
    definition = Definition.of(ScheduleFactory(run_at=NOW + 2 * HOUR, time_zone_mode="user_local"))
    assert [(share.zone, share.people) for share in past_zones(definition=definition, now=NOW)] == [("Asia/Tokyo", 1)]
    told = forecast(definition=definition, now=NOW)
    assert [(share.zone, share.people) for share in told.past] == [("Asia/Tokyo", 1)]
    assert [(wave.at, wave.people) for wave in told.waves] == [(NOW + HOUR, 1)]


def test_made_transactional_the_message_waits_for_nobodys_morning(service, provider):
    people(1, time_zone="UTC", quiet_hours=MORNING)
    schedule = ScheduleFactory()
    service.open()
    service.after(MINUTE)
    edit = service.update(schedule, purpose="transactional")
    assert [touched.effect for touched in edit.touched] == [Effect.RETIMED]
    service.materialise()
    service.send()
    assert states(schedule) == {"sent": 1}


def test_an_edit_of_who_gets_it_keeps_those_who_sleep(service, provider):
    people(1, time_zone="UTC", tags=["a"], quiet_hours=MORNING)
    schedule = ScheduleFactory()
    service.open()
    service.after(HOUR)
    service.update(schedule, audience_query={"field": "tags", "op": "contains", "value": "a"})
    service.materialise()
    assert Delivery.objects.get().due_at == NOW + 90 * MINUTE
    service.run_to(NOW + 2 * HOUR)
    assert states(schedule) == {"sent": 1}


def test_why_it_came_so_late_is_told_afterwards_and_not_once_the_hours_are_others(service, provider):
    person = people(1, time_zone="UTC", quiet_hours=MORNING)[0]
    schedule = ScheduleFactory()
    ahead = told_of(schedule, person, service)
    assert (ahead.code, ahead.promise.due_at) == (Code.NOT_DUE_YET, NOW + 90 * MINUTE)
    assert "kept it from coming" in wording.explanation(ahead)
    service.open()
    assert told_of(schedule, person, service).code == Code.WAITS_FOR_QUIET_HOURS
    service.run_to(NOW + 2 * HOUR)
    told = told_of(schedule, person, service)
    assert told.code == Code.SENT
    assert "kept it from coming at 2026-11-21 10:00:00 UTC" in wording.explanation(told)
    sets(person, LUNCH, at=service.now)
    assert told_of(schedule, person, service).quieted is None


def test_of_somebody_gone_nothing_is_told(service):
    person = people(1, time_zone="UTC", quiet_hours=MORNING)[0]
    schedule = ScheduleFactory()
    service.open()
    row = row_of(schedule, person)
    story = of_delivery(row, occurrence=only_occurrence(schedule), person=None, now=service.now)
    assert (story.code, story.quieted) == (Code.NOT_DUE_YET, None)


# --- What is kept -----------------------------------------------------------------------------------------------------


def test_they_belong_to_the_profile_with_who_set_them_and_when():
    person = recipients.create(external_id="anna", profile={"quiet_hours": NIGHT}, by=BY, now=NOW)
    assert person.quiet_hours == NIGHT
    source = {"by": BY, "at": NOW.isoformat()}
    assert person.quiet_hours_source == source
    recipients.update(recipient_id=person.pk, changes={"quiet_hours": NIGHT}, by="user:2", now=NOW + HOUR)
    person.refresh_from_db()
    assert (person.version, person.quiet_hours_source) == (1, source)
    recipients.replace(recipient_id=person.pk, profile={"locale": "de"}, by=BY, now=NOW + HOUR)
    person.refresh_from_db()
    assert (person.quiet_hours, person.locale) == (NIGHT, "de")  # silence takes nothing back
    recipients.replace(recipient_id=person.pk, profile={"quiet_hours": None}, by="user:2", now=NOW + 2 * HOUR)
    person.refresh_from_db()
    assert (person.quiet_hours, person.quiet_hours_source["by"]) == (None, "user:2")
    events = AuditEvent.objects.filter(action="recipient.save", payload_diff__recipient=person.pk).order_by("id")
    assert [event.payload_diff.get("quiet_hours") for event in events] == ["changed", None, "changed"]
    assert "22:00" not in str([event.payload_diff for event in events])
    held = holdings.export(recipient_id=person.pk, by=BY, now=NOW)
    assert held["profile"]["quietHours"] is None
    assert held["profile"]["quietHoursSource"]["by"] == "user:2"


@pytest.mark.parametrize("hours", [{"from": "07:00", "to": "07:00"}, {"from": "7", "to": "08:00"}, "night", [], False])
def test_what_are_none_is_refused_by_name(hours):
    with pytest.raises(InvalidRecipient) as refused:
        recipients.create(external_id="anna", profile={"quiet_hours": hours}, by=BY, now=NOW)
    assert [problem.field for problem in refused.value.problems] == ["quietHours"]
    assert not Recipient.objects.exists()


@pytest.mark.parametrize(
    "kept",
    [
        '{"from": "22:00", "to": "22:00"}',
        '{"from": "22:00"}',
        '{"from": "22:00", "to": "24:00"}',
        '{"from": "22:00", "to": "07:00", "days": 1}',
        '{"from": 22, "to": 7}',
        "null",
        '"22:00"',
        "{}",
    ],
)
def test_the_database_keeps_nothing_else(kept):
    person = RecipientFactory(quiet_hours=NIGHT)
    with pytest.raises(IntegrityError, match="quiet_hours_shape"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE schedules_recipient SET quiet_hours = %s::jsonb WHERE id = %s", [kept, person.pk])
    person.refresh_from_db()
    assert person.quiet_hours == NIGHT


def test_as_many_pairs_of_hours_and_zones_as_there_are_lie_each_at_their_own_instant(service):
    made = [
        RecipientFactory(time_zone=zone, quiet_hours={"from": "09:00", "to": f"1{hour}:00"})
        for zone in ("UTC", "Europe/London")
        for hour in range(1, 6)
    ]
    schedule = ScheduleFactory()
    service.open()
    waves = {person.pk: row_of(schedule, person).wave_at for person in made}
    assert sorted(waves.values()) == sorted(2 * [NOW + timedelta(hours=hour) for hour in range(1, 6)])
    assert isinstance(next(iter(waves.values())), datetime)

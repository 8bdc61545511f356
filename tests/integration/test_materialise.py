"""From an occurrence to its rows: who, when, in which batch, and what a failure leaves behind."""

from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from django.db import IntegrityError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from delivery import dispatch, materialise
from delivery.materialise import attempts
from delivery.models import Batch, Delivery, State, ZoneSource
from schedules.audience.sources import AudienceTooSlow, LocalSource
from schedules.models import Occurrence, OccurrenceState, Recipient
from tests.factories import NOW, RecipientFactory, ScheduleFactory, people
from tests.service import DAY, HOUR, MINUTE, only_occurrence, reasons, row_of, states

pytestmark = pytest.mark.django_db

# Offsets on 23 November 2026, written down rather than computed.
OFFSETS = {
    "Pacific/Kiritimati": 14,
    "Pacific/Chatham": 13.75,
    "Pacific/Tongatapu": 13,
    "Pacific/Auckland": 13,
    "Asia/Kathmandu": 5.75,
    "Asia/Kolkata": 5.5,
    "Europe/Berlin": 1,
    "UTC": 0,
    "America/New_York": -5,
    "America/Los_Angeles": -8,
    "Pacific/Marquesas": -9.5,
    "Pacific/Pago_Pago": -11,
}
MONDAY_NINE = datetime.fromisoformat("2026-11-23T09:00:00Z")


def user_local(**fields):
    return ScheduleFactory(**{"run_at": MONDAY_NINE, "time_zone_mode": "user_local", **fields})


def opened(service, schedule):
    """Go to where the schedule opens, and open it."""
    schedule.refresh_from_db()
    service.at(schedule.next_run_at).open()
    return only_occurrence(schedule)


# --- Instants --------------------------------------------------------------------------------------------------------


def test_in_fixed_mode_everyone_is_due_at_the_one_instant(service):
    for zone in OFFSETS:
        people(2, time_zone=zone)
    schedule = ScheduleFactory()
    service.open()
    occurrence = only_occurrence(schedule)
    assert (occurrence.state, occurrence.targeted, occurrence.materialised_at) == (OccurrenceState.RUNNING, 24, NOW)
    rows = Delivery.objects.values_list("wave_at", "due_at", "zone_source", "version", "attempt")
    assert set(rows) == {(NOW, NOW, ZoneSource.FIXED, 1, 0)}


def test_in_user_local_mode_each_is_due_at_the_wall_time_of_the_own_zone(service):
    persons = {zone: people(1, time_zone=zone)[0] for zone in OFFSETS}
    schedule = user_local()
    opened(service, schedule)
    for zone, offset in OFFSETS.items():
        row = row_of(schedule, persons[zone])
        assert row.wave_at == row.due_at == MONDAY_NINE - timedelta(hours=offset), zone
        assert row.zone_source == ZoneSource.PROFILE


@pytest.mark.parametrize(
    ("zone", "source"),
    [("", ZoneSource.MISSING), ("Mars/Olympus", ZoneSource.INVALID), ("europe/berlin", ZoneSource.INVALID)],
)
def test_a_missing_or_unknown_zone_falls_back_to_the_schedules_and_the_row_says_so(service, zone, source):
    person = RecipientFactory(time_zone=zone)
    schedule = user_local(time_zone="Asia/Kathmandu")
    opened(service, schedule)
    row = row_of(schedule, person)
    assert (row.wave_at, row.zone_source) == (MONDAY_NINE - timedelta(hours=5.75), source)


def test_each_person_is_sent_to_at_the_own_instant(service, provider):
    persons = {zone: people(1, time_zone=zone)[0] for zone in OFFSETS}
    schedule = user_local()
    service.run_to(MONDAY_NINE + DAY)
    assert states(schedule) == {"sent": len(OFFSETS)}
    for zone, person in persons.items():
        at = row_of(schedule, person).called_at
        assert abs(at - (MONDAY_NINE - timedelta(hours=OFFSETS[zone]))) < timedelta(seconds=1), zone


# --- Batches ---------------------------------------------------------------------------------------------------------


def test_a_wave_is_cut_into_batches_of_at_most_five_hundred(service):
    people(1_201)
    ScheduleFactory()
    service.open()
    batches = Batch.objects.order_by("id")
    assert sorted(batch.size for batch in batches) == [201, 500, 500]
    assert {(batch.wave_at, batch.next_due_at, batch.channel) for batch in batches} == {(NOW, NOW, "email")}


def test_batches_follow_the_buckets_of_the_counters(service):
    people(1_100)
    ScheduleFactory()
    service.open()
    spans = []
    for batch in Batch.objects.all():
        buckets = {pk % 64 for pk in Delivery.objects.filter(batch_id=batch.pk).values_list("recipient_id", flat=True)}
        spans.append((min(buckets), max(buckets)))
    assert all(before[1] <= after[0] for before, after in pairwise(sorted(spans)))


def test_waves_of_fifty_have_batches_of_their_own_and_smaller_ones_share(service):
    sizes = {"Asia/Kolkata": 50, "Europe/Berlin": 49, "UTC": 3, "America/New_York": 120}
    for zone, size in sizes.items():
        people(size, time_zone=zone)
    schedule = user_local()
    opened(service, schedule)
    own = {batch.wave_at: batch.size for batch in Batch.objects.exclude(wave_at=None)}
    assert own == {MONDAY_NINE - timedelta(hours=5.5): 50, MONDAY_NINE + 5 * HOUR: 120}
    shared = Batch.objects.get(wave_at=None)
    assert (shared.size, shared.next_due_at) == (52, MONDAY_NINE - HOUR)


def test_a_shared_batch_is_due_again_at_its_next_wave(service, provider):
    people(3, time_zone="Europe/Berlin")
    people(2, time_zone="UTC")
    schedule = user_local()
    opened(service, schedule)
    service.at(MONDAY_NINE - HOUR).send()
    assert states(schedule) == {"sent": 3, "pending": 2}
    assert Batch.objects.get().next_due_at == MONDAY_NINE
    service.at(MONDAY_NINE).send()
    assert states(schedule) == {"sent": 5}


# --- Too late already ------------------------------------------------------------------------------------------------


def half_past(**fields):
    """A user-local one-off made when nine o'clock has passed in Kolkata, though not in Berlin."""
    return user_local(now=MONDAY_NINE - 2 * HOUR, **fields)


def test_people_whose_local_time_has_passed_at_creation_are_counted_and_skipped(service, provider):
    early, late = RecipientFactory(time_zone="Asia/Kolkata"), RecipientFactory(time_zone="Europe/Berlin")
    schedule = half_past()
    service.at(MONDAY_NINE - 2 * HOUR).open()
    assert only_occurrence(schedule).targeted == 2
    service.run_to(MONDAY_NINE)
    assert reasons(schedule) == {"expired: past_zone": 1, "sent: ": 1}
    assert row_of(schedule, early).state == State.EXPIRED
    assert row_of(schedule, late).state == State.SENT


def test_people_whose_local_time_has_passed_are_sent_to_at_once_on_demand(service, provider):
    early, late = RecipientFactory(time_zone="Asia/Kolkata"), RecipientFactory(time_zone="Europe/Berlin")
    schedule = half_past(on_past="send_now")
    service.at(MONDAY_NINE - 2 * HOUR).step()
    assert (row_of(schedule, early).state, row_of(schedule, early).wave_at) == (State.SENT, MONDAY_NINE - 2 * HOUR)
    assert row_of(schedule, late).state == State.PENDING


def test_a_wave_past_the_grace_expires_because_the_service_was_down(service):
    people(1, time_zone="Asia/Kolkata")
    people(1, time_zone="Europe/Berlin")
    schedule = user_local()
    service.at(MONDAY_NINE - HOUR).open()
    assert reasons(schedule) == {"expired: down": 1, "pending: ": 1}


def test_a_wave_past_the_grace_expires_because_of_a_pause(service):
    people(1, time_zone="Asia/Kolkata")
    people(1, time_zone="Europe/Berlin")
    schedule = user_local()
    service.pause(schedule)
    service.at(MONDAY_NINE - HOUR).resume(schedule)
    service.open()
    assert reasons(schedule) == {"expired: paused": 1, "pending: ": 1}


def test_a_wave_past_the_grace_expires_because_of_a_pause_that_lasts(service):
    people(1, time_zone="Asia/Kolkata")
    people(1, time_zone="Europe/Berlin")
    schedule = user_local()
    schedule.refresh_from_db()
    service.at(schedule.next_run_at).tick()
    service.pause(schedule)
    service.at(MONDAY_NINE - HOUR).materialise()
    assert reasons(schedule) == {"expired: paused": 1, "pending: ": 1}


def test_a_wave_that_passed_after_the_pause_expires_because_the_service_was_down(service):
    people(1, time_zone="Pacific/Kiritimati")
    people(1, time_zone="Asia/Kolkata")
    people(1, time_zone="UTC")
    schedule = user_local()
    service.pause(schedule)
    service.at(MONDAY_NINE - 10 * HOUR).resume(schedule)
    service.at(MONDAY_NINE).open()
    assert reasons(schedule) == {"expired: paused": 1, "expired: down": 1, "pending: ": 1}


# --- Failures and doubles --------------------------------------------------------------------------------------------


def test_a_crash_in_the_middle_leaves_nothing_and_the_next_attempt_all(service, monkeypatch):
    people(700)
    schedule = ScheduleFactory()
    service.tick()
    occurrence_id = only_occurrence(schedule).pk
    with monkeypatch.context() as patched:
        patched.setattr(attempts, "_advance", crash)
        with pytest.raises(RuntimeError):
            materialise.materialise(occurrence_id=occurrence_id, now=NOW)
    assert not Batch.objects.exists()
    assert not Delivery.objects.exists()
    assert only_occurrence(schedule).targeted == 0
    service.materialise()
    assert states(schedule) == {"pending": 700}


def crash(*_, **__):
    raise RuntimeError("the process is gone")


def test_what_is_materialised_is_not_materialised_again(service):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    with pytest.raises(materialise.Superseded):
        materialise.materialise(occurrence_id=only_occurrence(schedule).pk, now=NOW)
    assert states(schedule) == {"pending": 3}


@pytest.mark.parametrize(
    "meanwhile",
    [
        {"version": 2},
        {"state": OccurrenceState.CANCELLED},
        {"opens_at": NOW + HOUR},
        {"cursor": "kept"},
        {"targeted": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whoever_changes_the_occurrence_meanwhile_wins(service, monkeypatch, meanwhile):
    people(3)
    schedule = ScheduleFactory()
    service.tick()

    def advance(*arguments, **keywords):
        Occurrence.objects.update(**meanwhile)
        original(*arguments, **keywords)

    original = attempts._advance
    monkeypatch.setattr(attempts, "_advance", advance)
    with pytest.raises(materialise.Superseded):
        materialise.materialise(occurrence_id=only_occurrence(schedule).pk, now=NOW)
    assert not Delivery.objects.exists()


def test_only_rows_that_exist_already_count_as_somebody_elses_work(service, monkeypatch):
    people(3)
    schedule = ScheduleFactory()
    service.tick()

    def spoil(*_, **__):
        Batch.objects.update(size=7)

    monkeypatch.setattr(attempts, "_advance", spoil)
    with pytest.raises(IntegrityError, match="batch_books_close"):
        materialise.materialise(occurrence_id=only_occurrence(schedule).pk, now=NOW)


def test_an_audience_that_takes_too_long_is_said_to(service, settings, monkeypatch):
    settings.MATERIALISE_STATEMENT_TIMEOUT = 20
    people(3)
    schedule = ScheduleFactory()
    service.tick()
    slow = "SELECT id, time_zone FROM schedules_recipient WHERE pg_sleep(0.1) IS NOT NULL"
    monkeypatch.setattr(LocalSource, "sql", lambda *_, **__: (slow, ()))
    with pytest.raises(AudienceTooSlow):
        materialise.materialise(occurrence_id=only_occurrence(schedule).pk, now=NOW)
    assert not Delivery.objects.exists()


def test_an_audience_that_took_too_long_is_not_looked_for_again_for_minutes(service, settings, monkeypatch):
    settings.MATERIALISE_STATEMENT_TIMEOUT = 20
    people(3)
    ScheduleFactory()
    service.tick()
    (pk,) = dispatch.to_materialise()
    slow = "SELECT id, time_zone FROM schedules_recipient WHERE pg_sleep(0.1) IS NOT NULL"
    monkeypatch.setattr(LocalSource, "sql", lambda *_, **__: (slow, ()))
    assert materialise.attempt(occurrence_id=pk, now=NOW) is None
    assert Occurrence.objects.get().reason == materialise.TOO_SLOW
    for minutes, waiting in ((4, []), (2, [pk])):
        Occurrence.objects.update(
            materialise_lease_until=F("materialise_lease_until") - minutes * MINUTE,
            materialise_queued_at=F("materialise_queued_at") - minutes * MINUTE,
        )
        assert dispatch.to_materialise() == waiting


def test_one_worker_has_the_lease_until_it_gives_it_back(service):
    schedule = ScheduleFactory()
    service.tick()
    pk = only_occurrence(schedule).pk
    assert materialise.lease(pk)
    assert not materialise.lease(pk)
    materialise.give_back(pk)
    assert materialise.lease(pk)


def test_a_cancelled_occurrence_has_no_lease_to_take(service):
    schedule = ScheduleFactory()
    service.tick()
    service.cancel(schedule)
    assert not materialise.lease(only_occurrence(schedule).pk)


def test_the_number_of_statements_does_not_depend_on_the_number_of_people(service):
    counts = []
    for size in (10, 990):
        people(size)
        schedule = ScheduleFactory()
        service.tick()
        with CaptureQueriesContext(connection) as queries:
            materialise.materialise(occurrence_id=only_occurrence(schedule).pk, now=NOW)
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- Who -------------------------------------------------------------------------------------------------------------


def test_the_audience_is_who_matches_when_it_is_materialised(service):
    people(3, tags=["vip"])
    people(4)
    schedule = ScheduleFactory(audience_query={"field": "tags", "op": "contains", "value": "vip"})
    service.tick()
    people(2, tags=["vip"])
    service.materialise()
    people(5, tags=["vip"])
    assert states(schedule) == {"pending": 5}


def test_two_occurrences_of_one_schedule_have_rows_of_their_own(service, provider):
    people(3)
    schedule = ScheduleFactory(cron="*/5 * * * *")
    service.run_to(NOW + 11 * MINUTE)
    ids = schedule.occurrences.values_list("pk", flat=True)
    assert Counter(row.occurrence_id for row in Delivery.objects.all()) == dict.fromkeys(ids, 3)
    assert set(provider.reached().values()) == {2}
    assert Recipient.objects.count() == 3

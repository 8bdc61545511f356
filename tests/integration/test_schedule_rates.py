"""A schedule's own rate: people a minute over all processes, evenly, and nobody else waits for it."""

import random

import pytest
from django.db import IntegrityError, transaction

from delivery import counters, pace, progress
from delivery.counters import CountersAway
from delivery.forecast import forecast
from delivery.models import Batch, Delivery, State
from schedules.definition import Definition
from schedules.models import Schedule
from tests.factories import NOW, ScheduleFactory, people
from tests.service import MINUTE, in_threads, only_occurrence, states

pytestmark = pytest.mark.django_db


@pytest.fixture
def unused():
    """The id of a schedule that nobody has sent for."""
    return random.SystemRandom().getrandbits(60)


def passes(seconds, schedule_id):
    """Let time go by for the schedule's bucket."""
    client, key = counters._client(), f"{{pace}}:schedule:{schedule_id}"
    client.hset(key, "room_at", int(client.hget(key, "room_at")) - round(1000 * seconds))


def tagged(tag):
    return {"field": "tags", "op": "contains", "value": tag}


@pytest.mark.parametrize("rate", [0, -1])
def test_the_database_keeps_no_rate_of_nobody(rate):
    schedule = ScheduleFactory(max_per_minute=1)
    with pytest.raises(IntegrityError), transaction.atomic():
        Schedule.objects.filter(pk=schedule.pk).update(max_per_minute=rate)


# --- The bucket ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_minute", [1, 10, 60, 600, 6_000])
def test_in_any_time_goes_what_the_rate_makes_of_it_and_one_bucket(unused, per_minute):
    def take():
        return pace.take_some(unused, 50, per_minute=per_minute)

    taken = sum(take() for _ in range(40))
    assert taken <= pace.bucket_of(per_minute) + per_minute  # it is slow, but takes no minute
    for _ in range(6):
        passes(10, unused)
        taken += sum(take() for _ in range(40))
    assert per_minute * 0.4 <= taken <= 3 * per_minute + pace.bucket_of(per_minute)


def test_processes_share_it(unused):
    taken = in_threads(*[lambda: pace.take_some(unused, 50, per_minute=60)] * 8)
    assert 5 <= sum(taken) <= 5 + 60


def test_each_schedule_has_its_own(unused):
    assert pace.take_some(unused, 50, per_minute=12) == pace.take_some(unused + 1, 50, per_minute=12) == 1


# --- Sending ---------------------------------------------------------------------------------------------------------


def test_who_finds_no_room_waits_without_an_attempt_and_keeps_nobody_else(service, provider):
    people(80, tags=["slow"])
    people(30, tags=["quick"])
    slow = ScheduleFactory(audience_query=tagged("slow"), max_per_minute=120)  # a bucket of ten
    quick = ScheduleFactory(audience_query=tagged("quick"))
    service.open()
    service.send()
    assert states(quick) == {"sent": 30}
    sent = states(slow)["sent"]
    assert 10 <= sent < 80
    rows = Delivery.objects.filter(occurrence_id=only_occurrence(slow).pk, state=0)
    assert set(rows.values_list("attempt", "reason", "due_at")) == {(0, "", NOW)}
    assert not Batch.objects.exclude(queued_at=None).exists()
    for _ in range(20):
        passes(5, slow.pk)
        service.send()
    assert states(slow) == {"sent": 80}
    assert set(provider.reached().values()) == {1}


def test_of_a_slow_run_only_seconds_are_queued(service, settings):
    settings.BATCH_SIZE = 10
    people(200)
    ScheduleFactory(max_per_minute=300)
    service.open()
    handouts = service.publish()
    assert sum(len(handout.batch_ids) for handout in handouts) == 2  # four seconds are 20 people


def test_another_rate_counts_at_once(service, provider):
    people(80)
    schedule = ScheduleFactory(max_per_minute=12)
    service.open()
    service.send()
    assert states(schedule)["sent"] < 80
    service.update(schedule, max_per_minute=None)
    service.send()
    assert states(schedule) == {"sent": 80}


def test_without_the_counters_a_schedule_with_a_rate_waits(service, provider, monkeypatch):
    def away(*_, **__):
        raise CountersAway("gone")

    people(3)
    schedule = ScheduleFactory(max_per_minute=600)
    service.open()
    with monkeypatch.context() as patched:
        patched.setattr(pace, "take_some", away)
        service.send()
        assert states(schedule) == {"pending": 3}
    service.send()
    assert states(schedule) == {"sent": 3}


# --- What is told ----------------------------------------------------------------------------------------------------


def test_the_end_is_told_by_the_rate(service, provider):
    people(80)
    schedule = ScheduleFactory(max_per_minute=60)
    told = forecast(definition=Definition.of(schedule), now=NOW - MINUTE)
    assert (told.duration.rate, told.duration.seconds) == (1, 80)
    service.open()
    service.send()
    occurrence = only_occurrence(schedule)
    sent = states(schedule)["sent"]
    counted = {state.label: 0 for state in State} | {"pending": 80 - sent, "sent": sent}
    found = progress.of(occurrence, counted=counted, now=service.now)
    assert (found.eta - service.now).total_seconds() >= 80 - sent

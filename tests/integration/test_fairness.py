"""Runs that compete for a channel: none waits for another's million, and equal ones get equal shares."""

from collections import Counter
from datetime import UTC, datetime

import pytest
from django.db import connection

from delivery import accounts, circuits, dispatch, sending
from delivery.models import Batch, ProviderAccount
from tests.factories import NOW, ScheduleFactory, people
from tests.service import MINUTE, states

pytestmark = pytest.mark.django_db


@pytest.fixture
def narrow(settings, monkeypatch):
    """A queue of a hundred rows, in batches of ten; nothing is left to chance."""
    settings.BATCH_SIZE, settings.PUBLISH_WINDOW_ROWS = 10, 100
    monkeypatch.setattr(dispatch, "LARGE_TOO", 0)


def tagged(tag):
    return {"field": "tags", "op": "contains", "value": tag}


def schedule(tag, number, *, at=NOW, **fields):
    people(number, tags=[tag])
    return ScheduleFactory(name=tag, run_at=at, audience_query=tagged(tag), **fields)


def queued():
    """Rows that are queued, by the name of their schedule."""
    found = Counter()
    for name, rows in Batch.objects.exclude(queued_at=None).values_list("occurrence__schedule__name", "pending"):
        found[name] += rows
    return found


def send(batch_ids):
    sending.send(batch_ids=list(batch_ids))


def first(handouts):
    return [batch_id for handout in handouts for batch_id in handout.batch_ids]


def test_who_comes_later_is_next_however_much_is_left_of_the_others(service, narrow, provider):
    schedule("huge", 600)
    service.open()
    service.publish()
    assert queued() == {"huge": 100}
    for number in range(3):
        schedule(f"small {number}", 10, at=NOW + MINUTE)
    service.at(NOW + MINUTE).open()
    assert service.publish() == []  # the queue is full, and stays short
    send(Batch.objects.exclude(queued_at=None).order_by("id").values_list("pk", flat=True)[:4])
    taken = first(service.publish())
    batches = Batch.objects.in_bulk(taken)
    names = [batches[pk].occurrence.schedule.name for pk in taken]
    assert names == ["small 0", "small 1", "small 2", "huge"]
    assert queued() == {"huge": 70, "small 0": 10, "small 1": 10, "small 2": 10}


def test_equal_runs_get_equal_shares_of_the_queue(service, narrow, provider):
    schedule("early", 300)
    service.open()
    service.publish()
    schedule("late", 300, at=NOW + MINUTE)
    service.at(NOW + MINUTE).open()
    served = Counter()
    for _ in range(20):
        batches = list(Batch.objects.exclude(queued_at=None).order_by("queued_at", "id")[:2])
        served.update(batch.occurrence.schedule.name for batch in batches)
        send([batch.pk for batch in batches])
        service.publish()
    assert queued()["early"] == queued()["late"] == 50
    assert served["early"] - served["late"] <= 10  # what was queued before the other came


def test_a_large_batch_waits_for_small_ones_but_not_for_ever(service, settings, provider):
    settings.BATCH_SIZE, settings.PUBLISH_WINDOW_ROWS = 50, 60
    schedule("large", 50)
    for number in range(5):
        schedule(f"small {number}", 5)
    service.open()
    first_of = Counter()
    for _ in range(300):
        with connection.cursor() as cursor:
            taken = dispatch._take("email", by=service.now, window=1)
            cursor.execute("UPDATE delivery_batch SET queued_at = NULL")
        first_of[Batch.objects.get(pk=taken[0][0]).occurrence.schedule.name] += 1
    assert 1 <= first_of["large"] <= 60  # 19 on the average
    assert set(first_of) == {"large", "small 0"}  # these are all due at one instant


def test_runs_that_are_held_back_hide_nobody(service, narrow, monkeypatch):
    monkeypatch.setattr(dispatch, "BATCHES_SEEN", 5)
    held = schedule("held", 200)
    service.open()
    service.pause(held)
    schedule("small", 10, at=NOW + MINUTE)
    service.at(NOW + MINUTE).open()
    service.publish()
    assert queued() == {"small": 10}


def test_of_a_paced_channel_a_few_seconds_are_queued(service, settings, provider):
    settings.BATCH_SIZE = 10
    settings.MOST_PER_S = {"email": 5.0, "push": None}
    schedule("huge", 300)
    service.open()
    handouts = service.publish()
    assert queued() == {"huge": 20}  # four seconds
    assert [len(handout.batch_ids) for handout in handouts] == [2]
    settings.MOST_PER_S = {"email": None, "push": None}
    service.publish()
    assert queued() == {"huge": 300}


def test_the_rate_that_is_known_is_the_least_of_setting_and_account(settings):
    settings.MOST_PER_S = {"email": 50.0}
    assert accounts.known_rate("email") == 50.0
    ProviderAccount.objects.create(scope="email", per_s=14.0, read_at=datetime(2026, 11, 21, tzinfo=UTC))
    assert accounts.known_rate("email") == 14.0
    settings.MOST_PER_S = {}
    assert accounts.known_rate("email") == 14.0
    assert accounts.known_rate("push") is None


def test_of_several_providers_the_rate_is_that_of_the_one_asked_at_present(settings):
    settings.PROVIDERS = {**settings.PROVIDERS, "email": "ses,smtp"}
    assert accounts.known_rate("email") is None
    ProviderAccount.objects.create(scope="email:ses", per_s=14.0, read_at=datetime(2026, 11, 21, tzinfo=UTC))
    assert accounts.known_rate("email") == 14.0
    circuits.open_circuit("email:ses", reason="quota", detail="", now=NOW)
    assert accounts.known_rate("email") is None


def test_everybody_is_sent_to_all_the_same(service, narrow, provider):
    runs = [schedule(f"run {number}", 95) for number in range(4)]
    service.open()
    service.send(rounds=99)
    assert [states(run) for run in runs] == [{"sent": 95}] * 4
    assert set(provider.reached().values()) == {1}

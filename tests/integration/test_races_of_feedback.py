"""Two who settle the same events, at once and in any order, with the sweep beside them."""

import random
from datetime import UTC, datetime

import pytest

from delivery import counts, reopening
from delivery.events import settling
from delivery.events.base import Kind
from delivery.models import Delivery, Feedback
from delivery.providers.base import Verdict
from schedules.models import SoftBounce, Suppression
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.provider_events import assert_counted, event
from tests.races import leases_expire, sweeping_now
from tests.service import in_threads, only_occurrence, reasons

pytestmark = pytest.mark.django_db(transaction=True)

KINDS = [Kind.SEND, Kind.DELAY, Kind.DELIVERY, Kind.BOUNCE_SOFT, Kind.BOUNCE_HARD, Kind.COMPLAINT]


def settling_of(events, *, portions, seed):
    """The events in an order of its own, some at a time."""

    def run():
        order = random.Random(seed).sample(events, len(events))
        done = [settling.settle(order[at : at + portions], now=NOW) for at in range(0, len(order), portions)]
        return sum(each.new for each in done)

    return run


def counter(name, label=""):
    return counts.read().get(counts.Key(name, "email", label), 0)


def test_of_four_who_settle_the_same_events_each_event_is_new_to_one(service, provider):
    people(30)
    schedule = ScheduleFactory()
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    service.step()
    now = datetime.now(UTC)
    events = [event(kind, row, at=now) for row in Delivery.objects.all() for kind in KINDS]
    news = in_threads(
        settling_of(events, portions=7, seed=1),
        settling_of(events, portions=1, seed=2),
        settling_of(events, portions=180, seed=3),
        settling_of(events, portions=10, seed=4),
        sweeping_now,
    )
    assert sum(news[:4]) == len(events)
    assert reasons(schedule) == {"sent: confirmed": 30}
    assert counter(counts.DELIVERED) == counter(counts.COMPLAINED) == counter(counts.BOUNCED, "hard") == 30
    assert set(Suppression.objects.values_list("reason", flat=True)) == {"complained"}
    assert (Suppression.objects.count(), SoftBounce.objects.count(), Feedback.objects.count()) == (30, 30, 30)
    assert_books_close()
    assert_counted()


def test_what_is_given_up_while_it_is_confirmed_ends_as_sent(service, provider):
    people(40)
    schedule = ScheduleFactory()
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    service.step()
    leases_expire()
    events = [event(Kind.DELIVERY, row) for row in Delivery.objects.all()]
    in_threads(settling_of(events, portions=5, seed=1), sweeping_now, settling_of(events, portions=3, seed=2))
    assert reasons(schedule) == {"sent: confirmed": 40}
    assert_books_close()


def test_who_is_tried_again_while_it_is_confirmed_is_one_or_the_other(service, provider):
    people(40)
    schedule = ScheduleFactory()
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    service.step()
    leases_expire()
    service.sweep()
    run = only_occurrence(schedule)
    events = [event(Kind.DELIVERY, row) for row in Delivery.objects.all()]
    in_threads(
        settling_of(events, portions=4, seed=1),
        lambda: reopening.retry_failed(occurrence_id=run.pk, by=BY, now=NOW),
    )
    found = reasons(schedule)
    assert found["sent: confirmed"] + found["pending: "] == 40
    assert_books_close()
    assert_counted()

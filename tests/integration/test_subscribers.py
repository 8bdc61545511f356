"""What subscribers are told: everything that was committed, once, and nothing else."""

import json
from collections import Counter
from datetime import timedelta

import pytest
from django.db import transaction

from delivery import erasure, figures, reopening, sending, untold
from delivery.endpoint_models import Endpoint, Event, EventType, Posting, Report, ToldBatch
from delivery.models import Batch, Delivery, News
from delivery.providers.base import Verdict
from delivery.subscribers import calling, operations, outcomes, payloads, telling
from schedules import operations as schedule_operations
from schedules.models import Recipient
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.http_double import HttpDouble
from tests.service import HOUR, MINUTE, only_occurrence
from tests.subscribers import LOOPBACK, subscribed

pytestmark = pytest.mark.django_db
SETTLED, REPORTED = EventType.DELIVERIES_SETTLED, EventType.DELIVERIES_REPORTED


@pytest.fixture
def double(settings):
    settings.OUTGOING_ALLOWED_NETWORKS = LOOPBACK
    with HttpDouble() as double:
        yield double


def tell() -> list[Event]:
    """What the two tasks of a few seconds make of what has happened; the new events, in their order."""
    last = Event.objects.order_by("pk").values_list("pk", flat=True).last() or 0
    while figures.count():
        pass
    while telling.tell():
        pass
    return list(Event.objects.filter(pk__gt=last).order_by("pk"))


def told(events: list[Event]) -> list[tuple[str, str]]:
    """Each outcome that they tell: the delivery, and what became of it."""
    return [
        (item["deliveryId"], item["state"])
        for event in events
        if event.type == SETTLED
        for item in event.data["deliveries"]
    ]


def key_of(row: Delivery) -> str:
    return outcomes.delivery_id(row.day, row.occurrence_id, row.recipient_id)


def test_a_run_is_told_from_its_start_over_each_outcome_to_its_end_with_its_books(service, provider, double):
    subscribed(double)
    people(3)
    schedule = ScheduleFactory()
    service.run_to(NOW + HOUR)
    run = only_occurrence(schedule)
    started, settled, finished = tell()
    assert [started.type, settled.type, finished.type] == [
        "occurrence.started",
        "deliveries.settled",
        "occurrence.finished",
    ]
    named = {"scheduleId": schedule.pk, "scheduleName": schedule.name, "occurrenceId": run.pk}
    for event in (started, settled, finished):
        assert named.items() <= event.data.items()
    assert started.data["targeted"] == 3
    assert sorted(told([settled])) == sorted((key_of(row), "sent") for row in Delivery.objects.all())
    (state, targeted, by_outcome) = (finished.data[name] for name in ("state", "targeted", "outcomes"))
    assert (state, targeted, by_outcome["sent"], sum(by_outcome.values())) == ("finished", 3, 3, 3)
    assert not tell()


def test_nothing_is_noted_and_nothing_told_while_nobody_listens(service, provider):
    people(3)
    ScheduleFactory()
    service.run_to(NOW + HOUR)
    untold.reported([untold.News(NOW.date(), 1, 1, News.DELIVERED, NOW)])
    assert not tell()
    assert not ToldBatch.objects.exists()
    assert not Report.objects.exists()


def test_whoever_comes_is_told_of_what_happens_from_then_on(service, provider, double):
    people(2)
    schedule = ScheduleFactory()
    service.run_to(NOW + HOUR)
    figures.count()
    endpoint = subscribed(double, now=service.now + MINUTE)
    assert not tell()
    later = ScheduleFactory(run_at=service.now + HOUR)
    service.run_to(service.now + 2 * HOUR)
    events = tell()
    assert {event.data["scheduleId"] for event in events} == {later.pk} != {schedule.pk}
    assert Posting.objects.filter(endpoint=endpoint).count() == len(events) == 3


def test_each_endpoint_gets_what_it_has_asked_for_and_one_that_is_off_nothing(service, provider, double):
    ends = subscribed(double, "occurrence.finished")
    everything = subscribed(double)
    off = subscribed(double)
    operations.switch_off(endpoint_id=off.pk, by=BY, now=NOW)
    people(1)
    ScheduleFactory()
    service.run_to(NOW + HOUR)
    tell()
    by_endpoint = Counter(Posting.objects.values_list("endpoint", flat=True))
    assert by_endpoint == {ends.pk: 1, everything.pk: 3}


def test_every_outcome_of_thousands_is_told_once_whatever_comes_between(service, provider, double, settings):
    """All fail, in part before the teller looks and in part after; then all are resent by hand."""
    settings.BATCH_SIZE, settings.BRAKE_FAILURES = 100, 10_000
    subscribed(double)
    people(2_500)
    schedule = ScheduleFactory()
    provider.answers(Verdict.PERMANENT)
    service.open()
    sending.send(batch_ids=service.publish()[0].batch_ids[:9])
    before = tell()
    assert 0 < len(told(before)) < 2_500
    service.after(MINUTE).sweep()
    Batch.objects.update(queued_at=None)
    service.send(rounds=30)
    service.sweep()
    rows = [key_of(row) for row in Delivery.objects.all()]
    assert len(rows) == 2_500
    assert Counter(told(before) + told(tell())) == Counter((row, "failed") for row in rows)

    provider.reset()
    reopening.retry_failed(occurrence_id=only_occurrence(schedule).pk, by=BY, now=service.now)
    service.send(rounds=30)
    service.sweep()
    events = tell()
    assert Counter(told(events)) == Counter((row, "sent") for row in rows)
    assert events[-1].type == "occurrence.finished"
    assert events[-1].data["outcomes"]["sent"] == 2_500


def test_an_event_has_a_bounded_number_of_outcomes_and_bytes(service, provider, double, monkeypatch):
    monkeypatch.setattr(outcomes, "MOST_OUTCOMES", 4)
    subscribed(double, SETTLED)
    people(9)
    ScheduleFactory()
    service.run_to(NOW + HOUR)
    assert [len(event.data["deliveries"]) for event in tell() if event.type == SETTLED] == [4, 4, 1]


def test_the_longest_ids_make_no_event_larger_than_promised(service, provider, double):
    subscribed(double, SETTLED)
    for number in range(400):
        Recipient.objects.create(external_id=f"{number:03}" + '"' * 100 + "\U0001f600" * 97, email="a@example.com")
    ScheduleFactory()
    service.run_to(NOW + HOUR)
    events = tell()
    sizes = [len(payloads.body(event)) for event in events if event.type == SETTLED]
    assert sum(len(event.data["deliveries"]) for event in events if event.type == SETTLED) == 400
    assert max(sizes) <= 256_000
    assert len(sizes) > 1


def test_people_are_named_when_it_is_sent_and_no_more_once_they_are_erased(service, provider, double):
    subscribed(double, SETTLED)
    eva, _ = people(2)
    ScheduleFactory()
    service.run_to(NOW + HOUR)
    event = tell()[1]
    assert eva.external_id not in json.dumps(event.data)
    named = {item["recipient"] for item in json.loads(payloads.body(event))["data"]["deliveries"]}
    assert eva.external_id in named
    erasure.forget(recipient_id=eva.pk, by=BY, now=service.now)
    items = json.loads(payloads.body(event))["data"]["deliveries"]
    assert [item["recipient"] for item in items if item["recipientId"] == eva.pk] == [None]


def test_what_providers_report_is_told_once_in_one_event_for_each_run(service, provider, double):
    subscribed(double, REPORTED)
    people(2)
    ScheduleFactory()
    service.run_to(NOW + HOUR)
    tell()
    news = [
        untold.News(row.day, row.occurrence_id, row.recipient_id, News.DELIVERED, NOW) for row in Delivery.objects.all()
    ]
    untold.reported(news)
    (event,) = tell()
    assert event.type == REPORTED
    assert {(item["news"], item["at"]) for item in event.data["deliveries"]} == {("delivered", "2026-11-21T10:00:00Z")}
    assert len(event.data["deliveries"]) == 2
    assert Posting.objects.filter(event=event).count() == 1
    assert not tell()


def test_a_cancelled_run_ends_as_cancelled(service, provider, double):
    subscribed(double, "occurrence.finished")
    people(1)
    schedule = ScheduleFactory()
    service.open()
    service.cancel(schedule)
    service.sweep()
    service.sweep()
    (event,) = [each for each in tell() if each.type == "occurrence.finished"]
    assert (event.data["state"], event.data["outcomes"]["cancelled"]) == ("cancelled", 1)


def test_what_was_noted_and_rolled_back_is_told_to_nobody(service, provider, double):
    subscribed(double)
    with transaction.atomic():
        untold.reported([untold.News(NOW.date(), 1, 1, News.DELIVERED, NOW)])
        untold.closed([1])
        transaction.set_rollback(True)
    assert not tell()


@pytest.mark.django_db(transaction=True)
def test_changes_of_schedules_are_told_from_the_audit_by_the_names_of_their_fields(service, double):
    kept = subscribed(double, "schedule.changed")
    schedule = ScheduleFactory(run_at=NOW + HOUR, now=NOW + MINUTE)
    service.after(MINUTE)
    service.update(schedule, name="Sale", audience_query={"field": "external_id", "op": "eq", "value": "eva"})
    service.pause(schedule)
    service.resume(schedule)
    schedule_operations.delete(schedule_id=schedule.pk, by=BY, now=service.now)
    events = tell()
    assert [event.data["action"] for event in events] == ["created", "updated", "paused", "resumed", "deleted"]
    assert events[1].data["fields"] == ["audienceQuery", "name"]
    assert "eva" not in json.dumps([event.data for event in events])
    assert Posting.objects.filter(endpoint=kept).count() == 5
    assert not tell()


@pytest.mark.django_db(transaction=True)
def test_a_database_that_was_restored_tells_on(service, double):
    subscribed(double, "schedule.changed")
    telling.AuditPlace.objects.update(tx=2**40)
    assert not tell()
    ScheduleFactory(run_at=NOW + HOUR, now=NOW + MINUTE)
    assert [event.data["action"] for event in tell()] == ["created"]


def test_after_its_retention_everything_of_an_event_goes(service, provider, double):
    subscribed(double)
    people(1)
    ScheduleFactory()
    service.run_to(NOW + HOUR)
    tell()
    for lease in calling.take():
        calling.serve(lease, ends_at=float("inf"))
    young = Event.objects.latest("pk")
    Event.objects.exclude(pk=young.pk).update(created_at=young.created_at - timedelta(days=31))
    assert operations.purge(before=young.created_at - timedelta(days=30)) == 2
    assert list(Event.objects.all()) == [young]
    assert Posting.objects.count() == 1
    assert Endpoint.objects.count() == 1

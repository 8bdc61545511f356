"""Beat where the machine's clock is put back: what was to come in a second does not come in an hour."""

from datetime import timedelta

import pytest
from celery.beat import event_t
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from scheduler_project import beat
from scheduler_project.celery import app

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = timedelta(hours=1)


@pytest.fixture
def scheduler(monkeypatch):
    """Runs by its entries in the database; what is due is noted instead of being sent."""
    second, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.get_or_create(name="tick", defaults={"task": "delivery.tick", "interval": second})
    made = beat.Scheduler(app=app)
    made.sent = []
    monkeypatch.setattr(made, "apply_entry", lambda entry, producer=None: made.sent.append(entry.name))
    monkeypatch.setattr(type(made), "producer", None)
    return made


def turn(scheduler: beat.Scheduler, *, most: int = 50) -> float:
    """Turns until nothing is due; return the pause that the last one asks for."""
    for _ in range(most):
        if pause := scheduler.tick():
            return float(pause)
    raise AssertionError("something is due for ever")


def put_clock_back(scheduler: beat.Scheduler, by: timedelta) -> None:
    """The clock's readings stay as they are, so what was noted of it goes ahead instead."""
    for event in scheduler._heap:
        event.entry.last_run_at = event.entry.model.last_run_at = event.entry.last_run_at + by
    scheduler._heap = [event_t(time + by.total_seconds(), *rest) for time, *rest in scheduler._heap]


def test_a_clock_put_back_by_an_hour_costs_no_hour(scheduler):
    turn(scheduler)
    put_clock_back(scheduler, HOUR)
    scheduler.sent.clear()
    assert turn(scheduler) <= 1
    assert not any(event.entry.last_run_at > event.entry.default_now() for event in scheduler._heap)


def test_what_another_beat_wrote_down_by_a_clock_that_is_ahead_holds_nothing_up(scheduler):
    PeriodicTask.objects.update(last_run_at=timezone.now() + HOUR)
    later = beat.Scheduler(app=app)
    assert {entry.last_run_at > entry.default_now() for entry in later.schedule.values()} == {True}
    later.tick()
    later.tick()
    assert not any(entry.last_run_at > entry.default_now() for entry in later.schedule.values())

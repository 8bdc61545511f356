"""The one clock: the database's time, carried on between two readings, and shifted by the test clock alone."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.core.checks import run_checks
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from delivery import advance
from schedules import clock
from schedules.models import TestClock as ShiftOfClock
from tests.service import DAY, HOUR

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def fresh():
    clock.forget()
    yield
    clock.forget()


@pytest.fixture
def test_clock(settings):
    settings.TEST_CLOCK = True


def database_time():
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


def test_the_clock_shows_the_databases_time_in_utc():
    now = clock.now()
    assert now.tzinfo is UTC
    assert abs(database_time() - now) < SECOND


def test_the_database_is_asked_now_and_then_and_time_goes_on_between():
    with CaptureQueriesContext(connection) as queries:
        readings = []
        for _ in range(20):
            readings.append(clock.now())
            time.sleep(0.002)
    assert len(queries) == 1
    assert readings == sorted(set(readings))


def test_an_answer_of_the_database_is_not_carried_on_for_ever(monkeypatch):
    clock.now()
    monkeypatch.setattr(clock, "_CARRY_S", 0.0)
    with CaptureQueriesContext(connection) as queries:
        clock.now()
    assert len(queries) == 1


def test_every_thread_asks_for_itself():
    clock.now()
    asked = []

    def read():
        with CaptureQueriesContext(connection) as queries:
            clock.now()
        asked.append(len(queries))
        connections.close_all()

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert asked == [1]


@pytest.mark.parametrize("change", [lambda: clock.advance_to(datetime(2040, 1, 1, tzinfo=UTC)), clock.reset])
def test_where_the_test_clock_is_off_nobody_moves_it(change):
    with pytest.raises(clock.ClockDisabled, match="TEST_CLOCK=1"):
        change()


def test_a_shift_left_behind_counts_only_where_the_test_clock_is_on(settings):
    ShiftOfClock.objects.create(id=1, shift=DAY)
    assert clock.shift() == timedelta(0)
    assert abs(clock.now() - database_time()) < SECOND
    settings.TEST_CLOCK = True
    clock.forget()
    assert clock.shift() == DAY
    assert abs(clock.now() - database_time() - DAY) < SECOND


def test_the_test_clock_goes_to_an_instant_and_runs_on(test_clock):
    noon = datetime(2040, 1, 1, 12, tzinfo=UTC)
    clock.advance_to(noon)
    first = clock.now()
    assert timedelta(0) <= first - noon < SECOND
    time.sleep(0.01)
    assert clock.now() > first
    clock.advance_to(noon + HOUR)
    assert timedelta(0) <= clock.now() - noon - HOUR < SECOND
    assert ShiftOfClock.objects.count() == 1


def test_an_instant_that_passes_while_the_clock_is_put_forward_is_reached_all_the_same(test_clock, monkeypatch):
    advance_to = clock.advance_to

    def slowly(instant: datetime) -> None:
        time.sleep(0.05)
        advance_to(instant)

    monkeypatch.setattr(clock, "advance_to", slowly)
    soon = clock.now() + timedelta(seconds=0.02)
    *_, reached = advance.advance(to=soon, drive=lambda: None)
    assert reached >= soon


def test_the_test_clock_never_goes_back_but_by_its_reset(test_clock):
    clock.advance_to(datetime(2040, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="only 'reset' goes back"):
        clock.advance_to(datetime(2039, 12, 31, tzinfo=UTC))
    clock.reset()
    assert abs(clock.now() - database_time()) < SECOND
    clock.reset()


def test_every_process_follows_a_shift_within_a_moment(test_clock):
    clock.now()
    ShiftOfClock.objects.create(id=1, shift=DAY)  # as another process would
    time.sleep(0.05)
    assert abs(clock.now() - database_time() - DAY) < SECOND


def test_the_test_clock_must_not_reach_production(test_clock):
    problems = {problem.id for problem in run_checks(include_deployment_checks=True)}
    assert "delivery.E002" in problems

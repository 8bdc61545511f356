"""When a process that gives no sign of life has to end, and when it must not."""

import time

import pytest

from scheduler_project import watch

STEP = watch.LOOK_S


@pytest.fixture(autouse=True)
def life(monkeypatch):
    monkeypatch.setattr(watch._Life, "seen", time.monotonic())


def looks(seconds, *, answers=lambda: True, excused_s=lambda: 0.0, step=STEP):
    """After how many seconds without a sign it ends; None: not within ``seconds``."""
    watcher = watch.Watch(kind="worker", answers=answers, finish=lambda: None, excused_s=excused_s)
    begun = watch._Life.seen = watcher._looked = time.monotonic()
    for number in range(1, int(seconds / step) + 1):
        if watcher.look(now=begun + number * step):
            return number * step
    return None


def test_a_minute_of_silence_while_the_broker_answers_ends_it():
    assert looks(600) == 65


def test_what_is_at_work_may_be_silent_for_as_long_as_a_task_may_last():
    assert looks(600, excused_s=lambda: 600.0) is None
    assert looks(1_000, excused_s=lambda: 600.0) == 665


def test_time_without_a_broker_does_not_count():
    assert looks(3_600, answers=lambda: False) is None
    away = iter([False] * 20)
    assert looks(600, answers=lambda: next(away, True)) > 65 + 20 * STEP


def test_time_in_which_the_process_stood_still_does_not_count():
    assert looks(3_600, step=100) is None


def test_a_sign_of_life_begins_it_anew():
    watcher = watch.Watch(kind="beat", answers=lambda: True, finish=lambda: None, excused_s=lambda: 0.0)
    begun = watch._Life.seen = watcher._looked = time.monotonic()
    for number in range(1, 100):
        assert not watcher.look(now=begun + number * STEP)
        watch._Life.seen = begun + number * STEP

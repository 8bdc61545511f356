"""How far django-celery-beat's own scheduler comes with an entry for each schedule.

    python -m benchmarks.stock_beat [--entries 1000,10000,100000,500000] [--limit 600]

For each number of entries a beat with its ``DatabaseScheduler`` starts, alone on the machine; a thousand of the entries
are due every minute, the others once a day. ``start`` goes by until its first message; ``late_p99`` is how long after a
whole minute the messages of 990 of the thousand are in the broker, over two minutes; ``edit`` for how long it sends
nothing once a single entry was changed. What is not reached within ``--limit`` seconds is left out, with larger
numbers. In the same run: our tick with as many schedules, of which a thousand are due (``benchmarks.tick``).
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import redis
from django.conf import settings
from django.utils import timezone

from benchmarks import people, processes, tick
from benchmarks.environment import PROJECT
from benchmarks.harness import emit, execute, note, prepare
from benchmarks.runs import ending
from scheduler_project.local.supervisor import Process, Supervisor
from schedules import clock

# Its models want Django to be set up.
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask, PeriodicTasks  # isort: skip

NAME = "stock_beat"
STOCK = f"django-celery-beat {version('django-celery-beat')}"
DUE, MINUTES = 1_000, 2
FIRED, BEATEN = "stock_fired", "stock_beaten"  # queues: of the entries, and of one that is due every second
_LOOK_S = 0.005
_WAIT_S = 30.0  # for what an edit does


class _TooSlow(Exception):
    """The limit is over."""


@dataclass
class _Queues:
    """What beat has sent; nobody consumes it."""

    limit: float
    broker: Any = field(default_factory=lambda: redis.Redis.from_url(settings.BROKER_URL))

    def empty(self) -> None:
        self.broker.delete(FIRED, BEATEN)

    def await_(self, wanted: Callable[[], bool], *, seconds: float | None = None) -> float:
        """Seconds until it is so. Raises ``_TooSlow``."""
        began = time.monotonic()
        while not wanted():
            if time.monotonic() - began > (seconds or self.limit):
                raise _TooSlow
            time.sleep(_LOOK_S)
        return time.monotonic() - began

    def beats(self, count: int) -> bool:
        return bool(self.broker.llen(BEATEN) >= count)

    def fired(self, count: int) -> bool:
        return bool(self.broker.llen(FIRED) >= count)


def _enter(count: int) -> None:
    """So many entries, of which ``DUE`` are due every minute, and one every second."""
    execute("TRUNCATE django_celery_beat_periodictask")
    minutely, _ = CrontabSchedule.objects.get_or_create(minute="*", hour="*")
    daily = [CrontabSchedule.objects.get_or_create(minute=str(at % 60), hour=str(at // 60))[0] for at in range(1440)]
    second, _ = IntervalSchedule.objects.get_or_create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(name="every second", task="stock.beaten", interval=second, queue=BEATEN)
    now = timezone.now()  # as if each had just run, so that nothing is made up for
    PeriodicTask.objects.bulk_create(
        (
            PeriodicTask(
                name=f"schedule {number}",
                task="stock.fired",
                crontab=minutely if number < DUE else daily[number % 1440],
                queue=FIRED,
                kwargs=f'{{"schedule_id": {number}}}',
                last_run_at=now,
            )
            for number in range(count)
        ),
        batch_size=5_000,
    )
    PeriodicTasks.update_changed()


def _measure(count: int, queues: _Queues) -> dict[str, float]:
    _enter(count)
    queues.empty()
    found = {}
    beat = (sys.executable, "-m", "celery", "-A", "benchmarks.stock", "beat", "--loglevel=WARNING", "--pidfile=")
    with Supervisor([Process("stock_beat", beat, cwd=PROJECT)], logs=processes.LOGS), contextlib.suppress(_TooSlow):
        found["start"] = queues.await_(lambda: queues.beats(1))
        found["late_p99"] = max(_late(queues) for _ in range(MINUTES))
        PeriodicTask.objects.filter(name=f"schedule {count - 1}").first().save()  # type: ignore[union-attr]
        found["edit"] = _longest_silence(queues)
    return found


def _late(queues: _Queues) -> float:
    """Seconds after the next whole minute at which 99 of a hundred of its messages are there."""
    at = time.time() // 60 * 60 + 60
    queues.broker.delete(FIRED)
    time.sleep(at - 1 - time.time())
    queues.broker.delete(FIRED)  # what came late of the minute before
    queues.await_(lambda: queues.fired(DUE * 99 // 100))
    return time.time() - at


def _longest_silence(queues: _Queues) -> float:
    """The longest time without a message of the entry that is due every second, within ``_WAIT_S`` or until it ends."""
    longest, until = 0.0, time.monotonic() + _WAIT_S
    while time.monotonic() < until:
        there = queues.broker.llen(BEATEN)
        longest = max(longest, queues.await_(lambda there=there: queues.beats(there + 1)))  # type: ignore[misc]
    return longest


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="An entry for each schedule.")
    parser.add_argument("--entries", default="1000,10000,100000,500000", help="numbers of entries, ascending")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each thing that is waited for")
    options = parser.parse_args()
    sizes = [int(size) for size in options.entries.split(",")]
    note(f"DatabaseScheduler of {STOCK}")
    prepare()
    queues = _Queues(options.limit)
    for size in sizes:
        note(f"{size} entries")
        found = _measure(size, queues)
        for figure, seconds in found.items():
            emit(NAME, f"{figure}_{size}_s", seconds, "s")
        if len(found) < 3:
            note(f"not within {options.limit:.0f} s: what comes after {', '.join(found) or 'the start'}")
            break
    template = people.save_template(now=clock.now())
    tick.insert(max(sizes), template=template)
    emit(NAME, f"tick_due_{DUE}_ms", tick.due_ms(DUE, runs=3), "ms")


if __name__ == "__main__":
    ending(main)

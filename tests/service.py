"""The service without its processes: a test takes the steps, at instants it names; after each the books are checked."""

import os
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, connections
from django.db.models import F
from redis import Redis

from delivery import dispatch, materialise, routes, sending
from delivery import sweep as sweeping
from delivery.dispatch import Opened
from delivery.models import Batch, Circuit, Delivery, State
from delivery.sweep import Swept
from schedules import operations
from schedules.models import Occurrence, Recipient, Schedule
from tests.books import assert_books_close, select
from tests.factories import BY, NOW

# For which threads are waited for on the slowest machine.
PATIENCE_S = 180.0
# Outside of tests; the service of a test gives a call more time to start, since a slow machine would hand people back.
PERMIT_S = sending.PERMIT_S

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


class Service:
    """Tick, materialise, send and sweep, each at ``now``, which stands still until a test moves it.

    Every method checks the books when it is done. ``clock.now()`` shows the same instant.
    """

    def __init__(self) -> None:
        self.now = NOW

    def at(self, instant: datetime) -> "Service":
        """Move the clock, and nothing else."""
        self.now = instant
        return self

    def after(self, step: timedelta) -> "Service":
        return self.at(self.now + step)

    def tick(self) -> Opened:
        opened = dispatch.open_due(now=self.now)
        assert_books_close()
        return opened

    def materialise(self) -> None:
        for occurrence_id in dispatch.to_materialise():
            assert materialise.lease(occurrence_id)
            materialise.materialise(occurrence_id=occurrence_id, now=self.now)
            assert_books_close()

    def open(self) -> None:
        """What a tick finds due, with its rows."""
        self.tick()
        self.materialise()

    def publish(self) -> list[dispatch.Handout]:
        handouts = dispatch.take_due(now=self.now)
        assert_books_close()
        return handouts

    def send(self, *, rounds: int = 1) -> None:
        """Hand out and send what is due; again up to ``rounds`` times, until there is nothing more."""
        for _ in range(rounds):
            handouts = self.publish()
            for handout in handouts:
                sending.send(batch_ids=handout.batch_ids)
                assert_books_close()
            if not handouts:
                return

    def sweep(self) -> Swept:
        swept = sweeping.sweep(now=self.now)
        assert_books_close()
        return swept

    def step(self) -> None:
        """What happens within a second."""
        self.open()
        self.send()
        self.sweep()

    def run_to(self, instant: datetime) -> None:
        """Everything that is due until then, each at its own instant."""
        self.step()
        while (due := self._next_due()) is not None and due < instant:
            self.at(due).step()
        self.at(instant).step()

    def _next_due(self) -> datetime | None:
        instants = [
            instant
            for (instant,) in select(
                "SELECT min(next_run_at) FROM schedules_schedule WHERE status = 'active'"
                " UNION ALL SELECT min(next_due_at) FROM delivery_batch WHERE next_due_at > "
                f"'{self.now.isoformat()}'"
            )
            if instant is not None and instant > self.now
        ]
        return min(instants, default=None)

    def update(self, schedule: Schedule, **changes: Any) -> operations.Edit:
        """Edit at ``now``; ``apply_to`` and ``expected_version`` are told from the definition's fields by name."""
        options = {name: changes.pop(name) for name in ("apply_to", "expected_version") if name in changes}
        edit = operations.update(schedule_id=schedule.pk, changes=changes, by=BY, now=self.now, **options)
        assert_books_close()
        return edit

    def pause(self, schedule: Schedule) -> None:
        operations.pause(schedule_id=schedule.pk, by=BY, now=self.now)
        assert_books_close()

    def resume(self, schedule: Schedule) -> None:
        operations.resume(schedule_id=schedule.pk, by=BY, now=self.now)
        assert_books_close()

    def cancel(self, schedule: Schedule) -> None:
        operations.cancel(schedule_id=schedule.pk, by=BY, now=self.now)
        assert_books_close()


def only_occurrence(schedule: Schedule) -> Occurrence:
    return Occurrence.objects.get(schedule=schedule)


def states(schedule: Schedule) -> Counter[str]:
    """How many of the schedule's deliveries are in each state."""
    counts: Counter[str] = Counter()
    for row in _rows(schedule):
        counts[State(row.state).label] += 1
    return counts


def reasons(schedule: Schedule) -> Counter[str]:
    """How many of the schedule's deliveries have each ``state: reason``."""
    return Counter(f"{State(row.state).label}: {row.reason}" for row in _rows(schedule))


def row_of(schedule: Schedule, person: Recipient) -> Delivery:
    """The person's delivery in the schedule's only or latest occurrence that knows it."""
    return next(row for row in _rows(schedule) if row.recipient_id == person.pk)


def _rows(schedule: Schedule) -> list[Delivery]:
    ids = list(schedule.occurrences.values_list("pk", flat=True))
    return list(Delivery.objects.filter(occurrence_id__in=ids).order_by("-occurrence_id", "recipient_id"))


def at_full_speed() -> None:
    """Forget what a throttling provider has slowed down: it lasts in real time, which tests don't wait for."""
    with Redis.from_url(settings.COUNTERS_URL) as counters:
        if keys := counters.keys("{pace}:*"):
            counters.delete(*keys)


def let_probe(channel: str = "email") -> None:
    """The next claim of the channel passes its open circuit, as after a while of real time; or ``email:NAME``."""
    Circuit.objects.filter(scope=channel).update(probe_at=F("probe_at") - DAY)
    routes.forget()


def expire_leases() -> None:
    """Let the leases of everybody who is being sent to run out, as after half a minute of real time."""
    Delivery.objects.filter(state=State.SENDING).update(leased_until=F("leased_until") - DAY)
    Batch.objects.update(lease_until=F("lease_until") - DAY)


def of_the_tests() -> dict[str, str]:
    """The environment of a process of its own that works on the tests' database."""
    return {
        **os.environ,
        "DATABASE_URL": "postgres://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**connection.settings_dict),
        "SECRET_KEY": "of the tests",
        "ENCRYPTION_KEYS": ",".join(settings.ENCRYPTION_KEYS),
        "BLIND_INDEX_KEY": settings.BLIND_INDEX_KEY,
    }


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    """Run the functions at once, each in a thread with a connection of its own; results in order, errors raised."""
    together = threading.Barrier(len(functions))
    results: list[Any] = [None] * len(functions)
    errors: list[BaseException] = []

    def run(index: int, function: Callable[[], Any]) -> None:
        try:
            together.wait(timeout=PATIENCE_S)
            results[index] = function()
        except BaseException as error:  # handed to the test's own thread
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=PATIENCE_S)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "one of them does not come to an end"
    return results

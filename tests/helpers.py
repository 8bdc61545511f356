"""The service without its processes: a test takes the steps, at instants it names; after each the books are checked.

The books are counted here by statements of their own, so that a test does not ask the code what to think of the code.
"""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from django.conf import settings
from django.db import connection, connections
from django.db.models import F
from redis import Redis

from delivery import dispatch, materialise, sending
from delivery import sweep as sweeping
from delivery.dispatch import Opened
from delivery.models import Batch, Circuit, Delivery, State
from delivery.providers.base import Answer, Message, Permit, Provider, Verdict
from delivery.sweep import Swept
from schedules import operations
from schedules.models import Occurrence, Recipient, Schedule
from tests.factories import BY, NOW

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def assert_books_close() -> None:
    """Every occurrence: targeted = its rows = its batches' counters, state by state; nothing due is forgotten."""
    assert differences() == []


def differences() -> list[str]:
    """What does not agree in the books, one line each."""
    found = []
    rows: dict[int, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    due: dict[int, datetime] = {}
    for occurrence_id, batch_id, state, count, least_due in _select(
        "SELECT occurrence_id, batch_id, state, count(*), min(due_at) FROM delivery_delivery GROUP BY 1, 2, 3"
    ):
        rows[occurrence_id][batch_id][State(state).label] += count
        if state == State.PENDING:
            due[batch_id] = least_due
    batches: dict[int, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    names = [state.label for state in State]
    for pk, occurrence_id, size, next_due_at, *counts in _select(
        f"SELECT id, occurrence_id, size, next_due_at, {', '.join(names)} FROM delivery_batch"
    ):
        batches[occurrence_id][pk] = Counter({name: count for name, count in zip(names, counts, strict=True) if count})
        if size != sum(counts):
            found.append(f"batch {pk}: size {size}, counted {sum(counts)}")
        if pk in due and (next_due_at is None or next_due_at > due[pk]):
            found.append(f"batch {pk}: a row is due at {due[pk]}, the batch at {next_due_at}")
    for pk, targeted, is_closed, kept in _select(
        "SELECT id, targeted, closed_at IS NOT NULL, outcomes FROM schedules_occurrence"
    ):
        if kept is not None:  # its day is dropped
            if targeted != sum(json.loads(kept).values()):
                found.append(f"occurrence {pk}: targeted {targeted}, kept {kept}")
            continue
        found += _differences_of(pk, targeted, is_closed, rows.pop(pk, {}), batches.pop(pk, {}))
    found += [f"rows of occurrence {pk}, which does not exist" for pk in rows]
    return found


def _differences_of(
    pk: int, targeted: int, is_closed: bool, rows: dict[int, Counter[str]], batches: dict[int, Counter[str]]
) -> list[str]:
    found = []
    counted = sum(sum(batch.values()) for batch in rows.values())
    if targeted != counted:
        found.append(f"occurrence {pk}: targeted {targeted}, rows {counted}")
    for batch_id in rows.keys() | batches.keys():
        if rows.get(batch_id) != batches.get(batch_id):
            found.append(f"batch {batch_id}: rows {rows.get(batch_id)}, counters {batches.get(batch_id)}")
    if is_closed and (left := {"pending", "sending", "unknown"} & set().union(*rows.values())):
        found.append(f"occurrence {pk}: closed with {left}")
    return found


def _select(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


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
            for (instant,) in _select(
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


class Call(NamedTuple):
    """One call of the recording provider. ``started_at`` is ``time.monotonic()``."""

    started_at: float
    messages: list[Message]


def sent(message: Message) -> Answer:
    return Answer(message.key, Verdict.SENT, provider_id=f"id-{message.key}")


class RecordingProvider(Provider):
    """A network provider as far as the sender can tell: it notes each call and answers as the test wants.

    ``answer`` says what becomes of a message; ``meanwhile`` runs while the call is under way. Both are reset by the
    fixture that names this provider in the settings.
    """

    name: ClassVar[str] = "recording"
    channels: ClassVar[frozenset[str]] = frozenset({"email", "push", "in_app"})
    max_per_call: ClassVar[int] = 50
    calls: ClassVar[list[Call]] = []
    answer: ClassVar[Callable[[Message], Answer | None]] = staticmethod(sent)
    meanwhile: ClassVar[Callable[[], None]] = staticmethod(lambda: None)

    @classmethod
    def reset(cls) -> None:
        cls.calls = []
        cls.answer = staticmethod(sent)
        cls.meanwhile = staticmethod(lambda: None)

    @classmethod
    def answers(cls, verdict: Verdict, reason: str = "said_so", **more: Any) -> None:
        """From now on every message gets this verdict."""
        cls.answer = staticmethod(lambda message: Answer(message.key, verdict, reason, **more))

    @classmethod
    def messages(cls) -> list[Message]:
        return [message for call in cls.calls for message in call.messages]

    @classmethod
    def reached(cls) -> Counter[int]:
        """How often each recipient's message was handed over."""
        return Counter(message.recipient_id for message in cls.messages())

    def _call(self, messages: Sequence[Message], *, permit: Permit) -> list[Answer]:
        type(self).calls.append(Call(time.monotonic(), list(messages)))
        self.meanwhile()
        return [answer for message in messages if (answer := self.answer(message)) is not None]


def at_full_speed() -> None:
    """Forget what a throttling provider has slowed down: it lasts in real time, which tests don't wait for."""
    with Redis.from_url(settings.COUNTERS_URL) as counters:
        if keys := counters.keys("{pace}:*"):
            counters.delete(*keys)


def let_probe(channel: str = "email") -> None:
    """The next claim of the channel passes its open circuit, as after a while of real time."""
    Circuit.objects.filter(channel=channel).update(probe_at=F("probe_at") - DAY)


def expire_leases() -> None:
    """Let the leases of everybody who is being sent to run out, as after half a minute of real time."""
    Delivery.objects.filter(state=State.SENDING).update(leased_until=F("leased_until") - DAY)
    Batch.objects.update(lease_until=F("lease_until") - DAY)


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    """Run the functions at once, each in a thread with a connection of its own; results in order, errors raised."""
    together = threading.Barrier(len(functions))
    results: list[Any] = [None] * len(functions)
    errors: list[BaseException] = []

    def run(index: int, function: Callable[[], Any]) -> None:
        try:
            together.wait(timeout=10)
            results[index] = function()
        except BaseException as error:  # handed to the test's own thread
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=item) for item in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    if errors:
        raise errors[0]
    return results

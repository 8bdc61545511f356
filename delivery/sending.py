"""From batches to outcomes: claim, render, call, record.

A network provider's calls overlap with the database's work: several are in flight while the next rows are claimed,
and the outcomes of finished calls are written in the transaction of that claim. A transactional provider writes its
messages in the transaction of their outcomes.
"""

import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from functools import cache
from typing import NamedTuple, TypeVar
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from delivery import ledger
from delivery.ledger import Claim, Outcome, Tally, Work
from delivery.messages import Composed, compose
from delivery.providers import registry
from delivery.providers.base import Answer, Permit, Provider, Verdict
from delivery.retry import decide
from schedules import clock

log = structlog.get_logger(__name__)

# Real seconds from the reading of pause, cancel and stop to the first byte of a call.
PERMIT_S = 3.0
# Real seconds after which a task takes up nothing more, so that a worker that is told to stop has ended its calls
# (connecting and reading included) within the usual twenty to thirty seconds of grace.
TASK_S = 8.0
# Real seconds for which answers are kept while the database is away. Less than a lease.
PATIENCE_S = 20.0

T = TypeVar("T")


class Call(NamedTuple):
    """A provider call under way."""

    claim: Claim
    composed: Composed


class _Answered(NamedTuple):
    started: float  # time.monotonic() when the call began
    answers: list[Answer]


def send(*, batch_ids: list[int]) -> None:
    """Send what is due of the batches of one message, waiting for those due within the next moments.

    What can't be done within a task's time is let go and published again.
    """
    works = _durably(lambda: ledger.take_up(batch_ids, now=clock.now()))
    if not works:
        return
    provider = registry.for_channel(works[0].channel)
    run = _Through(provider) if provider.transactional else _Pipeline(provider)
    deadline = time.monotonic() + TASK_S
    try:
        for work in works:
            if time.monotonic() > deadline or _is_put_off(work):
                _let_go(work)
                continue
            run.idle_until(work.next_due_at)
            if work.is_late:
                _expire_late(work)
            left = work.pending
            while left and time.monotonic() < deadline:
                left = run.step(work, left=left)
            if time.monotonic() >= deadline:
                _let_go(work)
    finally:
        run.finish()


class _Through:
    """Through a provider that writes in our own transaction: no call can be left unanswered."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def idle_until(self, due: datetime | None) -> None:
        """Wait for the instant."""
        while (seconds := _seconds_until(due)) > 0:
            time.sleep(seconds)

    def step(self, work: Work, *, left: int) -> int:
        """Send to some of the ``left`` people; return how many are left after that, none where nobody more is due."""
        return _durably(lambda: self._write(work, left))

    def finish(self) -> None:
        """Nothing is ever in flight."""

    def _write(self, work: Work, left: int) -> int:
        now, tally, permit = clock.now(), Tally(), Permit.lasting(PERMIT_S)
        limit = self._provider.max_per_call
        held = ledger.hold(work, limit=limit, now=now, tally=tally)
        if held is None:
            ledger.release(work.batch_id, day=work.day)
            return 0
        claim, settled = held
        composed = compose(claim, now=now)
        answers = self._provider.send(composed.messages, permit=permit) if composed.messages else []
        outcomes = [*settled, *composed.settled, *_decided(claim, answers, now=now)]
        ledger.settle(claim, outcomes, now=now, called_at=now, tally=tally)
        tally.flush()
        left = _left(claim, limit, left)
        if not left:
            ledger.release(work.batch_id, day=work.day)
        return left


class _Pipeline:
    """Through a provider on the network, with several calls in flight."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._in_flight: dict[Future[_Answered], Call] = {}

    def idle_until(self, due: datetime | None) -> None:
        """Wait for the instant, recording meanwhile what is answered."""
        while (seconds := _seconds_until(due)) > 0:
            if not self._in_flight:
                time.sleep(seconds)
            elif wait(self._in_flight, timeout=seconds, return_when=FIRST_COMPLETED).done:
                self._record(self._finished())

    def step(self, work: Work, *, left: int) -> int:
        """Claim and call for some of the ``left`` people; return how many are left, none where nobody more is due."""
        if len(self._in_flight) >= settings.CALLS_IN_FLIGHT:
            wait(self._in_flight, return_when=FIRST_COMPLETED)
        finished = self._finished()
        token = uuid4()
        tries = iter([False])

        def write() -> tuple[Claim | None, Permit]:
            if next(tries, True):  # a second try: the first one's commit may have come through
                _take_back(work, token)
            return self._record_and_claim(finished, work, token, left)

        claim, permit = _durably(write)
        if claim is None:
            return 0
        self._call(claim, permit)
        return _left(claim, self._provider.max_per_call, left)

    def finish(self) -> None:
        """Wait for every call and record it."""
        while self._in_flight:
            wait(self._in_flight, return_when=FIRST_COMPLETED)
            self._record(self._finished())

    def _finished(self) -> list[tuple[Call, _Answered]]:
        done = [future for future in self._in_flight if future.done()]
        return [(self._in_flight.pop(future), future.result()) for future in done]

    def _record(self, finished: list[tuple[Call, _Answered]]) -> None:
        def write() -> None:
            tally = Tally()
            _settle(finished, tally)
            tally.flush()

        _durably(write)

    def _record_and_claim(
        self, finished: list[tuple[Call, _Answered]], work: Work, token: UUID, left: int
    ) -> tuple[Claim | None, Permit]:
        tally = Tally()
        _settle(finished, tally)
        permit = Permit.lasting(PERMIT_S)
        limit = self._provider.max_per_call
        claim = ledger.claim(work, token=token, limit=limit, now=clock.now(), tally=tally)
        is_done = claim is None or not _left(claim, limit, left)
        if is_done:
            tally.touch(work.batch_id)
        tally.flush()
        if is_done:
            ledger.release(work.batch_id, day=work.day)
        return claim, permit

    def _call(self, claim: Claim, permit: Permit) -> None:
        composed = compose(claim, now=clock.now())
        if composed.messages:
            future = _executor().submit(self._answered, composed, permit)
        else:
            future = Future()
            future.set_result(_Answered(time.monotonic(), []))
        if claim.people:
            self._in_flight[future] = Call(claim, composed)

    def _answered(self, composed: Composed, permit: Permit) -> _Answered:
        started = time.monotonic()
        try:
            return _Answered(started, self._provider.send(composed.messages, permit=permit))
        except Exception as error:  # a bug of the provider's, whose call may have been accepted all the same
            log.exception("provider_raised", provider=self._provider.name)
            unknown = Answer("", Verdict.UNKNOWN, "provider_raised", detail=type(error).__name__)
            return _Answered(started, [unknown._replace(key=message.key) for message in composed.messages])


def _left(claim: Claim, limit: int, left: int) -> int:
    """How many of the ``left`` people may still be due after ``claim``. Asking once more would cost a claim a batch."""
    return max(left - claim.found, 0) if claim.found == limit else 0


def _settle(finished: Iterable[tuple[Call, _Answered]], tally: Tally) -> None:
    now = clock.now()
    for call, answered in finished:
        called_at = now - timedelta(seconds=time.monotonic() - answered.started)
        outcomes = [*call.composed.settled, *_decided(call.claim, answered.answers, now=now)]
        ledger.settle(call.claim, outcomes, now=now, called_at=called_at, tally=tally)


def _decided(claim: Claim, answers: Iterable[Answer], *, now: datetime) -> list[Outcome]:
    attempts = {str(person.recipient_id): person.attempt for person in claim.people}
    outcomes = []
    for answer in answers:
        recipient = answer.key.rsplit("-", 1)[1]
        outcomes.append(decide(answer, recipient_id=int(recipient), attempt=attempts[recipient], now=now, rng=_rng))
    return outcomes


# Jitter needs no secrecy.
_rng = random.Random()  # noqa: S311


def _expire_late(work: Work) -> None:
    def write() -> None:
        tally = Tally()
        ledger.expire_late(work, now=clock.now(), tally=tally)
        tally.flush()

    _durably(write)


def _take_back(work: Work, token: UUID) -> None:
    tally = Tally()
    ledger.take_back(work, token=token, tally=tally)
    tally.flush()


def _let_go(work: Work) -> None:
    _durably(lambda: ledger.release(work.batch_id, day=work.day))


def _is_put_off(work: Work) -> bool:
    """Whether the batch was due when it was published and is not any more: a copy of the message, an edit, a retry."""
    return work.next_due_at is not None and (work.next_due_at - clock.now()).total_seconds() > settings.PUBLISH_AHEAD_S


def _seconds_until(due: datetime | None) -> float:
    """Real seconds to wait before looking again: a moment under the test clock, which may jump meanwhile."""
    if due is None:
        return 0.0
    longest = 0.05 if settings.TEST_CLOCK else settings.PUBLISH_AHEAD_S
    return min(max((due - clock.now()).total_seconds(), 0.0), longest)


def _durably(write: Callable[[], T]) -> T:
    """Run ``write`` in a transaction, again while the database is away: answers already given must not be lost."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            with transaction.atomic():
                return write()
        except (OperationalError, InterfaceError) as error:
            if connection.in_atomic_block or time.monotonic() > give_up:
                raise
            log.warning("database_away", error=str(error).strip())
            connection.close()
            time.sleep(0.5)


@cache
def _executor() -> ThreadPoolExecutor:
    """The process's callers; made after the worker has forked."""
    return ThreadPoolExecutor(max_workers=settings.CALLS_IN_FLIGHT, thread_name_prefix="provider")

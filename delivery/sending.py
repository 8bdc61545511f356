"""From batches to outcomes: claim, prepare, call, record.

Every claim is committed before anything is done under it. A network provider's calls overlap with the database's work:
several are in flight while the next rows are claimed, and the outcomes of finished calls are written in the transaction
of that claim. A transactional provider writes its messages in the very transaction of their outcomes.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime
from functools import cache
from typing import TypeVar
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from django.db import Error, InterfaceError, OperationalError, connection, transaction

from delivery import accounts, calls, counters, leaving, ledger, pace, routes
from delivery.calls import Answered, Call, Finished, Prepared
from delivery.counters import CountersAway
from delivery.ledger import Claim, Outcome, Settlement, Tally, Work
from delivery.providers import registry
from delivery.providers.base import Answer, Message, Permit, Provider, Verdict
from delivery.routes import Routes
from schedules import clock
from schedules.models import Device

log = structlog.get_logger(__name__)

# Real seconds from the reading of pause, cancel and stop to the first byte of a call.
PERMIT_S = 3.0
# Real seconds after which a task takes up nothing more, so that a worker that is told to stop has ended its calls
# (connecting and reading included) within the usual twenty to thirty seconds of grace.
TASK_S = 8.0
# Calls of a network provider that start from one claim: the database is asked half as often.
CALLS_PER_CLAIM = 2
# Leave that is taken at once under a schedule's own rate: what a claim does not use is lost to it.
MOST_LEAVE = 50
# Small batches that are claimed at once, each with locks of its own. They hold as many people as may be in flight: for
# few people a claim costs so much that it is worth waiting for the calls before it.
TOGETHER = 25
# Real seconds for which answers are kept while the database is away. Less than a lease.
PATIENCE_S = 20.0

T = TypeVar("T")


def send(*, batch_ids: list[int]) -> None:
    """Send what is due of the batches of one message, waiting for those due within the next moments.

    What can't be done within a task's time is let go and published again.
    """
    works = _durably(lambda: ledger.take_up(batch_ids, now=clock.now()))
    if not works:
        return
    run = _Run(works[0].channel, deadline=time.monotonic() + TASK_S)
    try:
        for group in run.groups(works):
            if run.is_over:
                _let_go(group)
                continue
            run.idle_until(group[0].next_due_at)
            _expire_late(group)
            left = sum(work.pending for work in group)
            while left and not run.is_over and (leave := _leave(group[0], left)):
                left = run.step(group, left=left, leave=leave)
            if left:
                _let_go(group)
    finally:
        run.finish()


class _Run:
    """One task's calls. Those of a transactional provider are made when they are recorded."""

    def __init__(self, channel: str, *, deadline: float) -> None:
        chain = registry.chain(channel)
        self._channel = channel
        # Those of several are all of networks.
        self._is_transactional = chain[0].transactional
        self._per_call = min(provider.max_per_call for provider in chain)
        self._is_one_of_several = len(chain) > 1
        self._deadline = deadline
        self._is_held_up = False
        self._in_flight: dict[Future[list[Answered]], list[Call]] = {}
        self._to_record: list[Call] = []
        self._begun: set[int] = set()
        in_flight = 1 if self._is_transactional else settings.CALLS_IN_FLIGHT
        self._limit = self._per_call * min(CALLS_PER_CLAIM, in_flight)
        self._limit_together = self._per_call * in_flight
        if bucket := accounts.least_bucket(channel):
            self._limit, self._limit_together = min(self._limit, bucket), min(self._limit_together, bucket)

    @property
    def is_over(self) -> bool:
        """Nothing more is taken up: the task's time is over, its worker ends, or nobody may be sent to for a while."""
        return self._is_held_up or leaving.is_leaving() or time.monotonic() >= self._deadline

    def idle_until(self, due: datetime | None) -> None:
        """Wait for the instant, recording meanwhile what is answered."""
        while (seconds := _seconds_until(due)) > 0:
            self._idle(seconds)

    def groups(self, works: Sequence[Work]) -> Iterator[list[Work]]:
        """The batches one by one, or several small ones that are due together, for one claim; some are let go."""
        group: list[Work] = []
        for work in works:
            if _is_put_off(work):
                _let_go([work])
                continue
            if group and not self._goes_with(group, work):
                yield group
                group = []
            group.append(work)
        if group:
            yield group

    def _goes_with(self, group: Sequence[Work], work: Work) -> bool:
        first, people = group[0], sum(each.pending for each in group)
        return (
            (work.day, work.next_due_at) == (first.day, first.next_due_at)
            and work.max_per_minute is first.max_per_minute is None
            and work.occurrence_id not in {each.occurrence_id for each in group}
            and people + work.pending <= self._limit_together
            and len(group) < TOGETHER
        )

    def step(self, group: Sequence[Work], *, left: int, leave: int) -> int:
        """Claim and call for some of the ``left`` people; return how many are left, none where nobody more is due.

        ``leave``: for how many the schedule's own rate leaves room.
        """
        limit = min(self._limit, leave)
        people = min(left, limit if len(group) == 1 else self._limit_together)
        self._make_room(people)
        if self._is_one_of_several:  # what was answered meanwhile may lead elsewhere
            self._record(_nothing)
        self._routes = routes.of(self._channel)
        self._await_leave(people)
        if self.is_over:
            return left
        token, permit = uuid4(), Permit.lasting(PERMIT_S)
        tries = iter([False])

        def write(tally: Tally) -> list[Claim | None]:
            if next(tries, True):  # a second try: the first one's commit may have come through
                for work in group:
                    ledger.take_back(work, token=token, tally=tally)
            return self._claim(group, token, left, tally, limit=limit)

        claims = self._record(write)
        found = [claim for claim in claims if claim and claim.found]
        self._begun.update(claim.work.occurrence_id for claim in found)
        prepared = calls.prepare([claim for claim in found if claim.people], permit=permit, now=clock.now())
        self._start(prepared, permit)
        return self._left(claims, left, limit=limit)

    def _claim(self, group: Sequence[Work], token: UUID, left: int, tally: Tally, *, limit: int) -> list[Claim | None]:
        claims = ledger.claim(group, token=token, limit=limit, now=clock.now(), tally=tally, begun=self._begun)
        if not self._left(claims, left, limit=limit):
            for work in group:
                tally.let_go(work.batch_id, work.day)
        return claims

    def _left(self, claims: Sequence[Claim | None], left: int, *, limit: int) -> int:
        """How many of the ``left`` people may still be due. Asking once more would cost a claim a batch."""
        (claim, *others) = claims
        if others or claim is None or claim.found < limit:
            return 0
        return max(left - claim.found, 0)

    def finish(self) -> None:
        """Wait for every call and record it. What can't be recorded keeps none of the others from being so."""
        errors = []
        while self._in_flight or self._to_record:
            if not self._to_record:
                wait(self._in_flight, return_when=FIRST_COMPLETED)
            try:
                self._record(_nothing)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _make_room(self, people: int) -> None:
        """Wait until no more are in flight with these ``people`` than full calls may hold."""
        most = settings.CALLS_IN_FLIGHT * self._per_call - people
        while True:
            under_way = {future: bundle for future, bundle in self._in_flight.items() if not future.done()}
            if sum(len(call.messages) for bundle in under_way.values() for call in bundle) <= most:
                return
            wait(under_way, return_when=FIRST_COMPLETED)

    def _idle(self, seconds: float) -> None:
        if self._to_record or (
            self._in_flight and wait(self._in_flight, timeout=seconds, return_when=FIRST_COMPLETED).done
        ):
            self._record(_nothing)
        elif not self._in_flight:
            time.sleep(seconds)

    def _limits(self) -> pace.Limits:
        channel, provider, scope, _ = self._routes.route
        return pace.NONE if self._is_transactional else accounts.limits(channel, provider, scope)

    def _await_leave(self, people: int) -> None:
        """Wait until the provider's shared rate lets so many through, or hold up the task."""
        while not self.is_over:
            try:
                seconds = counters.rest() or self._wait_s(people)
            except CountersAway:
                continue
            if not seconds:
                return
            if time.monotonic() + seconds >= self._deadline:
                self._is_held_up = True
            else:
                self._idle(min(seconds, 0.2))

    def _wait_s(self, people: int) -> float:
        return 0.0 if self._is_transactional else pace.take(self._routes.route.scope, people, self._limits())

    def _start(self, prepared: Sequence[Prepared], permit: Permit) -> None:
        self._is_held_up = self._is_held_up or any(each.is_held_up for each in prepared)
        route, probe = self._routes
        self._routes = Routes(route)  # a probe is made once
        to_ask = []
        for each in prepared:
            if self._is_transactional or not each.messages:
                self._to_record.append(each.call(permit, route))
            else:
                to_ask.append(each.call(permit, route))
        for bundle in calls.share_out(to_ask, probe):
            self._in_flight[_executor().submit(calls.ask, bundle)] = bundle

    def _record(self, more: Callable[[Tally], T]) -> T:
        """Record what is finished, and do ``more`` in the same transaction."""
        ready, self._to_record = self._to_record, []
        done = [future for future in self._in_flight if future.done()]
        answered = [pair for future in done for pair in zip(self._in_flight.pop(future), future.result(), strict=True)]
        now = _now()
        finished = [calls.finish(call, answer, now=now) for call, answer in answered]
        try:
            return self._write(finished, ready, more, now=now)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # an outcome that can't be written must not unmake those of the others
            if not finished:
                raise
            log.exception("outcomes_not_written", calls=len(finished))
            for each in finished:
                _settle_apart(each, each.outcomes, now=now)
                calls.conclude(each, now=now)
            return self._write([], ready, more, now=now)

    def _write(
        self, finished: Sequence[Finished], ready: Sequence[Call], more: Callable[[Tally], T], *, now: datetime
    ) -> T:
        def write() -> tuple[T, list[Finished]]:
            tally = Tally()
            for group in _by_token(finished):
                _settle(group, now=now, tally=tally)
            through = [self._write_through(call, now=now, tally=tally) for call in ready]
            result = more(tally)
            tally.flush()
            return result, [*finished, *through]

        result, recorded = _durably(write)
        for each in recorded:
            calls.conclude(each, now=now)
        return result

    def _write_through(self, call: Call, *, now: datetime, tally: Tally) -> Finished:
        """Make a transactional provider's call, for those who are still ours to send to."""
        held = ledger.hold(call.claim) if call.messages else {}
        messages = [message for message in call.messages if held.get(message.recipient_id)]
        erased = [message.recipient_id for message in call.messages if held.get(message.recipient_id) is False]
        answers = _through(call.route.provider, messages, call.permit) if messages else []
        finished = calls.finish(call, Answered(time.monotonic(), answers), now=now)
        finished = finished._replace(called_at=now, outcomes=[*finished.outcomes, *map(ledger.profile_gone, erased)])
        _settle([finished], now=now, tally=tally)
        return finished


def _leave(work: Work, left: int) -> int:
    """For how many of the ``left`` people of a batch, whose schedule may have a rate of its own, there is room now.

    None are waited for: the worker has others to send to. The tick hands the batch out again.
    """
    if work.max_per_minute is None:
        return left
    try:
        return pace.take_some(work.schedule_id, min(left, MOST_LEAVE), per_minute=work.max_per_minute)
    except CountersAway as error:
        log.warning("counters_away", error=error)
        return 0


def _nothing(_: Tally) -> None:
    """Nothing more than what is finished."""


def _by_token(finished: Iterable[Finished]) -> Iterable[list[Finished]]:
    groups: dict[UUID, list[Finished]] = defaultdict(list)
    for each in finished:
        groups[each.call.claim.token].append(each)
    return groups.values()


def _settle(finished: Sequence[Finished], *, now: datetime, tally: Tally) -> None:
    """Record calls of claims that were made together."""
    by_batch: dict[int, list[Finished]] = defaultdict(list)
    for each in finished:
        by_batch[each.call.claim.work.batch_id].append(each)
    settlements = [
        Settlement(
            group[0].call.claim,
            [outcome for each in group for outcome in each.outcomes],
            min(each.called_at for each in group),
        )
        for group in by_batch.values()
    ]
    ledger.settle(settlements, now=now, tally=tally)
    if gone := [device_id for each in finished for outcome in each.outcomes for device_id in outcome.gone]:
        Device.objects.filter(pk__in=gone, active=True).update(active=False)


def _settle_apart(finished: Finished, outcomes: Sequence[Outcome], *, now: datetime) -> None:
    """Record these outcomes of a call; one that can't be written is left to the end of its lease, and it alone."""

    def write() -> None:
        tally = Tally()
        _settle([finished._replace(outcomes=[*outcomes])], now=now, tally=tally)
        tally.flush()

    try:
        _durably(write)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        if len(outcomes) > 1:
            middle = len(outcomes) // 2
            _settle_apart(finished, outcomes[:middle], now=now)
            _settle_apart(finished, outcomes[middle:], now=now)
        else:
            log.exception("outcome_not_written", occurrence_id=finished.call.claim.work.occurrence_id)


def _through(provider: Provider, messages: Sequence[Message], permit: Permit) -> list[Answer]:
    """The call of a transactional provider; one message that it can't write is that person's failure alone."""
    try:
        with transaction.atomic():
            return provider.send(messages, permit=permit)
    except (OperationalError, InterfaceError):
        raise
    except (Error, ValueError) as error:
        if len(messages) > 1:
            middle = len(messages) // 2
            return [*_through(provider, messages[:middle], permit), *_through(provider, messages[middle:], permit)]
        log.exception("provider_raised", provider=provider.name)
        return [Answer(messages[0].key, Verdict.PERMANENT, "provider_raised", detail=type(error).__name__)]


def _expire_late(group: Sequence[Work]) -> None:
    def write() -> None:
        tally = Tally()
        for work in late:
            if work.is_waiting_long:
                ledger.expire_waited(work, now=clock.now(), tally=tally)
            if work.is_late:
                ledger.expire_late(work, now=clock.now(), tally=tally)
        tally.flush()

    if late := [work for work in group if work.is_late or work.is_waiting_long]:
        _durably(write)


def _let_go(group: Sequence[Work]) -> None:
    def write() -> None:
        for work in sorted(group):  # by batch, as everybody locks them
            ledger.let_go(work.batch_id, day=work.day)

    _durably(write)


def _is_put_off(work: Work) -> bool:
    """Whether the batch was due when it was published and is not any more: a copy of the message, an edit, a retry."""
    return work.next_due_at is not None and (work.next_due_at - clock.now()).total_seconds() > settings.PUBLISH_AHEAD_S


def _seconds_until(due: datetime | None) -> float:
    """Real seconds to wait before looking again: a moment under the test clock, which may jump meanwhile."""
    if due is None:
        return 0.0
    longest = 0.05 if settings.TEST_CLOCK else settings.PUBLISH_AHEAD_S
    return min(max((due - clock.now()).total_seconds(), 0.0), longest)


def _now() -> datetime:
    """``clock.now()``, which now and then asks the database."""
    try:
        return clock.now()
    except (OperationalError, InterfaceError):
        return _durably(clock.now)


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
            log.warning("database_away", error=error)
            connection.close()
            time.sleep(0.5)


@cache
def _executor() -> ThreadPoolExecutor:
    """The process's callers, twice as many as full calls: small ones hold few people. Made after the worker forked."""
    return ThreadPoolExecutor(max_workers=2 * settings.CALLS_IN_FLIGHT, thread_name_prefix="provider")

"""A service that anything may happen to: people, workers that die or answer late, a provider of many moods.

What was accepted is judged by the provider's own record, what is held back by what the test itself has done; the ledger
is asked only for what it says.
"""

import sys
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import Mock
from uuid import uuid4

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from delivery import calls, erasure, ledger, pace, retry, sending
from delivery.ledger import Claim, Settlement, Tally
from delivery.models import Batch, Delivery, State
from delivery.providers.base import Answer, Message, Verdict
from schedules import operations, stops
from schedules.definition import InvalidDefinition
from schedules.models import Occurrence, Schedule, ScheduleStatus
from schedules.occurrences import EDITED, ApplyTo
from tests.books import assert_books_close
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, TemplateFactory
from tests.recording import RecordingProvider
from tests.service import DAY, HOUR, MINUTE, Service, let_probe

pytestmark = pytest.mark.django_db

LONG_AGO = NOW - 1_000 * DAY  # leases are real time
ZONES = ["UTC", "Asia/Kolkata", "America/New_York", "Pacific/Kiritimati", "Australia/Lord_Howe", "", "Mars/Olympus"]
EVERYONE: dict[str, Any] = {"all": []}
VIPS = {"field": "tags", "op": "contains", "value": "vip"}
OTHERS = {"not": VIPS}
NOT_ACCEPTED = {Verdict.TRANSIENT, Verdict.PERMANENT, Verdict.THROTTLED, Verdict.MISCONFIGURED, Verdict.NOT_STARTED}
ENDED = {ScheduleStatus.FINISHED, ScheduleStatus.CANCELLED, ScheduleStatus.DELETED}

KINDS = ["one-off", "user-local", "cron", "user-local cron"]
SOON = [MINUTE, MINUTE, 45 * MINUTE]
PARTS = ["tick", "materialise", "send", "sweep"]

audiences = st.sampled_from([EVERYONE, VIPS, OTHERS])
minutes = st.sampled_from([1, 1, 1, 2, 17, 60, 200])
picks = st.integers(0, 1_000)
moods = st.lists(st.sampled_from([*Verdict]), min_size=1, max_size=4)


# What ends an example for good, a timeout included; Hypothesis ends some by errors of its own.
FAILURES = (Exception, pytest.fail.Exception)


class Life(RuleBasedStateMachine):
    """``service`` and ``provider`` come from the test; each example is a transaction that is rolled back.

    What is drawn depends on what was drawn before, and on nothing else. ``failure``: the first of them all.
    """

    service: ClassVar[Service]
    provider: ClassVar[type[RecordingProvider]]
    failure: ClassVar[BaseException | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.example = transaction.atomic()
        self.example.__enter__()
        with connection.cursor() as cursor:  # batches are cut by these ids, and an example must be the same each time
            cursor.execute("SELECT setval(pg_get_serial_sequence('schedules_recipient', 'id'), 6400)")
            cursor.execute("SELECT setseed(0.5)")  # by which the database spreads retries
        self.service.at(NOW)
        self.provider.reset()
        self.provider.meanwhile = staticmethod(self.called)
        self.provider.answer = staticmethod(self.answered)
        self.mood: list[Verdict] = [Verdict.SENT]
        self.raises = False
        self.people: dict[int, int] = {}
        self.unreachable: set[int] = set()
        self.held: set[int] = set()  # schedules that are paused or ended
        self.stops: set[str] = set()
        self.claims: list[tuple[Claim, list[Answer]]] = []  # of workers that have not answered yet
        self.accepted: set[str] = set()  # or may have been
        self.sent: set[str] = set()
        self.wrong: list[str] = []
        self.asked_while_held: list[tuple[int, frozenset[int]]] = []
        self.rows: dict[tuple[int, int], tuple[int, str]] = {}

    def teardown(self) -> None:
        failed = sys.exception()
        try:
            if isinstance(failed, FAILURES):
                Life.failure = Life.failure or failed
            else:
                self.live_to_the_end()
        except FAILURES as error:
            Life.failure = Life.failure or error
            raise
        finally:
            transaction.set_rollback(True)
            self.example.__exit__(None, None, None)

    @initialize(hour=st.integers(0, 23), mood=moods, raises=st.booleans(), audience=audiences)
    def begin(self, hour: int, mood: list[Verdict], raises: bool, audience: Any) -> None:
        for zone in ZONES:
            self.add_person(zone=zone, is_vip=len(zone) > 8, flaw="")
        self.add_person(zone="UTC", is_vip=True, flaw="no address")
        self.add_person(zone="UTC", is_vip=True, flaw="opted out")
        self.create("one-off", 1, audience, on_past="skip")
        self.create("user-local", hour * 60, EVERYONE, on_past="skip")
        self.create("cron", 5, EVERYONE, on_past="skip")
        self.the_provider_has_moods(mood, raises)
        self.service.after(MINUTE).open()

    # --- What people do

    @rule(kind=st.sampled_from(KINDS), at=minutes, audience=audiences, on_past=st.sampled_from(["skip", "send_now"]))
    def create(self, kind: str, at: int, audience: Any, on_past: str) -> None:
        if Schedule.objects.count() < 5:
            run_at = None if "cron" in kind else self.service.now + at * MINUTE
            cron = {"cron": f"*/{at % 20 + 5} * * * *", "user-local cron": f"{at % 60} 9,18 * * *"}.get(kind, "")
            self.attempt(
                lambda: ScheduleFactory(
                    now=self.service.now,
                    run_at=run_at,
                    cron=cron,
                    schedule_type="cron" if cron else "once",
                    max_runs=at % 3 + 1 if cron else None,
                    time_zone_mode="user_local" if "user-local" in kind else "fixed",
                    audience_query=audience,
                    on_past=on_past,
                )
            )
            self.service.open()

    @rule(pick=picks, apply_to=st.sampled_from(ApplyTo), audience=audiences, is_about_words=st.booleans())
    def edit(self, pick: int, apply_to: ApplyTo, audience: Any, is_about_words: bool) -> None:
        words = {"template_id": TemplateFactory(now=self.service.now).pk}
        change = words if is_about_words else {"audience_query": audience}
        self.on_one(pick, lambda one: self.service.update(one, apply_to=apply_to, **change))

    @rule(pick=picks, at=minutes, apply_to=st.sampled_from(ApplyTo))
    def edit_time(self, pick: int, at: int, apply_to: ApplyTo) -> None:
        def edit(one: Schedule) -> None:
            change = {"cron": f"{at % 60} 8,19 * * *"} if one.cron else {"run_at": self.service.now + at * MINUTE}
            self.service.update(one, apply_to=apply_to, **change)

        self.on_one(pick, edit)

    @rule(pick=picks, do=st.sampled_from(["pause", "resume", "cancel", "delete"]), step=st.sampled_from(SOON))
    def pause_resume_or_end(self, pick: int, do: str, step: timedelta) -> None:
        operation = getattr(operations, do)
        self.on_one(pick, lambda one: operation(schedule_id=one.pk, by=BY, now=self.service.now), holds=do != "resume")
        self.service.after(step)
        self.old_messages_come_again()

    @rule(scope=st.sampled_from(["all", "channel:email"]), step=st.sampled_from(SOON))
    def stop_or_go(self, scope: str, step: timedelta) -> None:
        if self.stops:
            self.go()
        else:
            stops.stop_sending(scope=scope, by=BY, now=self.service.now)
            self.stops.add(scope)
        self.service.after(step)
        self.old_messages_come_again()

    @precondition(lambda self: self.people)
    @rule(pick=picks)
    def erase(self, pick: int) -> None:
        pk = list(self.people)[pick % len(self.people)]
        del self.people[pk]
        self.unreachable.add(pk)
        erasure.forget(recipient_id=pk, by=BY, now=self.service.now)

    @rule(zone=st.sampled_from(ZONES), is_vip=st.booleans(), flaw=st.sampled_from(["", "", "no address", "opted out"]))
    def add_person(self, zone: str, is_vip: bool, flaw: str) -> None:
        number = len(self.people) + len(self.unreachable)
        person = RecipientFactory(
            time_zone=zone,
            tags=["vip"] if is_vip else [],
            consent={"email": False} if flaw == "opted out" else {},
            **({"email": ""} if flaw == "no address" else {}),
        )
        if flaw:
            self.unreachable.add(person.pk)
        else:
            self.people[person.pk] = number

    @rule(mood=moods, raises=st.booleans())
    def the_provider_has_moods(self, mood: list[Verdict], raises: bool) -> None:
        self.mood, self.raises = mood, raises

    # --- What time and the service do

    @rule(step=st.sampled_from([timedelta(0), timedelta(seconds=40), 5 * MINUTE]))
    def everything_runs(self, step: timedelta) -> None:
        let_probe()
        self.service.after(step).step()

    @rule(step=st.sampled_from([MINUTE, 30 * MINUTE, 5 * HOUR]))
    def everything_runs_later(self, step: timedelta) -> None:
        let_probe()
        self.service.after(step).step()

    @rule(step=st.sampled_from([timedelta(seconds=3), 3 * MINUTE, HOUR]), do=st.sampled_from(PARTS))
    def something_runs(self, step: timedelta, do: str) -> None:
        getattr(self.service.after(step), do)()

    @rule()
    def old_messages_come_again(self) -> None:
        sending.send(batch_ids=list(Batch.objects.order_by("id").values_list("pk", flat=True)))

    @rule(pick=picks)
    def a_slow_worker_calls(self, pick: int) -> None:
        works = ledger.take_up(list(Batch.objects.values_list("pk", flat=True)), now=self.service.now)
        if works:
            tally = Tally()
            work = works[pick % len(works)]
            claim = ledger.claim([work], token=uuid4(), limit=50, now=self.service.now, tally=tally)[0]
            tally.flush()
            if claim and claim.people:
                messages = [self.message_of(claim, person.recipient_id) for person in claim.people]
                self.check(messages)
                self.claims.append((claim, [self.answered(message) for message in messages]))

    @rule(pick=picks, dies=st.booleans())
    def a_slow_worker_answers_or_dies(self, pick: int, dies: bool) -> None:
        if not self.claims:
            return
        claim, answers = self.claims.pop(pick % len(self.claims))
        if dies:
            return
        now, tally = self.service.now, Tally()
        outcomes = [
            retry.decide(answer, person=person, repeats_unknown=False, now=now, rng=calls._rng)
            for person, answer in zip(claim.people, answers, strict=True)
        ]
        ledger.settle([Settlement(claim, outcomes, now)], now=now, tally=tally)
        tally.flush()

    @rule(states=st.sampled_from([[State.SENDING], [State.UNKNOWN], [State.SENDING, State.UNKNOWN]]))
    def leases_run_out(self, states: list[State]) -> None:
        Delivery.objects.filter(state__in=states).update(leased_until=LONG_AGO)
        Batch.objects.filter(sending__gt=0).update(lease_until=LONG_AGO)
        Batch.objects.exclude(queued_at=None).update(queued_at=LONG_AGO)
        self.service.sweep()

    # --- What always holds

    @invariant()
    def the_books_close(self) -> None:
        assert_books_close()

    @invariant()
    def no_call_is_made_that_must_not_be(self) -> None:
        assert self.wrong == []
        # Judged here: the provider is called in threads that see nothing of the example's transaction.
        schedules = dict(Occurrence.objects.values_list("pk", "schedule_id"))
        for occurrence_id, held in self.asked_while_held:
            assert schedules[occurrence_id] not in held
        self.asked_while_held.clear()

    @invariant()
    def an_outcome_stays_and_no_row_is_lost(self) -> None:
        rows = {
            (occurrence, person): (state, reason)
            for occurrence, person, state, reason in Delivery.objects.values_list(
                "occurrence_id", "recipient_id", "state", "reason"
            )
        }
        for key, (state, reason) in self.rows.items():
            assert key in rows
            if State(state).is_outcome and (state, reason) != (State.CANCELLED, EDITED):
                assert rows[key] == (state, reason)
        self.rows = rows

    # --- The provider's side

    def called(self) -> None:
        """One call at a time, by the test's settings, hence the last one noted."""
        messages = self.provider.calls[-1].messages
        self.check(messages)
        if self.raises:
            self.accepted |= {message.key for message in messages}
            raise ZeroDivisionError("a bug of the provider's")

    def check(self, messages: list[Message]) -> None:
        self.wrong += [f"again: {message.key}" for message in messages if message.key in self.accepted]
        self.wrong += [
            f"unreachable: {message.key}" for message in messages if message.recipient_id in self.unreachable
        ]
        self.wrong += [f"stopped: {message.key}" for message in messages if self.stops]
        self.asked_while_held += [(message.occurrence_id, frozenset(self.held)) for message in messages]

    def answered(self, message: Message) -> Answer:
        verdict = self.mood[self.people.get(message.recipient_id, 0) % len(self.mood)]
        if verdict not in NOT_ACCEPTED:
            self.accepted.add(message.key)
        if verdict is Verdict.SENT:
            self.sent.add(message.key)
        return Answer(message.key, verdict, "so")

    # --- Helpers

    def message_of(self, claim: Claim, recipient_id: int) -> Message:
        return Message(f"{claim.work.day:%Y%m%d}-{claim.work.occurrence_id}-{recipient_id}", recipient_id, "", "", "")

    def go(self) -> None:
        for scope in sorted(self.stops):
            assert stops.go_sending(scope=scope, by=BY, now=self.service.now)
        self.stops.clear()

    def on_one(self, pick: int, operation: Callable[[Schedule], Any], *, holds: bool | None = None) -> None:
        schedules = list(Schedule.objects.order_by("id"))
        if schedules:
            one = schedules[pick % len(schedules)]
            if self.attempt(lambda: operation(one)) and holds is not None:
                (self.held.add if holds else self.held.discard)(one.pk)

    def attempt(self, operation: Callable[[], Any]) -> bool:
        try:
            with transaction.atomic():
                operation()
        except (InvalidDefinition, operations.NotAllowed):
            return False
        return True

    # --- The end

    def live_to_the_end(self) -> None:
        """Everything may go on, and time goes by: everybody ends with an outcome, every occurrence closed."""
        self.claims.clear()
        self.the_provider_has_moods([Verdict.SENT], raises=False)
        self.go()
        for schedule in Schedule.objects.filter(status=ScheduleStatus.PAUSED):
            self.service.resume(schedule)
            self.held.discard(schedule.pk)
        for step in (timedelta(0), 5 * MINUTE, 2 * HOUR, DAY, 3 * DAY, 8 * DAY, 8 * DAY):
            self.service.after(step)
            let_probe()
            self.leases_run_out([State.SENDING, State.UNKNOWN])
            self.service.step()
        self.no_call_is_made_that_must_not_be()
        self.an_outcome_stays_and_no_row_is_lost()
        self.outcomes_agree_with_the_provider()
        assert not Occurrence.objects.filter(closed_at=None).exists()
        assert set(Schedule.objects.values_list("status", flat=True)) <= ENDED

    def outcomes_agree_with_the_provider(self) -> None:
        rows = {str(row): (State(row.state), row.reason) for row in Delivery.objects.all()}
        for key, (state, reason) in rows.items():
            assert state.is_outcome, key
            assert (state is State.SENT) == (reason == ""), key
            if state is State.SENT:
                assert key in self.sent
        for key in self.sent:
            assert rows[key] in [(State.SENT, ""), (State.FAILED, "outcome_unknown")]


@pytest.mark.timeout(1_200)  # of a slow machine: Hypothesis would take it for a failure that doesn't come again
def test_whatever_happens_the_books_close_and_nobody_is_sent_to_twice(service, provider, settings, monkeypatch):
    monkeypatch.setattr(provider, "max_per_call", 4)
    monkeypatch.setattr(calls, "_rng", SimpleNamespace(random=lambda: 0.5))
    monkeypatch.setattr(calls, "log", Mock())  # it raises all the time
    monkeypatch.setattr(pace, "slow_down", lambda *_, **__: None)  # lasts in real time, which stands still here
    settings.BATCH_SIZE = 6
    settings.CALLS_IN_FLIGHT = 1
    settings.PUBLISH_AHEAD_S = 0.0  # the clock stands still: nobody waits for what is due in a moment
    Life.service, Life.provider, Life.failure = service, provider, None
    try:
        run_state_machine_as_test(Life, settings=QUICK)
    except Flaky as flaky:  # says that it went otherwise the second time, and not what went wrong the first time
        raise Life.failure or flaky from flaky


QUICK = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)

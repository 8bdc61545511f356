"""Whatever people do, in whatever order: the books close, nobody is sent to twice, and a stop is a stop."""

from collections import Counter
from datetime import timedelta
from typing import ClassVar

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from delivery import erasure, pace, sending
from delivery.models import Batch, Delivery, State
from delivery.providers.base import Answer, Verdict
from schedules import operations, stops
from schedules.definition import InvalidDefinition
from schedules.models import Occurrence, Recipient, Schedule, ScheduleStatus
from schedules.occurrences import ApplyTo
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, people
from tests.recording import sent
from tests.service import DAY, HOUR, MINUTE

pytestmark = pytest.mark.django_db

ZONES = ["UTC", "Asia/Kolkata", "Pacific/Kiritimati", "America/New_York", "", "Mars/Olympus"]
TAGS = ["a", "b", "c"]
STEPS = [timedelta(seconds=1), timedelta(seconds=30), MINUTE, 10 * MINUTE, 90 * MINUTE, 9 * HOUR]
ANSWERS = {
    "sent": sent,
    "transient": lambda message: Answer(message.key, Verdict.TRANSIENT, "busy"),
    "throttled": lambda message: Answer(message.key, Verdict.THROTTLED, "slow_down"),
    "permanent": lambda message: Answer(message.key, Verdict.PERMANENT, "rejected"),
    "unknown": lambda message: Answer(message.key, Verdict.UNKNOWN, "read_timeout"),
    "not_started": lambda message: Answer(message.key, Verdict.NOT_STARTED),
    "some": lambda message: (
        sent(message) if message.recipient_id % 2 else Answer(message.key, Verdict.TRANSIENT, "busy")
    ),
}
queries = st.sampled_from(
    [
        {"all": []},
        *({"field": "tags", "op": "contains", "value": tag} for tag in TAGS),
        {"not": {"field": "tags", "op": "contains", "value": "a"}},
    ]
)
which = st.integers(0, 10**6)


class AnyOrder(RuleBasedStateMachine):
    """One provider, a few schedules and people; ``service`` and ``provider`` come from the test."""

    service: ClassVar
    provider: ClassVar

    def __init__(self):
        super().__init__()
        self.example = transaction.atomic()
        self.example.__enter__()
        self.service.at(NOW)
        self.provider.reset()
        self.provider.answer = staticmethod(self.answer)
        self.mind, self.accepted, self.repeated = "sent", set(), []
        self.stopped = set()

    def teardown(self):
        try:
            self.settle_everything()
        finally:
            transaction.set_rollback(True)
            self.example.__exit__(None, None, None)

    @initialize(minutes=st.integers(0, 20), hours=st.integers(-9, 9), on_past=st.sampled_from(["skip", "send_now"]))
    def people_and_two_schedules(self, minutes, hours, on_past):
        for number, zone in enumerate(ZONES):
            people(3, time_zone=zone, tags=TAGS[: number % 4])
        people(2, email="", tags=["a"])
        people(2, consent={"email": False}, tags=["b"])
        ScheduleFactory(run_at=NOW + MINUTE * minutes)
        ScheduleFactory(run_at=NOW + HOUR * hours, time_zone_mode="user_local", on_past=on_past)
        self.service.after(MINUTE * max(minutes - 1, 0)).open()

    # --- What people do

    @rule(
        minutes=st.integers(0, 180),
        cron=st.sampled_from(["", "", "*/7 * * * *", "0 11,19 * * *"]),
        mode=st.sampled_from(["fixed", "user_local"]),
        query=queries,
        on_past=st.sampled_from(["skip", "send_now"]),
    )
    def create(self, minutes, cron, mode, query, on_past):
        if len(self.schedules()) < 4:
            run_at = None if cron else self.service.now + MINUTE * minutes
            fields = {"audience_query": query, "on_past": on_past, "cron": cron, "run_at": run_at}
            self.attempt(lambda: ScheduleFactory(time_zone_mode=mode, now=self.service.now, **fields))

    @rule(index=which, query=queries, apply_to=st.sampled_from(ApplyTo))
    def edit_audience(self, index, query, apply_to):
        self.on_one(index, lambda one: self.service.update(one, audience_query=query, apply_to=apply_to))

    @rule(index=which, minutes=st.integers(0, 600), apply_to=st.sampled_from(ApplyTo))
    def edit_time(self, index, minutes, apply_to):
        at = self.service.now + MINUTE * minutes

        def edit(one):
            change = {"cron": f"{minutes % 60} 9,20 * * *"} if one.cron else {"run_at": at}
            self.service.update(one, apply_to=apply_to, **change)

        self.on_one(index, edit)

    @rule(index=which, apply_to=st.sampled_from(ApplyTo))
    def edit_content(self, index, apply_to):
        self.on_one(index, lambda one: self.service.update(one, name=f"{one.name}.", apply_to=apply_to))

    @rule(index=which)
    def pause(self, index):
        self.on_one(index, self.service.pause)

    @rule(index=which)
    def resume(self, index):
        self.on_one(index, self.service.resume)

    @rule(index=which)
    def cancel(self, index):
        self.on_one(index, self.service.cancel)

    @rule(scope=st.sampled_from(["all", "channel:email", "channel:push"]), go=st.booleans())
    def stop_or_go(self, scope, go):
        if go:
            stops.go_sending(scope=scope, by=BY, now=self.service.now)
            self.stopped.discard(scope)
        else:
            stops.stop_sending(scope=scope, by=BY, now=self.service.now)
            self.stopped.add(scope)

    @rule(index=which)
    def erase(self, index):
        persons = list(Recipient.objects.order_by("id"))
        if persons:
            erasure.forget(recipient_id=persons[index % len(persons)].pk, by=BY, now=self.service.now)

    @rule(index=which, tags=st.lists(st.sampled_from(TAGS), unique=True))
    def change_a_profile(self, index, tags):
        persons = list(Recipient.objects.order_by("id"))
        if persons:
            Recipient.objects.filter(pk=persons[index % len(persons)].pk).update(tags=tags)

    @rule(kind=st.sampled_from(sorted(ANSWERS)))
    def the_provider_changes_its_mind(self, kind):
        self.mind = kind

    # --- What the service does

    @rule(step=st.sampled_from(STEPS))
    def time_passes_and_nobody_works(self, step):
        self.service.after(step)

    @rule(step=st.sampled_from(STEPS))
    def time_passes_and_everybody_works(self, step):
        self.service.after(step)
        self.guarded(self.service.step)

    @rule()
    def tick(self):
        self.service.tick()

    @rule()
    def materialise(self):
        self.service.materialise()

    @rule()
    def send(self):
        self.guarded(self.service.send)

    @rule()
    def send_messages_that_are_old(self):
        self.guarded(lambda: sending.send(batch_ids=list(Batch.objects.values_list("pk", flat=True))))

    @rule()
    def sweep(self):
        self.service.sweep()

    @rule()
    @precondition(lambda self: Delivery.objects.filter(state=State.UNKNOWN).exists())
    def no_event_comes(self):
        Delivery.objects.exclude(leased_until=None).update(leased_until=NOW - 1_000 * DAY)

    # --- What always holds

    @invariant()
    def the_books_close(self):
        assert_books_close()

    @invariant()
    def nobody_is_sent_to_twice(self):
        assert self.repeated == []

    def answer(self, message):
        """As the provider is minded; what it has accepted, or may have, must never come again."""
        if message.key in self.accepted:
            self.repeated.append(message.key)
        answer = ANSWERS[self.mind](message)
        if answer.verdict in (Verdict.SENT, Verdict.UNKNOWN):
            self.accepted.add(message.key)
        return answer

    @invariant()
    def a_one_off_has_one_occurrence_for_life(self):
        counts = Counter(Occurrence.objects.filter(schedule__schedule_type="once").values_list("schedule", flat=True))
        assert set(counts.values()) <= {1}

    # --- Helpers

    def schedules(self):
        return list(Schedule.objects.order_by("id"))

    def on_one(self, index, operation):
        if schedules := self.schedules():
            self.attempt(lambda: operation(schedules[index % len(schedules)]))

    def attempt(self, operation):
        """What is refused leaves no trace."""
        try:
            with transaction.atomic():
                operation()
        except (InvalidDefinition, operations.NotAllowed):
            pass

    def guarded(self, send):
        """No call while the schedule is paused or ended, or its sending stopped."""
        before = len(self.provider.calls)
        statuses = dict(Schedule.objects.values_list("id", "status"))
        send()
        for call in self.provider.calls[before:]:
            for message in call.messages:
                schedule_id = Occurrence.objects.get(pk=message.occurrence_id).schedule_id
                assert statuses[schedule_id] == ScheduleStatus.ACTIVE
                assert not self.stopped & {"all", "channel:email"}

    def settle_everything(self):
        """Lift every stop and let time pass: then everybody has an outcome, and every occurrence is closed."""
        for scope in sorted(self.stopped):
            stops.go_sending(scope=scope, by=BY, now=self.service.now)
        self.mind = "sent"
        for schedule in self.schedules():
            self.attempt(lambda one=schedule: self.service.resume(one))
        for _ in range(4):
            self.service.step()
            self.service.after(3 * DAY)
            for schedule in self.schedules():
                if schedule.cron:
                    self.attempt(lambda one=schedule: self.service.cancel(one))
            Delivery.objects.exclude(leased_until=None).update(leased_until=NOW - 1_000 * DAY)
            self.service.step()
        assert not Delivery.objects.filter(state__lt=State.SENT).exists()
        assert not Occurrence.objects.filter(closed_at=None).exists()


def test_in_whatever_order_things_happen_the_books_close_and_nobody_is_sent_to_twice(service, provider, monkeypatch):
    monkeypatch.setattr(pace, "slow_down", lambda *_, **__: None)  # lasts in real time, which stands still here
    AnyOrder.service, AnyOrder.provider = service, provider
    run_state_machine_as_test(
        AnyOrder,
        settings=settings(
            max_examples=15,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Caps from schedule to ledger: who is turned away and why, what a retry costs, what is freed, and what waits."""

import json
import time
from collections import Counter
from datetime import timedelta
from itertools import pairwise

import pytest
from django.db import connection
from structlog.testing import capture_logs

from delivery import caps, counters, reopening, sending
from delivery.models import Batch, Delivery, InboxMessage, State
from delivery.providers.base import Answer, Verdict
from tests.counting import flush
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, people
from tests.recording import sent
from tests.service import (  # fmt: skip
    DAY,
    HOUR,
    MINUTE,
    expire_leases,
    in_threads,
    only_occurrence,
    reasons,
    row_of,
    states,
)

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)


def used(occurrence) -> str:
    return f"{occurrence.occurrence_at:%Y%m%d}-{occurrence.pk}"


def later(service, step=MINUTE, **values):
    """Another one-off to everyone, at the instant to which the clock has moved."""
    service.after(step)
    return ScheduleFactory(run_at=service.now, now=service.now - SECOND, **values)


# --- At the limit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["email", "in_app"])
def test_a_person_at_the_limit_is_turned_away_with_the_messages_that_used_it_up(service, provider, servers, channel):
    ada = RecipientFactory()
    first, second = ScheduleFactory(channel=channel), later(service, channel=channel)
    service.step()
    bob = RecipientFactory()
    third = later(service, channel=channel, max_per_user_per_day=2)
    provider.calls.clear()
    with capture_logs() as logs:
        service.step()
    row = row_of(third, ada)
    assert (row.state, row.reason, row.attempt, row.provider_id) == (State.RATE_LIMITED, "daily_cap", 0, "")
    assert json.loads(row.detail) == {
        "limit": 2,
        "used": [used(only_occurrence(first)), used(only_occurrence(second))],
    }
    assert provider.reached() == {bob.pk: 1}
    assert states(third) == {"sent": 1, "rate_limited": 1}
    (line,) = [log for log in logs if log["event"] == "rate_limited"]
    assert (line["cap"], line["schedule_id"], line["recipient_ids"]) == ("daily_cap", third.pk, [ada.pk])


def test_a_weekly_cap_is_named_where_it_lasts_longer_than_the_daily_one(service, provider, own_counters):
    person = RecipientFactory()
    ScheduleFactory()
    service.step()
    capped = later(service, max_per_user_per_day=1, max_per_user_per_week=1)
    service.step()
    row = row_of(capped, person)
    assert (row.state, row.reason, json.loads(row.detail)["limit"]) == (State.RATE_LIMITED, "weekly_cap", 1)


def test_messages_that_do_not_count_toward_caps_use_up_none(service, provider, own_counters):
    person = RecipientFactory()
    ScheduleFactory(counts_toward_caps=False)
    service.step()
    capped = later(service, max_per_user_per_day=1)
    service.step()
    assert states(capped) == {"sent": 1}
    uncounted = later(service, max_per_user_per_day=1, counts_toward_caps=False)
    service.step()
    assert row_of(uncounted, person).state == State.RATE_LIMITED


def test_a_cap_frees_when_a_day_has_passed_since_the_claim(service, provider, own_counters):
    RecipientFactory()
    ScheduleFactory()
    service.step()
    early = later(service, DAY - HOUR, max_per_user_per_day=1)
    service.step()
    in_time = later(service, HOUR, max_per_user_per_day=1)
    service.step()
    assert (states(early), states(in_time)) == ({"rate_limited": 1}, {"sent": 1})


def test_a_cap_that_frees_within_minutes_makes_the_message_wait(service, provider, own_counters):
    person = RecipientFactory()
    ScheduleFactory()
    service.step()
    capped = later(service, DAY - 4 * MINUTE, max_per_user_per_day=1)
    service.step()
    row = row_of(capped, person)
    assert (row.state, row.reason, row.attempt, row.due_at) == (State.PENDING, "daily_cap", 0, NOW + DAY)
    service.at(NOW + DAY).step()
    assert states(capped) == {"sent": 1}


def test_a_daily_message_under_a_cap_of_one_a_day_goes_out_every_day(service, provider, own_counters):
    """Though some days it is claimed earlier than the day before: the worker was busy then."""
    everyone = people(3)
    schedule = ScheduleFactory(cron="0 9 * * *", max_per_user_per_day=1)
    for day, delay in enumerate([0, 3, 0, 4, 1, 0, 0, 2, 0, 0], start=1):
        service.at(NOW.replace(hour=9) + day * DAY).open()
        service.after(delay * SECOND).send()
        for _ in range(4):  # whoever waits for the cap
            service.after(2 * SECOND).step()
        assert provider.reached() == {person.pk: 1 for person in everyone}
        provider.calls.clear()
    assert states(schedule) == {"sent": 30}
    for person in everyone:
        rows = Delivery.objects.filter(recipient_id=person.pk).order_by("occurrence_id")
        claims = [row.claimed_at for row in rows]
        assert all(after - before >= DAY for before, after in pairwise(claims))


# --- Outcomes --------------------------------------------------------------------------------------------------------


def test_a_retry_does_not_count_twice(service, provider, own_counters):
    person = RecipientFactory()
    provider.answers(Verdict.TRANSIENT, "busy")
    schedule = ScheduleFactory(max_per_user_per_day=1)
    service.step()
    row = row_of(schedule, person)
    assert (row.state, row.reason) == (State.PENDING, "busy")
    provider.answer = staticmethod(sent)
    service.at(row.due_at).step()
    assert states(schedule) == {"sent": 1}
    assert row_of(schedule, person).attempt == 2
    two_a_day = later(service, max_per_user_per_day=2)
    service.step()
    assert states(two_a_day) == {"sent": 1}


def test_while_a_retry_waits_its_place_is_anothers_to_take(service, provider, own_counters):
    person = RecipientFactory()
    provider.answers(Verdict.TRANSIENT, "busy")
    first = ScheduleFactory(max_per_user_per_day=1)
    service.step()
    provider.answer = staticmethod(sent)
    second = later(service, SECOND, max_per_user_per_day=1)
    service.send()
    service.step()
    assert states(second) == {"sent": 1}
    service.at(row_of(first, person).due_at).step()
    assert reasons(first) == {"rate_limited: daily_cap": 1}


@pytest.mark.parametrize("is_told", [True, False])
def test_a_message_that_failed_for_good_frees_its_place(service, provider, own_counters, monkeypatch, is_told):
    RecipientFactory()
    provider.answers(Verdict.PERMANENT, "refused")
    if not is_told:
        monkeypatch.setattr("delivery.caps.release", lambda *args, **kwargs: None)
    ScheduleFactory(max_per_user_per_day=1)
    service.step()
    provider.answer = staticmethod(sent)
    second = later(service, max_per_user_per_day=1)
    service.step()
    assert states(second) == {"sent": 1}


def test_an_unknown_outcome_keeps_its_place_also_when_it_is_given_up(service, provider, servers, settings):
    RecipientFactory()
    provider.answers(Verdict.UNKNOWN, "timeout")
    first = ScheduleFactory(max_per_user_per_day=1)
    service.step()
    assert states(first) == {"unknown": 1}
    provider.answer = staticmethod(sent)
    second = later(service, max_per_user_per_day=1)
    service.step()
    assert reasons(second) == {"rate_limited: daily_cap": 1}
    give_up_unknown()
    service.sweep()
    assert reasons(first) == {"failed: outcome_unknown": 1}
    flush(servers)
    third = later(service, max_per_user_per_day=1)
    service.step()
    assert reasons(third) == {"rate_limited: daily_cap": 1}


@pytest.mark.parametrize("verdict", [Verdict.UNKNOWN, Verdict.TRANSIENT])
@pytest.mark.parametrize("lost", [False, True], ids=["counters kept", "counters lost"])
def test_a_push_that_may_have_arrived_keeps_its_place_until_it_is_repeated(
    service, provider, own_counters, monkeypatch, verdict, lost
):
    """Nobody knows whether it reached the device, or it has reached one of two; the other is tried again."""
    monkeypatch.setattr(provider, "repeats_unknown", True)
    person = RecipientFactory()
    first_device, _ = DeviceFactory(recipient=person), DeviceFactory(recipient=person)
    reached = (first_device.pk,) if verdict is Verdict.TRANSIENT else ()
    provider.answers(verdict, "busy", reached=reached)
    first = ScheduleFactory(channel="push", max_per_user_per_day=1)
    service.step()
    assert states(first) == {"pending": 1}
    provider.answer = staticmethod(sent)
    if lost:
        flush([own_counters])
    second = later(service, SECOND, channel="push", max_per_user_per_day=1)
    service.step()
    assert reasons(second) == {"rate_limited: daily_cap": 1}
    service.at(row_of(first, person).due_at).step()
    assert states(first) == {"sent": 1}


def push_to(person, **values):
    DeviceFactory(recipient=person)
    return ScheduleFactory(channel="push", **values)


def die_in(monkeypatch, service, name, stand_in):
    """The sender's process is killed there, and its lease runs out."""
    with monkeypatch.context() as patched:
        patched.setattr(*name, stand_in)
        with pytest.raises(SystemExit):
            service.step()
    expire_leases()
    service.sweep()


def killed(*_, **__):
    raise SystemExit


def killed_after(function):
    def run(*arguments, **keywords):
        function(*arguments, **keywords)
        raise SystemExit

    return run


@pytest.mark.parametrize("before", [True, False], ids=["before it reserves", "before it is recorded"])
def test_who_was_at_a_cap_when_the_worker_died_still_is(service, provider, servers, monkeypatch, before):
    monkeypatch.setattr(provider, "repeats_unknown", True)
    person = RecipientFactory()
    first = push_to(person, max_per_user_per_day=1)
    service.step()
    second = later(service, channel="push", max_per_user_per_day=1)
    die_in(monkeypatch, service, (caps, "reserve"), killed if before else killed_after(caps.reserve))
    assert reasons(second) == {"pending: worker_lost": 1}
    third = later(service, channel="push", max_per_user_per_day=2)
    service.step()
    assert (states(first), reasons(second), states(third)) == (
        {"sent": 1},
        {"rate_limited: daily_cap": 1},
        {"sent": 1},
    )
    assert row_of(second, person).reached == ""  # nobody was called, so it counts for none


def test_a_call_that_was_lost_is_repeated_at_the_place_that_it_has(service, provider, servers, monkeypatch):
    monkeypatch.setattr(provider, "repeats_unknown", True)
    person = RecipientFactory()
    first = push_to(person, max_per_user_per_day=1)
    die_in(monkeypatch, service, (provider, "send"), killed)
    second = later(service, SECOND, channel="push", max_per_user_per_day=1)
    service.open()
    service.send()
    service.after(MINUTE).step()
    assert (states(first), reasons(second)) == ({"sent": 1}, {"rate_limited: daily_cap": 1})


@pytest.mark.parametrize("counts", [True, False])
def test_a_lost_call_whose_place_is_no_longer_enough_stays_unanswered(service, provider, servers, monkeypatch, counts):
    """Others have come since, under wider caps: a repeat that arrives alone would be one too many."""
    monkeypatch.setattr(provider, "repeats_unknown", True)
    person = RecipientFactory()
    first = push_to(person, max_per_user_per_day=1, counts_toward_caps=counts)
    die_in(monkeypatch, service, (provider, "send"), killed)
    later(service, timedelta(0), channel="in_app", max_per_user_per_day=5)
    Batch.objects.filter(occurrence=only_occurrence(first)).update(queued_at=None)
    service.open()
    sending.send(batch_ids=list(Batch.objects.filter(channel="in_app").values_list("pk", flat=True)))
    service.after(MINUTE).step()
    assert reasons(first) == {"unknown: no_answer": 1}
    assert provider.reached() == {person.pk: 1}


def test_a_failed_message_sent_again_on_request_counts_by_its_new_claim(service, provider, own_counters):
    person = RecipientFactory()
    provider.answers(Verdict.PERMANENT, "refused")
    first = ScheduleFactory(max_per_user_per_day=1)
    service.step()
    provider.answer = staticmethod(sent)
    service.after(2 * HOUR)
    reopening.retry_failed(occurrence_id=only_occurrence(first).pk, recipient_ids=[person.pk], by=BY, now=service.now)
    service.step()
    assert states(first) == {"sent": 1}
    second = later(service, DAY - HOUR, max_per_user_per_day=1)
    service.step()
    assert reasons(second) == {"rate_limited: daily_cap": 1}


def give_up_unknown() -> None:
    """A late answer has been waited for long enough, in real time."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE delivery_delivery SET leased_until = now() - interval '1 hour' WHERE state = 2")


# --- Redis away ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "silence"])
def test_while_the_counters_are_away_nobody_is_called_and_then_everybody_once(
    service, provider, own_counters, monkeypatch, how
):
    everyone = people(120)
    schedule = ScheduleFactory(max_per_user_per_day=1)
    service.open()
    monkeypatch.setattr(sending, "TASK_S", 1.0)
    getattr(own_counters, how)()
    began = time.monotonic()
    service.send()
    assert time.monotonic() - began < 20
    assert provider.calls == []
    assert reasons(schedule) == {"pending: ": 120}
    come_back(own_counters)
    for _ in range(3):
        service.after(4 * SECOND).step()
    assert states(schedule) == {"sent": 120}
    assert provider.reached() == {person.pk: 1 for person in everyone}


@pytest.mark.parametrize("how", ["kill", "silence"])
def test_counters_that_go_away_after_the_claim_use_up_no_attempt(service, own_counters, how):
    everyone = people(120)
    schedule = ScheduleFactory(channel="in_app", max_per_user_per_day=1)
    service.open()
    getattr(own_counters, how)()
    began = time.monotonic()
    with capture_logs() as logs:
        service.send()
    assert time.monotonic() - began < 20
    assert "counters_away" in {log["event"] for log in logs}
    assert set(reasons(schedule)) == {"pending: counters_away"}
    row = row_of(schedule, everyone[0])
    assert (row.attempt, row.claim_token) == (0, None)
    assert NOW < row.due_at <= NOW + 4 * SECOND
    come_back(own_counters)
    for _ in range(3):
        service.after(4 * SECOND).step()
    assert states(schedule) == {"sent": 120}
    assert InboxMessage.objects.count() == 120


def test_what_neither_counts_nor_has_a_cap_goes_out_without_counters(service, own_counters):
    RecipientFactory()
    schedule = ScheduleFactory(channel="in_app", counts_toward_caps=False)
    service.open()
    own_counters.kill()
    service.send()
    assert states(schedule) == {"sent": 1}


def come_back(server) -> None:
    server.start() if server.process.poll() is not None else server.wake()
    time.sleep(counters.rest())


# --- All at once -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_schedules_sent_at_once_give_everyone_as_much_as_the_cap_allows(service, provider, servers):
    """Every third person's first message meets a busy provider, and its place goes to another."""
    everyone, busy = people(30), set()

    def answer(message):
        if message.recipient_id % 3 == 0 and message.recipient_id not in busy:
            busy.add(message.recipient_id)
            return Answer(message.key, Verdict.TRANSIENT, "busy")
        return sent(message)

    provider.answer = staticmethod(answer)
    schedules = [ScheduleFactory(max_per_user_per_day=2) for _ in range(6)]
    service.open()
    batches = [batch_id for message in service.publish() for batch_id in message.batch_ids]
    in_threads(*(lambda batch_id=batch_id: sending.send(batch_ids=[batch_id]) for batch_id in batches))
    flush(servers)
    for _ in range(8):
        service.after(30 * SECOND).step()
    assert sum((states(schedule) for schedule in schedules), Counter()) == {"sent": 60, "rate_limited": 120}
    calls = provider.reached()
    assert calls == {person.pk: 2 + (person.pk in busy) for person in everyone}


def test_a_throttled_answer_reserves_no_second_place(service, provider, own_counters):
    person = RecipientFactory()
    provider.answer = staticmethod(lambda message: Answer(message.key, Verdict.THROTTLED, "slow_down", retry_after=1.0))
    schedule = ScheduleFactory(max_per_user_per_day=1)
    service.step()
    provider.answer = staticmethod(sent)
    row = row_of(schedule, person)
    assert (row.state, row.attempt) == (State.PENDING, 0)
    time.sleep(1.1)  # the channel's rate is real time
    service.at(row.due_at).step()
    assert states(schedule) == {"sent": 1}

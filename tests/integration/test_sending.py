"""From batches to outcomes: what is sent, what follows from each answer, and what happens when something gives way."""

import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from types import SimpleNamespace

import pytest
from django.db import OperationalError, connection, connections, transaction
from structlog.testing import capture_logs

from delivery import calls, circuits, ledger, messages, retry, sending, usage
from delivery.models import Batch, Delivery, FailedAttempt, InboxMessage, OutboxMessage, State
from delivery.providers.base import Answer, Verdict
from delivery.providers.in_app import InAppProvider
from schedules.models import ScheduleVersion
from tests.books import assert_books_close
from tests.factories import NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory, people
from tests.recording import sent
from tests.service import (
    HOUR,
    MINUTE,
    at_full_speed,
    expire_leases,
    let_probe,
    only_occurrence,
    reasons,
    row_of,
    states,
)

pytestmark = pytest.mark.django_db
SECOND = timedelta(seconds=1)


# --- Messages --------------------------------------------------------------------------------------------------------


def test_each_person_gets_the_message_rendered_for_them(service, provider):
    ada, bob = RecipientFactory(attributes={"first_name": "Ada"}), RecipientFactory()
    schedule = ScheduleFactory()
    service.step()
    messages = {message.recipient_id: message for message in provider.messages()}
    assert messages[ada.pk].text == "Dear Ada, it is time."
    assert messages[bob.pk].text == "Dear , it is time."
    assert messages[ada.pk].to == ada.email
    assert messages[ada.pk].key == f"20261121-{only_occurrence(schedule).pk}-{ada.pk}"
    row = row_of(schedule, ada)
    assert (row.state, row.provider_id, row.attempt) == (State.SENT, f"id-{messages[ada.pk].key}", 1)
    assert (row.claim_token, row.leased_until, row.settled_at) == (None, None, NOW)


def test_a_push_goes_to_every_device_that_is_active(service, provider):
    person = RecipientFactory()
    devices = [DeviceFactory(recipient=person, platform=platform) for platform in ("ios", "android")]
    DeviceFactory(recipient=person, active=False)
    ScheduleFactory(channel="push")
    service.step()
    (message,) = provider.messages()
    assert message.targets == tuple((device.pk, device.platform, device.token) for device in devices)
    assert message.to == ""


def test_in_app_messages_lie_in_the_inbox(service):
    person = RecipientFactory(attributes={"first_name": "Ada"})
    schedule = ScheduleFactory(channel="in_app")
    service.step()
    message = InboxMessage.objects.get()
    assert (message.recipient_id, message.occurrence_id) == (person.pk, only_occurrence(schedule).pk)
    assert (message.title, message.body) == (f"Hello {person.external_id}", "Dear Ada, it is time.")
    assert row_of(schedule, person).called_at == NOW


@pytest.mark.parametrize("channel", ["email", "push"])
def test_without_a_provider_of_ones_own_the_outbox_keeps_the_messages(service, channel):
    DeviceFactory()
    schedule = ScheduleFactory(channel=channel)
    service.step()
    assert OutboxMessage.objects.get().occurrence_id == only_occurrence(schedule).pk
    assert states(schedule) == {"sent": 1}


def test_an_occurrence_is_rendered_with_the_template_version_it_is_pinned_to(service, provider):
    RecipientFactory()
    template = TemplateFactory(name="Offer", text="old")
    ScheduleFactory(template_id=template.pk)
    service.open()
    TemplateFactory(name="Offer", text="new")
    service.send()
    assert provider.messages()[0].text == "old"


# --- Answers ---------------------------------------------------------------------------------------------------------


def test_a_transient_failure_is_tried_again_three_times_at_the_most(service, provider):
    person = RecipientFactory()
    schedule = ScheduleFactory()
    provider.answers(Verdict.TRANSIENT, "busy", detail="try later")
    service.step()
    waits = []
    for attempt in (1, 2, 3):
        row = row_of(schedule, person)
        assert (row.state, row.reason, row.attempt) == (State.PENDING, "busy", attempt)
        assert row.wave_at == NOW
        waits.append(row.due_at - service.now)
        service.at(row.due_at - SECOND).step()
        assert len(provider.calls) == attempt
        service.at(row.due_at).step()
    assert [5 <= waits[0].seconds <= 10, 20 <= waits[1].seconds <= 40, 80 <= waits[2].seconds <= 160] == [True] * 3
    row = row_of(schedule, person)
    assert (row.state, row.reason, row.attempt, len(provider.calls)) == (State.FAILED, "busy", 4, 4)
    kept = FailedAttempt.objects.order_by("attempt").values_list("attempt", "verdict", "reason", "detail")
    assert list(kept) == [(attempt, "transient", "busy", "try later") for attempt in (1, 2, 3, 4)]


def test_a_retry_that_succeeds_is_sent_and_keeps_what_failed_before(service, provider):
    person = RecipientFactory()
    schedule = ScheduleFactory()
    provider.answers(Verdict.TRANSIENT)
    service.step()
    provider.reset()
    service.at(row_of(schedule, person).due_at).step()
    row = row_of(schedule, person)
    assert (row.state, row.reason, row.attempt) == (State.SENT, "", 2)
    assert FailedAttempt.objects.get().attempt == 1


def test_a_retry_that_is_due_past_the_grace_is_still_made(service, provider):
    people(2)
    schedule = ScheduleFactory(misfire_grace_minutes=0)
    provider.answers(Verdict.TRANSIENT, retry_after=1_800.0)
    service.step()
    provider.reset()
    service.after(HOUR).step()
    assert states(schedule) == {"sent": 2}


def test_being_throttled_is_no_attempt_and_waits_as_long_as_asked(service, provider):
    person = RecipientFactory()
    schedule = ScheduleFactory()
    provider.answers(Verdict.THROTTLED, retry_after=60.0)
    for _ in range(6):
        service.step()
        row = row_of(schedule, person)
        assert (row.state, row.attempt) == (State.PENDING, 0)
        assert MINUTE <= row.due_at - service.now <= 1.5 * MINUTE
        service.at(row.due_at)
        at_full_speed()
    assert len(provider.calls) == 6
    assert not FailedAttempt.objects.exists()
    provider.reset()
    service.step()
    assert (row_of(schedule, person).state, row_of(schedule, person).attempt) == (State.SENT, 1)


def test_a_misconfigured_provider_costs_nobody_an_attempt(service, provider):
    people(3)
    schedule = ScheduleFactory()
    provider.answers(Verdict.MISCONFIGURED, "credentials")
    for _ in range(6):
        service.step()
        service.after(2 * MINUTE)
        let_probe()
    assert reasons(schedule) == {"pending: credentials": 3}
    assert set(Delivery.objects.values_list("attempt", flat=True)) == {0}
    assert not FailedAttempt.objects.exists()
    assert len(provider.calls) == 6
    provider.reset()
    service.step()
    assert states(schedule) == {"sent": 3}
    assert set(Delivery.objects.values_list("attempt", flat=True)) == {1}


def test_what_was_not_started_is_handed_back_as_if_nothing_had_been(service, provider):
    person = RecipientFactory()
    schedule = ScheduleFactory()
    service.open()
    provider.answers(Verdict.NOT_STARTED)
    (message,) = service.publish()
    sending.send(batch_ids=message.batch_ids)
    row = row_of(schedule, person)
    assert (row.state, row.reason, row.attempt, row.called_at) == (State.PENDING, "", 0, None)
    assert row.due_at == NOW
    assert not FailedAttempt.objects.exists()


def test_a_permanent_refusal_fails_at_once(service, provider):
    people(1)
    schedule = ScheduleFactory()
    provider.answers(Verdict.PERMANENT, "rejected")
    service.step()
    service.after(HOUR).step()
    assert reasons(schedule) == {"failed: rejected": 1}
    assert len(provider.calls) == 1


def test_an_ambiguous_call_is_never_repeated(service, provider):
    people(3)
    schedule = ScheduleFactory()
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    service.step()
    for _ in range(5):
        service.after(10 * MINUTE).step()
    assert reasons(schedule) == {"unknown: read_timeout": 3}
    assert set(provider.reached().values()) == {1}
    assert only_occurrence(schedule).closed_at is None


def test_a_message_without_an_answer_is_unknown(service, provider):
    people(3)
    schedule = ScheduleFactory()
    provider.answer = staticmethod(lambda message: None)
    service.step()
    assert reasons(schedule) == {"unknown: no_answer": 3}


def test_each_message_of_a_call_has_its_own_answer(service, provider):
    persons = people(4)
    verdicts = dict(
        zip(
            [person.pk for person in persons],
            [Verdict.SENT, Verdict.PERMANENT, Verdict.TRANSIENT, Verdict.UNKNOWN],
            strict=True,
        )
    )
    provider.answer = staticmethod(lambda message: Answer(message.key, verdicts[message.recipient_id], "so"))
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 1, "failed": 1, "pending": 1, "unknown": 1}


def test_a_refusal_without_reason_still_has_one_in_the_ledger(service, provider):
    people(1)
    schedule = ScheduleFactory()
    provider.answers(Verdict.PERMANENT, "")
    service.step()
    assert reasons(schedule) == {"failed: refused": 1}


# --- Calls -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def busy(provider):
    """How many calls were under way at once, at the most."""
    lock, now, most = threading.Lock(), [0], [0]

    def meanwhile():
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1

    provider.meanwhile = staticmethod(meanwhile)
    return most


def test_several_calls_are_in_flight_and_never_more_than_the_setting(service, provider, busy, settings):
    settings.CALLS_IN_FLIGHT = 3
    people(600)
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 600}
    assert 2 <= busy[0] <= 3
    assert max(len(call.messages) for call in provider.calls) == 50


def test_small_runs_that_are_due_together_share_a_call_and_nothing_else(service, provider):
    """Each person's message is his schedule's, and a refusal is his alone."""
    everyone = people(7)
    schedules = [ScheduleFactory(name=f"Run {number}") for number in range(4)]
    poor = everyone[2].pk
    provider.answer = staticmethod(
        lambda message: (
            Answer(message.key, Verdict.PERMANENT, "refused") if message.recipient_id == poor else sent(message)
        )
    )
    service.step()
    assert [len(call.messages) for call in provider.calls] == [28]
    runs = {only_occurrence(schedule).pk for schedule in schedules}
    assert {message.occurrence_id for message in provider.messages()} == runs
    for schedule in schedules:
        assert states(schedule) == {"sent": 6, "failed": 1}
        assert_books_close()
    rows = Delivery.objects.filter(state=State.SENT)
    assert {row.provider_id for row in rows} == {
        f"id-{message.key}" for message in provider.messages() if message.recipient_id != poor
    }


def test_the_same_message_again_sends_nothing_again(service, provider):
    people(120)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    for _ in range(3):
        sending.send(batch_ids=message.batch_ids)
        assert_books_close()
    assert states(schedule) == {"sent": 120}
    assert set(provider.reached().values()) == {1}


def test_a_message_about_batches_that_are_no_more_does_nothing(service, provider):
    sending.send(batch_ids=[999_999_999])
    sending.send(batch_ids=[])
    assert provider.calls == []


def test_a_provider_that_raises_leaves_its_call_unknown_and_the_others_recorded(service, provider):
    people(200)
    schedule = ScheduleFactory()
    first = threading.Lock()

    def stumble():
        if first.acquire(blocking=False):
            raise ZeroDivisionError("a bug of the provider's")

    provider.meanwhile = staticmethod(stumble)
    service.step()
    assert reasons(schedule) == {"unknown: provider_raised": 50, "sent: ": 150}
    assert set(FailedAttempt.objects.values_list("detail", flat=True)) == {"ZeroDivisionError"}


def test_an_outcome_that_can_not_be_written_keeps_nobody_else_from_theirs(service, provider, monkeypatch):
    odd = people(230)[17]

    def decide(answer, *, person, **more):
        outcome = retry.decide(answer, person=person, **more)
        return outcome._replace(detail="a\x00b") if person.recipient_id == odd.pk else outcome

    monkeypatch.setattr(calls, "decide", decide)
    schedule = ScheduleFactory()
    with capture_logs() as logs:
        service.open()
        service.send()
    assert states(schedule) == {"sent": 229, "sending": 1}
    assert [log["log_level"] for log in logs if log["event"] == "outcome_not_written"] == ["error"]
    expire_leases()
    service.sweep()
    assert reasons(schedule) == {"sent: ": 229, "unknown: worker_lost": 1}
    assert provider.reached() == dict.fromkeys(provider.reached(), 1)


def test_an_answer_that_makes_no_sense_is_an_unknown_one(service, provider, monkeypatch):
    odd = people(5)[0]
    send = provider.send

    def talk_nonsense(self, messages, *, permit):
        return [
            answer._replace(verdict=Verdict.TRANSIENT, retry_after="soon") if message.recipient_id == odd.pk else answer
            for message, answer in zip(messages, send(self, messages, permit=permit), strict=True)
        ]

    monkeypatch.setattr(provider, "send", talk_nonsense)
    schedule = ScheduleFactory()
    service.step()
    assert reasons(schedule) == {"sent: ": 4, "unknown: unreadable_answer": 1}


def test_calls_in_flight_are_recorded_though_another_could_not_be(service, provider, monkeypatch):
    """The database was away for longer than anybody waits while the first was to be written."""
    everyone = people(60)
    first_is_lost = threading.Event()

    def answer(message):
        if message.recipient_id == everyone[-1].pk:
            assert first_is_lost.wait(5)
        return sent(message)

    def settle(*arguments, **keywords):
        if not first_is_lost.is_set():
            first_is_lost.set()
            raise OperationalError("the server closed the connection")
        return write(*arguments, **keywords)

    write = ledger.settle
    provider.answer = staticmethod(answer)
    monkeypatch.setattr(ledger, "settle", settle)
    schedule = ScheduleFactory()
    service.open()
    with pytest.raises(OperationalError):
        service.send()
    assert states(schedule) in ({"sending": 50, "sent": 10}, {"sending": 10, "sent": 50})


def test_people_for_whom_the_ledger_was_away_when_caps_were_asked_are_handed_back(service, provider, monkeypatch):
    everyone = people(30)
    schedule = ScheduleFactory(max_per_user_per_day=1)

    def away(*_, **__):
        raise OperationalError("the server closed the connection")

    with monkeypatch.context() as patched:
        patched.setattr(usage, "uses", away)
        service.step()
    assert reasons(schedule) == {"pending: database_away": 30}
    assert set(Delivery.objects.values_list("attempt", "claim_token")) == {(0, None)}
    assert provider.calls == []
    service.after(MINUTE).step()
    assert states(schedule) == {"sent": 30}
    assert provider.reached() == {person.pk: 1 for person in everyone}


def test_a_claim_outlives_a_circuit_that_could_not_be_opened(service, provider, monkeypatch, settings):
    settings.CALLS_IN_FLIGHT = 2
    people(300)
    schedule = ScheduleFactory()
    provider.answers(Verdict.MISCONFIGURED, "access_denied")

    def away(*_, **__):
        raise OperationalError("the server closed the connection")

    with monkeypatch.context() as patched:
        patched.setattr(circuits, "open_circuit", away)
        service.step()
    assert reasons(schedule) == {"pending: access_denied": 300}
    provider.answer = staticmethod(sent)
    service.after(MINUTE).step()
    assert states(schedule) == {"sent": 300}


def test_a_version_that_can_not_be_read_concerns_its_own_run(service, provider):
    """They are claimed together."""
    people(3)
    schedules = [ScheduleFactory() for _ in range(3)]
    service.open()
    broken = schedules[0]
    ScheduleVersion.objects.filter(schedule=broken).update(definition={"name": "nonsense"})
    messages._known.clear()
    service.send()
    assert [reasons(schedule) for schedule in schedules] == [
        {"pending: internal_error": 3},
        {"sent: ": 3},
        {"sent: ": 3},
    ]


def test_a_provider_that_writes_here_and_raises_leaves_nothing_behind(service, monkeypatch):
    people(3)
    schedule = ScheduleFactory(channel="in_app")
    service.open()
    (message,) = service.publish()

    def write_and_raise(self, messages, *, permit):
        original(self, messages, permit=permit)
        raise ZeroDivisionError

    original = InAppProvider._call
    with monkeypatch.context() as patched:
        patched.setattr(InAppProvider, "_call", write_and_raise)
        with pytest.raises(ZeroDivisionError):
            sending.send(batch_ids=message.batch_ids)
    assert not InboxMessage.objects.exists()
    assert states(schedule) == {"sending": 3}
    expire_leases()
    service.sweep()
    assert reasons(schedule) == {"pending: worker_lost": 3}
    service.after(MINUTE)
    sending.send(batch_ids=message.batch_ids)
    assert InboxMessage.objects.count() == 3
    assert states(schedule) == {"sent": 3}


def test_a_task_takes_up_nothing_more_when_its_time_is_over(service, provider, monkeypatch):
    people(120)
    schedule = ScheduleFactory()
    service.open()
    with monkeypatch.context() as patched:
        patched.setattr(sending, "TASK_S", -1.0)
        service.send()
    assert states(schedule) == {"pending": 120}
    assert set(Batch.objects.values_list("queued_at", flat=True)) == {None}
    service.send()
    assert states(schedule) == {"sent": 120}


# --- Instants --------------------------------------------------------------------------------------------------------


@pytest.fixture
def waited(service, monkeypatch, settings):
    """Workers wait for what is due within two seconds, and the clock goes on while they do: (seconds, pending) each."""
    settings.PUBLISH_AHEAD_S = 2.0
    found = []

    def sleep(seconds):
        found.append((seconds, Delivery.objects.filter(state=State.PENDING).count()))
        service.after(timedelta(seconds=seconds))

    monkeypatch.setattr(sending, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    return found


@pytest.mark.parametrize("channel", ["email", "in_app"])
def test_a_worker_waits_for_the_instant_and_not_for_the_next_tick(service, request, waited, channel):
    if channel == "email":
        request.getfixturevalue("provider")
    people(3)
    schedule = ScheduleFactory(channel=channel)
    service.at(NOW - timedelta(seconds=0.4)).open()
    (message,) = service.publish()
    sending.send(batch_ids=message.batch_ids)
    assert states(schedule) == {"sent": 3}
    assert waited == [(0.4, 3)]


def test_a_worker_does_not_wait_for_what_has_been_put_off(service, provider, waited):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    provider.answers(Verdict.THROTTLED, retry_after=600.0)
    sending.send(batch_ids=message.batch_ids)
    sending.send(batch_ids=message.batch_ids)
    assert waited == []
    assert states(schedule) == {"pending": 3}
    assert Batch.objects.get().queued_at is None


def test_answers_are_recorded_while_a_worker_waits_for_the_next_wave(service, provider, waited):
    people(60)
    sooner, later = ScheduleFactory(), ScheduleFactory(run_at=NOW + timedelta(seconds=0.6))
    service.open()
    (message,) = service.publish()
    assert len(message.batch_ids) == 2
    sending.send(batch_ids=message.batch_ids)
    assert states(sooner) == states(later) == {"sent": 60}
    first = Delivery.objects.filter(occurrence_id=only_occurrence(sooner).pk).latest("settled_at")
    assert waited == [(0.6, 60)]
    assert first.settled_at == NOW


# --- The permit ------------------------------------------------------------------------------------------------------


def test_a_call_that_waits_for_a_free_line_until_its_permit_is_over_does_not_start(service, provider, monkeypatch):
    claimed = defaultdict(list)

    def noted(*arguments, **keywords):
        before = time.monotonic()
        claims = ledger_claim(*arguments, **keywords)
        for person in chain.from_iterable(claim.people for claim in claims if claim):
            claimed[person.recipient_id].append(before)
        return claims

    ledger_claim = ledger.claim
    monkeypatch.setattr(ledger, "claim", noted)
    monkeypatch.setattr(sending, "PERMIT_S", 0.5)
    monkeypatch.setattr(sending, "TASK_S", 3.0)
    provider.meanwhile = staticmethod(lambda: time.sleep(1.2))
    people(200)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    with ThreadPoolExecutor(max_workers=1) as one_line:  # four claims meet one line
        monkeypatch.setattr(sending, "_executor", lambda: one_line)
        sending.send(batch_ids=message.batch_ids)
    assert_books_close()
    assert len(provider.calls) < sum(len(times) for times in claimed.values()) / 50
    for call in provider.calls:
        last = max(at for at in claimed[call.messages[0].recipient_id] if at <= call.started_at)
        assert call.started_at - last <= 1.1
    assert set(states(schedule)) <= {"sent", "pending"}
    assert set(provider.reached().values()) == {1}


# --- A database that comes and goes ----------------------------------------------------------------------------------


@contextmanager
def losing(monkeypatch, *, commit, before):
    """The ``commit``-th transaction of the sender loses its connection, before or after the server has committed."""
    count = [0]

    @contextmanager
    def atomic():
        with transaction.atomic():
            yield
            count[0] += 1
            if before and count[0] == commit:
                raise OperationalError("server closed the connection unexpectedly")
        if not before and count[0] == commit:
            raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patched:
        patched.setattr(sending, "transaction", SimpleNamespace(atomic=atomic))
        yield count


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("before", [True, False], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("commit", [1, 2, 3, 5])
def test_a_connection_lost_at_a_commit_neither_loses_nor_repeats_anyone(service, provider, monkeypatch, commit, before):
    people(320)
    schedule = ScheduleFactory()
    service.open()
    with losing(monkeypatch, commit=commit, before=before) as count:
        service.send()
    assert count[0] >= commit
    service.send(rounds=3)
    assert states(schedule) == {"sent": 320}
    assert set(provider.reached().values()) == {1}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("before", [True, False], ids=["before the commit", "after the commit"])
def test_a_connection_lost_at_a_commit_leaves_one_in_app_message_each(service, monkeypatch, before):
    people(700)
    schedule = ScheduleFactory(channel="in_app")
    service.open()
    with losing(monkeypatch, commit=2, before=before):
        service.send()
    assert states(schedule) == {"sent": 700}
    assert InboxMessage.objects.count() == 700


@pytest.mark.django_db(transaction=True)
def test_a_database_that_stays_away_is_given_up_and_what_was_called_is_unknown_to_us(service, provider, monkeypatch):
    people(30)
    schedule = ScheduleFactory()
    service.open()
    monkeypatch.setattr(sending, "PATIENCE_S", 0.0)

    def away(*_, **__):
        raise OperationalError("the server is gone")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "settle", away)
        with pytest.raises(OperationalError):
            service.send()
    assert states(schedule) == {"sending": 30}
    expire_leases()
    service.sweep()
    assert reasons(schedule) == {"unknown: worker_lost": 30}


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_the_provider_is_called(service, provider):
    people(30)
    ScheduleFactory()
    service.open()
    seen = []

    def meanwhile():
        time.sleep(0.1)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state = 'idle in transaction'"
            )
            seen.append(cursor.fetchone()[0])
        connections.close_all()

    provider.meanwhile = staticmethod(meanwhile)
    service.send()
    assert seen == [0]

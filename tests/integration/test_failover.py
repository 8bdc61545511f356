"""Several providers of one channel: the next takes the place of one that is away, and nobody is written to by both."""

from uuid import uuid4

import pytest
from django.db import OperationalError, transaction
from prometheus_client import generate_latest

from audit.models import Action, AuditEvent
from delivery import circuits, ledger, routes
from delivery.ledger import Tally
from delivery.metrics import Figures
from delivery.models import Circuit, Delivery, State
from delivery.providers import registry
from delivery.providers.base import Answer, Verdict
from frontend import notices
from frontend.wording.events import tell
from schedules.permissions import Role
from tests.accounts import account
from tests.factories import NOW, ScheduleFactory, people
from tests.recording import RecordingProvider, Understudy, sent
from tests.service import MINUTE, expire_leases, let_probe, reasons, states

pytestmark = pytest.mark.django_db

FIRST, SECOND = "tests.recording.RecordingProvider", "tests.recording.Understudy"
OF_FIRST, OF_SECOND = f"email:{FIRST}", f"email:{SECOND}"


@pytest.fixture(autouse=True)
def _two(settings, provider):
    settings.PROVIDERS = {**settings.PROVIDERS, "email": f"{FIRST}, {SECOND}"}
    settings.CALLS_IN_FLIGHT = 1
    registry.chain.cache_clear()
    routes.forget()
    Understudy.reset()
    yield
    routes.forget()


def scopes() -> set[str]:
    return set(Circuit.objects.values_list("scope", flat=True))


def reached_twice() -> set[int]:
    return {who for who, times in (RecordingProvider.reached() + Understudy.reached()).items() if times > 1}


def test_the_first_of_them_is_asked_and_the_others_are_not(service):
    people(120)
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 120}
    assert Understudy.calls == []
    assert scopes() == set()


def test_one_that_refuses_the_account_is_passed_over_and_nobody_pays_for_it(service):
    people(120)
    schedule = ScheduleFactory()
    RecordingProvider.answers(Verdict.MISCONFIGURED, "account_suspended", detail="403")
    service.step()
    service.after(MINUTE).send(rounds=5)
    assert states(schedule) == {"sent": 120}
    assert len(RecordingProvider.calls) == 1
    assert set(Understudy.reached().values()) == {1}
    assert set(Delivery.objects.values_list("attempt", flat=True)) == {1}
    assert scopes() == {OF_FIRST}  # the channel itself is not held
    assert Circuit.objects.get().reason == "account_suspended"


def test_one_that_is_away_is_passed_over_after_some_calls(service):
    people(400)
    schedule = ScheduleFactory()
    RecordingProvider.answers(Verdict.TRANSIENT, "unreachable")
    service.step()
    assert len(RecordingProvider.calls) == routes.AWAY_CALLS
    assert scopes() == {OF_FIRST}
    service.after(MINUTE).send(rounds=9)
    assert states(schedule) == {"sent": 400}
    assert len(RecordingProvider.calls) == routes.AWAY_CALLS
    assert set(Understudy.reached().values()) == {1}


def test_an_answer_in_between_says_that_it_is_there(service):
    persons = people(400)
    schedule = ScheduleFactory()
    there = {person.pk for person in persons[::60]}  # somebody of every call
    RecordingProvider.answer = staticmethod(
        lambda message: (
            sent(message) if message.recipient_id in there else Answer(message.key, Verdict.TRANSIENT, "unreachable")
        )
    )
    service.step()
    assert Understudy.calls == []
    assert states(schedule) == {"sent": len(there), "pending": 400 - len(there)}


def test_what_one_may_have_accepted_is_never_handed_to_another(service):
    persons = people(400)
    schedule = ScheduleFactory()
    RecordingProvider.answers(Verdict.UNKNOWN, "no_answer")
    service.step()
    unclear = set(RecordingProvider.reached())
    assert len(unclear) == 50 * routes.AWAY_CALLS
    service.after(MINUTE).send(rounds=9)
    assert states(schedule) == {"unknown": len(unclear), "sent": 400 - len(unclear)}
    assert set(Understudy.reached()) == {person.pk for person in persons} - unclear
    Delivery.objects.filter(state=State.UNKNOWN).update(leased_until=NOW - 60 * MINUTE)
    service.sweep()
    service.after(MINUTE).send(rounds=3)
    assert reasons(schedule)["failed: outcome_unknown"] == len(unclear)
    assert not reached_twice()


def test_an_error_after_which_it_may_have_arrived_is_unclear(service):
    people(1)
    schedule = ScheduleFactory()
    RecordingProvider.answers(Verdict.TRANSIENT, "provider_error", may_have_arrived=True)
    service.step()
    assert states(schedule) == {"unknown": 1}


def test_a_lost_worker_is_unclear_though_each_of_them_could_repeat(service, monkeypatch):
    monkeypatch.setattr(RecordingProvider, "repeats_unknown", True)
    monkeypatch.setattr(Understudy, "repeats_unknown", True)
    people(3)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    (work,) = ledger.take_up(message.batch_ids, now=NOW)
    tally = Tally()
    with transaction.atomic():
        ledger.claim([work], token=uuid4(), limit=50, now=NOW, tally=tally)
        tally.flush()
    expire_leases()
    service.sweep()
    assert states(schedule) == {"unknown": 3}


def test_a_single_message_asks_how_it_is_and_its_answer_brings_it_back(service):
    people(10)
    circuits.open_circuit(OF_FIRST, reason="unreachable", detail="", now=NOW)
    let_probe(OF_FIRST)
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 10}
    assert [len(call.messages) for call in RecordingProvider.calls] == [1]
    assert [len(call.messages) for call in Understudy.calls] == [9]
    assert scopes() == set()
    ScheduleFactory()
    service.after(MINUTE).step()
    assert [len(call.messages) for call in RecordingProvider.calls] == [1, 10]


@pytest.mark.parametrize(
    ("verdict", "reason"), [(Verdict.TRANSIENT, "unreachable"), (Verdict.MISCONFIGURED, "account_suspended")]
)
def test_a_probe_in_vain_costs_one_person_a_wait_and_doubles_its_own(service, verdict, reason):
    people(10)
    circuits.open_circuit(OF_FIRST, reason="unreachable", detail="", now=NOW)
    let_probe(OF_FIRST)
    RecordingProvider.answers(verdict, reason)
    schedule = ScheduleFactory()
    service.step()
    assert states(schedule) == {"sent": 9, "pending": 1}
    assert Circuit.objects.get().openings == 2
    service.after(MINUTE).send(rounds=3)
    assert states(schedule) == {"sent": 10}
    assert not {who for who, times in Understudy.reached().items() if times > 1}


def test_where_all_of_them_refuse_the_channel_is_held_and_a_probe_frees_it(service):
    people(300)
    schedule = ScheduleFactory()
    for each in (RecordingProvider, Understudy):
        each.answers(Verdict.MISCONFIGURED, "account_suspended")
    for _ in range(5):
        service.step()
        service.after(MINUTE)
    assert scopes() == {OF_FIRST, OF_SECOND, "email"}
    assert states(schedule) == {"pending": 300}
    assert set(Delivery.objects.values_list("attempt", flat=True)) == {0}
    assert len(RecordingProvider.calls) + len(Understudy.calls) <= 4
    Understudy.reset()
    RecordingProvider.reset()
    let_probe()
    service.send(rounds=9)
    assert states(schedule) == {"sent": 300}
    assert scopes() == {OF_SECOND}
    assert not reached_twice()


def test_while_the_database_does_not_say_what_was_known_last_holds(service, monkeypatch):
    people(2)
    schedule = ScheduleFactory()

    def away(_scopes):
        raise OperationalError("gone")

    monkeypatch.setattr(circuits, "ask", away)
    service.step()
    assert states(schedule) == {"sent": 2}
    assert Understudy.calls == []


def test_people_are_told_in_words_and_alarms_by_a_number(service, client):
    circuits.open_circuit(OF_FIRST, reason="unreachable", detail="", now=NOW)
    figures = generate_latest(Figures(now=lambda: NOW)).decode()
    assert f'provider_passed_over{{channel="email",provider="{FIRST}",reason="unreachable"}} 1.0' in figures
    assert f'provider_passed_over{{channel="email",provider="{SECOND}",reason=""}} 0.0' in figures
    assert 'provider_circuit_open{channel="email",reason=""} 0.0' in figures
    (told,) = notices.banners()
    assert told.startswith(f"E-mail goes by another provider: {FIRST} is passed over since ")
    assert "The provider could not be reached." in told
    client.force_login(account(Role.ADMIN))
    dashboard = client.get("/dashboard/").content.decode()
    assert (
        f"{FIRST} is passed over, and another provider takes its calls. The provider could not be reached." in dashboard
    )
    assert f"E-mail by {FIRST}" in client.get("/admin/delivery/circuit/").content.decode()
    event = AuditEvent.objects.get(action=Action.CIRCUIT_OPEN)
    assert event.payload_diff["provider"] == FIRST
    (said,) = tell([event])
    assert f"E-mail by {FIRST}" in said.plain or f"by {FIRST}" in said.plain


def test_another_worker_learns_it_within_a_second(service, monkeypatch):
    people(1)
    ScheduleFactory()
    routes.of("email")
    circuits.open_circuit(OF_FIRST, reason="unreachable", detail="", now=NOW)
    assert routes.of("email").route.scope == OF_FIRST
    monkeypatch.setattr(routes, "_FRESH_S", 0.0)
    service.step()
    assert RecordingProvider.calls == []
    assert len(Understudy.calls) == 1


def test_a_call_is_no_larger_than_what_the_smallest_of_them_takes(service, monkeypatch):
    monkeypatch.setattr(Understudy, "max_per_call", 7)
    people(20)
    schedule = ScheduleFactory()
    RecordingProvider.answers(Verdict.MISCONFIGURED, "account_suspended")
    service.step()
    assert [len(call.messages) for call in RecordingProvider.calls] == [7]
    service.after(MINUTE).send(rounds=9)
    assert states(schedule) == {"sent": 20}
    assert max(len(call.messages) for call in Understudy.calls) <= 7

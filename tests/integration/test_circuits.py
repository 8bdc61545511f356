"""The circuit: a provider that refuses the account is left alone, nobody pays for it, and one claim asks how it is."""

import time
from uuid import uuid4

import pytest
from django.db import connection, transaction

from delivery import circuits, ledger, sending
from delivery.ledger import Tally
from delivery.models import Batch, Circuit, Delivery, FailedAttempt, State
from delivery.providers import registry
from delivery.providers.base import Answer, Verdict
from schedules.models import Recipient
from stubs.testing import running_ses
from tests.factories import NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory, people
from tests.recording import sent
from tests.service import HOUR, MINUTE, in_threads, let_probe, only_occurrence, reasons, row_of, states

pytestmark = pytest.mark.django_db


def wait_s():
    """Real seconds until the circuit's next probe."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM probe_at - clock_timestamp())::float8 FROM delivery_circuit")
        ((seconds,),) = cursor.fetchall()
        return seconds


def open_email(**fields):
    circuits.open_circuit("email", **{"reason": "credentials", "detail": "", "now": NOW, **fields})


def claim_of(batch_id):
    """A worker's claim in a transaction of its own."""
    (work,) = ledger.take_up([batch_id], now=NOW)
    tally = Tally()
    with transaction.atomic():
        claim = ledger.claim([work], token=uuid4(), limit=50, now=NOW, tally=tally)[0]
        tally.flush()
    return claim


# --- Opening ---------------------------------------------------------------------------------------------------------


def test_a_refused_account_opens_the_circuit_with_what_the_provider_said(service, provider):
    people(3)
    schedule = ScheduleFactory()
    provider.answers(Verdict.MISCONFIGURED, "credentials", detail="403 InvalidClientTokenId")
    service.step()
    circuit = Circuit.objects.get()
    assert (circuit.scope, circuit.reason, circuit.detail) == ("email", "credentials", "403 InvalidClientTokenId")
    assert (circuit.opened_at, circuit.openings) == (NOW, 1)
    assert 25 < wait_s() <= 30
    assert reasons(schedule) == {"pending: credentials": 3}


def test_only_the_calls_under_way_learn_that_the_account_is_refused_and_nobody_pays_for_it(service, provider):
    people(2_000)
    schedule = ScheduleFactory()
    provider.answers(Verdict.MISCONFIGURED, "credentials")
    for _ in range(4):
        service.step()
        service.after(MINUTE)
    assert 1 <= len(provider.calls) <= 10
    assert states(schedule) == {"pending": 2_000}
    assert set(Delivery.objects.values_list("attempt", "claim_token")) == {(0, None)}
    assert not FailedAttempt.objects.exists()
    assert Circuit.objects.get().openings == 1


def test_while_it_is_open_nothing_is_published_and_an_old_message_claims_nobody(service, provider):
    people(3)
    schedule = ScheduleFactory()
    service.open()
    (message,) = service.publish()
    open_email()
    sending.send(batch_ids=message.batch_ids)
    assert provider.calls == []
    assert reasons(schedule) == {"pending: ": 3}
    assert only_occurrence(schedule).begun_at is None
    assert Batch.objects.get().queued_at is None
    assert service.publish() == []


def test_other_channels_go_on(service, provider):
    DeviceFactory()
    schedules = {channel: ScheduleFactory(channel=channel) for channel in ("email", "push", "in_app")}
    open_email()
    service.step()
    assert states(schedules["email"]) == {"pending": 1}
    assert states(schedules["push"]) == states(schedules["in_app"]) == {"sent": 1}


def test_where_the_quota_ends_within_a_call_those_before_are_sent_and_the_others_wait(service, provider):
    persons = people(10)
    quota = {person.pk for person in persons[6:]}
    provider.answer = staticmethod(
        lambda message: (
            Answer(message.key, Verdict.MISCONFIGURED, "daily_quota")
            if message.recipient_id in quota
            else sent(message)
        )
    )
    schedule = ScheduleFactory()
    service.step()
    assert reasons(schedule) == {"sent: ": 6, "pending: daily_quota": 4}
    assert Circuit.objects.get().reason == "daily_quota"
    provider.reset()
    let_probe()
    service.after(MINUTE).step()
    assert states(schedule) == {"sent": 10}
    assert provider.reached() == dict.fromkeys(quota, 1)
    assert not Circuit.objects.exists()


def test_the_daily_quota_of_ses_reported_for_single_entries_opens_the_circuit(service, settings, monkeypatch, tmp_path):
    settings.PROVIDERS = {**settings.PROVIDERS, "email": "ses"}
    settings.EMAIL_FROM, settings.AWS_REGION = "shop@example.com", "eu-central-1"
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(name, value)
    persons = people(5)
    schedule = ScheduleFactory()
    with running_ses(log=tmp_path / "sent.ndjson") as stub:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SESV2", stub.url)
        registry.chain.cache_clear()
        fault = {"kind": "bulk_entry_status", "code": "ACCOUNT_DAILY_QUOTA_EXCEEDED"}
        stub.fault({**fault, "match": {"to": persons[4].email}})
        try:
            service.step()
            assert reasons(schedule) == {"sent: ": 4, "pending: daily_quota": 1}
            assert Circuit.objects.get().reason == "daily_quota"
            stub.fault()
            let_probe()
            service.after(MINUTE).step()
        finally:
            registry.chain.cache_clear()
        assert states(schedule) == {"sent": 5}
        assert len(stub.messages()) == 5
    assert row_of(schedule, persons[4]).attempt == 1


# --- Probing ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_of_many_claims_at_once_one_is_the_probe(service, provider, settings):
    settings.BATCH_SIZE = 20
    people(160)
    ScheduleFactory()
    service.open()
    batches = list(Batch.objects.order_by("id").values_list("pk", flat=True))
    assert len(batches) == 8
    open_email()
    for _ in range(4):
        let_probe()
        claims = in_threads(*[lambda pk=pk: claim_of(pk) for pk in batches])
        (probe,) = [claim for claim in claims if claim is not None]
        assert probe.is_probe
        batches.remove(probe.work.batch_id)
    assert Delivery.objects.filter(state=State.SENDING).count() == 80


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_make_one_probe_and_its_refusal_holds_both(service, provider, monkeypatch):
    people(400)
    schedules = [ScheduleFactory(), ScheduleFactory()]
    service.open()
    batch_ids = [batch_id for message in service.publish() for batch_id in message.batch_ids]
    open_email()
    let_probe()
    probes = []

    def noted(*arguments, **keywords):
        claims = original(*arguments, **keywords)
        probes.extend(claim for claim in claims if claim)
        return claims

    original = ledger.claim
    monkeypatch.setattr(ledger, "claim", noted)
    provider.answers(Verdict.MISCONFIGURED, "credentials")
    provider.meanwhile = staticmethod(lambda: time.sleep(0.2))
    in_threads(*[lambda: sending.send(batch_ids=batch_ids)] * 2)
    (probe,) = probes
    assert provider.reached() == {person.recipient_id: 1 for person in probe.people}
    assert [states(schedule) for schedule in schedules] == [{"pending": 400}] * 2
    assert Circuit.objects.get().openings == 2


def test_a_probe_that_is_answered_well_closes_the_circuit_for_everyone(service, provider):
    people(300)
    schedule = ScheduleFactory()
    provider.answers(Verdict.MISCONFIGURED, "credentials")
    service.step()
    provider.reset()
    let_probe()
    service.after(MINUTE).send(rounds=3)  # who met it open while the probe was under way comes next
    assert states(schedule) == {"sent": 300}
    assert set(provider.reached().values()) == {1}
    assert set(Delivery.objects.values_list("attempt", flat=True)) == {1}
    assert not Circuit.objects.exists()


@pytest.mark.parametrize(
    ("verdict", "is_closed"),
    [(Verdict.PERMANENT, True), (Verdict.THROTTLED, True), (Verdict.TRANSIENT, False), (Verdict.UNKNOWN, False)],
)
def test_only_a_probes_answer_that_speaks_for_the_account_closes_it(service, provider, verdict, is_closed):
    people(1)
    ScheduleFactory()
    open_email()
    let_probe()
    provider.answers(verdict)
    service.step()
    assert len(provider.calls) == 1
    assert Circuit.objects.exists() is not is_closed


def test_each_probe_in_vain_doubles_the_wait_up_to_a_quarter_of_an_hour(service, provider):
    people(1)
    ScheduleFactory()
    provider.answers(Verdict.MISCONFIGURED, "credentials")
    waits = []
    for _ in range(7):
        service.step()
        waits.append(wait_s())
        service.after(MINUTE)
        let_probe()
    expected = [30, 60, 120, 240, 480, 900, 900]
    assert [0.9 * each < wait <= each for wait, each in zip(waits, expected, strict=True)] == [True] * 7
    assert Circuit.objects.get().openings == 7
    assert Circuit.objects.get().opened_at == NOW
    assert len(provider.calls) == 7


def test_calls_under_way_together_open_it_once(service):
    for _ in range(3):
        open_email()
    assert Circuit.objects.get().openings == 1
    assert wait_s() <= 30
    open_email(reason="daily_quota")
    assert Circuit.objects.get().reason == "daily_quota"


def test_a_probe_whose_worker_dies_is_followed_by_another(service, provider):
    people(60)
    schedule = ScheduleFactory()
    service.open()
    open_email()
    let_probe()
    (message,) = service.publish()
    assert len(claim_of(message.batch_ids[0]).people) == 50
    assert 10 < wait_s() <= 15
    assert claim_of(message.batch_ids[0]) is None
    let_probe()
    sending.send(batch_ids=message.batch_ids)
    assert states(schedule) == {"sending": 50, "sent": 10}
    assert not Circuit.objects.exists()


@pytest.mark.parametrize("flaw", ["opted out", "not rendered", "gone"])
def test_a_probe_in_which_nobody_is_sent_to_proves_nothing(service, provider, flaw):
    person = RecipientFactory(consent={"email": flaw != "opted out"}, attributes={"points": "many"})
    text = "{{ points + 1 }}" if flaw == "not rendered" else "Hello"
    schedule = ScheduleFactory(template_id=TemplateFactory(text=text).pk)
    service.open()
    if flaw == "gone":
        Recipient.objects.filter(pk=person.pk).delete()
    open_email()
    let_probe()
    service.send()
    assert provider.calls == []
    assert states(schedule).keys() <= {"suppressed", "failed", "erased"}
    assert Circuit.objects.get().openings == 1


def test_a_probe_that_never_left_the_house_proves_nothing(service, provider):
    people(1)
    schedule = ScheduleFactory()
    open_email()
    let_probe()
    provider.answers(Verdict.NOT_STARTED)
    service.step()
    assert reasons(schedule) == {"pending: ": 1}
    assert Circuit.objects.get().openings == 1


def test_a_probe_whose_message_was_refused_in_the_house_proves_nothing(service, provider):
    (person,) = people(1)
    schedule = ScheduleFactory()
    open_email()
    let_probe()
    provider.answers(Verdict.PERMANENT, "address_not_ascii", asked=False)
    service.step()
    assert reasons(schedule) == {"failed: address_not_ascii": 1}
    assert row_of(schedule, person).called_at is None
    assert Circuit.objects.get().openings == 1


def test_who_waited_for_the_circuit_is_sent_to_however_late_it_closes(service, provider):
    people(300)
    schedule = ScheduleFactory()
    provider.answers(Verdict.MISCONFIGURED, "credentials")
    service.step()
    provider.reset()
    let_probe()
    service.after(5 * HOUR).send(rounds=3)
    assert states(schedule) == {"sent": 300}

"""From Amazon's word to everything that shows it: a message is sent, SES tells what became of it, and the ledger, the
pages of the run and of the person, and the metrics say so within seconds."""

import json
import time
from datetime import timedelta

import pytest
from django.test import Client

from delivery.events import sns
from delivery.models import Delivery, Feedback, News, State
from delivery.providers import registry
from delivery.providers.ses import SesProvider
from scheduler_project.local.ports import free_port
from schedules import outgoing
from schedules.models import Recipient
from schedules.permissions import Role
from stubs.ses_events import record
from stubs.sns import Sns, body_of
from stubs.testing import running_ses
from tests.accounts import signed_in
from tests.factories import RecipientFactory, ScheduleFactory
from tests.told_by_ses import LOOPBACK, ORIGIN, TOPIC, Web, accepted

SEND_AGAIN = timedelta(days=1)


def metrics():
    page = Client().get("/metrics").content.decode()
    return dict(line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#"))


def key_of(row):
    return f"{row.day:%Y%m%d}-{row.occurrence_id}-{row.recipient_id}"


@pytest.fixture
def amazon(settings, monkeypatch):
    settings.SNS_TOPICS = [TOPIC]
    server = Sns(ORIGIN, TOPIC)
    monkeypatch.setattr(outgoing, "fetch", Web(server).fetch)
    sns.forget_certificates()
    return server


@pytest.fixture
def tell(amazon):
    """Tells of a delivery, as SNS would; the answer's status."""

    def tell(kind, row, **changes):
        message = accepted(key_of(row), message_id=row.provider_id or "0100-unknown", **changes)
        body = body_of(amazon.notification(json.dumps(record(kind, message))))
        return Client().post("/hooks/ses", body, content_type="text/plain; charset=UTF-8").status_code

    return tell


@pytest.mark.django_db
def test_a_hard_bounce_shows_in_the_ledger_in_the_metrics_and_in_the_next_run(service, tell, caplog):
    eva = RecipientFactory(external_id="eva", email="eva@example.com")
    RecipientFactory(external_id="max", email="max@example.com")
    schedule = ScheduleFactory(cron="0 10 * * *")
    service.run_to(service.now + SEND_AGAIN)
    row = Delivery.objects.get(recipient_id=eva.pk)
    assert State(row.state) is State.SENT
    before = metrics()

    assert tell("Bounce", row, to="eva@example.com") == 204
    told = Feedback.objects.get(recipient_id=eva.pk)
    assert (News(told.news), told.detail) == (News.BOUNCED_HARD, "Permanent/General 5.1.1")
    after = metrics()
    assert "provider_events_settled" in caplog.text
    assert "eva@example.com" not in caplog.text
    name = 'notifications_bounced_total{channel="email",kind="hard"}'
    assert float(after[name]) - float(before[name]) == 1
    # Twice is once.
    assert tell("Bounce", row, to="eva@example.com") == 204
    assert metrics()[name] == after[name]
    assert Feedback.objects.count() == 1

    reader = signed_in(Role.ANALYST)
    for page in (
        f"/ledger/{row.occurrence_id}/{row.recipient_id}/",  # what happened to the message
        f"/recipients/{eva.pk}/",
    ):
        assert "came back" in reader.get(page).content.decode().lower(), page
    run = reader.get(f"/occurrences/{row.occurrence_id}/").content.decode()
    assert "Came back" in run

    service.run_to(service.now + SEND_AGAIN)
    (second,) = Delivery.objects.filter(recipient_id=eva.pk).exclude(occurrence_id=row.occurrence_id)
    assert (State(second.state), second.reason) == (State.SUPPRESSED, "bounced")
    assert schedule.occurrences.count() == 2
    others = Delivery.objects.exclude(recipient_id=eva.pk)
    assert {State(each.state) for each in others} == {State.SENT}


@pytest.mark.django_db(transaction=True)
def test_the_stub_tells_by_signed_calls_what_became_of_what_was_sent_to_it(service, live_server, settings, monkeypatch):
    """Everything over HTTP: the sending, the subscription, the certificate, the events."""
    rules = json.dumps(
        [{"event": "bounce", "match": {"to": "gone@*"}}, {"event": "complaint", "match": {"to": "cross@*"}}]
    )
    options = ["--events", rules, "--events-pace", "0.02", "--sns-to", f"{live_server.url}/hooks/ses"]
    for name in ("good", "gone", "cross"):
        RecipientFactory(external_id=name, email=f"{name}@example.com")
    settings.SNS_TOPICS = [TOPIC]
    settings.OUTGOING_ALLOWED_NETWORKS = LOOPBACK
    sns.forget_certificates()
    port = free_port()
    settings.SNS_ENDPOINT = f"http://127.0.0.1:{port}"
    with running_ses(options=options, port=port) as stub:
        for name, value in stub.variables().items():
            monkeypatch.setenv(name, value)
        settings.PROVIDERS = {**settings.PROVIDERS, "email": "ses"}
        registry.chain.cache_clear()
        assert isinstance(registry.for_channel("email"), SesProvider)
        ScheduleFactory()
        service.step()
        assert {State(row.state) for row in Delivery.objects.all()} == {State.SENT}
        expected = {"good": News.DELIVERED, "gone": News.BOUNCED_HARD, "cross": News.COMPLAINED}
        until = time.monotonic() + 120
        while (found := _news()) != expected and time.monotonic() < until:
            time.sleep(0.1)
    registry.chain.cache_clear()
    assert found == expected
    counted = metrics()
    assert float(counted['provider_events_total{kind="send",result="new"}']) == 3
    assert float(counted['provider_hooks_total{result="confirmed"}']) >= 1
    assert float(counted['provider_hooks_total{result="forged"}']) == 0


def _news():
    names = dict(Recipient.objects.values_list("pk", "external_id"))
    return {names[row.recipient_id]: News(row.news) for row in Feedback.objects.all()}

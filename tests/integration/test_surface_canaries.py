"""Planted values, logs at DEBUG and faults that quote what they were given: nothing that the service tells repeats one.

What it tells: every line of its logs as they are written, answers and pages of errors, messages to workers, metrics.
"""

import ast
import base64
import io
import json
import logging
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.management import CommandError
from django.db import DatabaseError, IntegrityError, OperationalError, connection, transaction
from django.test import Client

from delivery import calls, dispatch, tasks
from delivery.counters import CountersAway
from delivery.models import FailedAttempt
from delivery.providers.base import Verdict
from delivery.providers.fcm import FcmProvider
from delivery.providers.ses import SesProvider
from delivery.providers.smtp import SmtpProvider
from delivery.providers.webhook import WebhookProvider
from scheduler_project.celery import app as celery
from scheduler_project.logging import formatter
from scheduler_project.tasks import export_audit
from scheduler_project.tracebacks import without_values
from schedules import recipients, rotation
from schedules.imports import uploads
from schedules.imports.recipients import Format
from schedules.models import Schedule
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.api import Api, token
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory
from tests.http_double import HttpDouble, Reply, Request
from tests.searching import found_in_redis
from tests.service import MINUTE
from tests.smtp_double import SmtpDouble

pytestmark = pytest.mark.django_db

WORDS = ("zebulon", "quux-token", "planted.example", "secret-plan")
ID, ADDRESS, NAME = "zebulon-7", "zebulon.quux@planted.example", "Zebulon the Great"


def told(text: str) -> list[str]:
    return [word for word in WORDS if word in text.lower()]


@pytest.fixture
def logs():
    """Every line of every logger at DEBUG, as the service would write it; libraries are held back as it holds them."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter(as_json=True))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def planted(service):
    person = RecipientFactory.create(
        external_id=ID, email=ADDRESS, attributes={"first_name": NAME, "plan": "secret-plan"}
    )
    DeviceFactory.create(recipient=person, token="quux-token-1")
    return person


def violate(external_id: str = ID) -> None:
    """PostgreSQL refuses a row, and quotes it whole in its DETAIL."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO schedules_recipient (external_id, attributes) VALUES (%s, %s)", [external_id, f'"{NAME}"']
        )


def quoting(*_: Any, **__: Any) -> Any:
    raise ValueError(f"{NAME} <{ADDRESS}> is no {ID}")


def _echo(request: Request) -> Reply:
    """A provider that fails and repeats what it was asked."""
    said = {"message": request.body.decode(errors="replace"), "to": ADDRESS}
    return Reply(status=500, body=json.dumps(said).encode())


def test_the_database_does_quote_what_logs_then_leave_out(planted, logs):
    """Else the tests below would show nothing."""
    with pytest.raises(Exception, match=ID) as caught:
        violate()
    said = without_values((None, caught.value, None))
    assert told(said) == []
    assert "SQLSTATE 23502 schedules_recipient" in said
    logging.getLogger("any").warning("zebulon")
    assert told(logs.getvalue()) == ["zebulon"]


def test_the_embedded_servers_own_log_quotes_no_row_and_no_statement(service):
    log = Path(settings.LOCAL_DIR) / "logs" / "database.log"
    if not log.exists():
        pytest.skip("PostgreSQL is another's")
    word = f"zebulon-{uuid4().hex}"
    with pytest.raises(IntegrityError, match=word):
        violate(word)
    said = log.read_text(errors="replace")
    assert "violates not-null constraint" in said
    assert word not in said


def _by_ses(url: str) -> SesProvider:
    return SesProvider(sender="Shop <shop@example.com>", region="eu-central-1", endpoint_url=url)


def _by_fcm(url: str) -> FcmProvider:
    made = FcmProvider(project="p", endpoint=url)
    made._access = mock.Mock(headers=lambda _: ("t", {"authorization": "Bearer t"}))
    return made


def _by_webhook(url: str) -> WebhookProvider:
    return WebhookProvider(url=url, secret="whsec_" + base64.b64encode(b"24 bytes of chance, say.").decode())


@pytest.mark.parametrize(
    ("channel", "made"), [("email", _by_ses), ("push", _by_fcm), ("email", _by_webhook), ("push", _by_webhook)]
)
def test_a_provider_that_repeats_the_request_in_its_failure(planted, service, logs, monkeypatch, channel, made):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    template = TemplateFactory.create(subject="For {{ first_name }}", text="{{ plan }} {{ recipient.email }}")
    ScheduleFactory.create(template_id=template.pk, channel=channel)
    with HttpDouble(_echo) as double:
        chain = (made(double.url),)
        monkeypatch.setattr("delivery.providers.registry.chain", cache(lambda _: chain))
        service.step()
        assert double.requests, logs.getvalue()
    assert told(logs.getvalue()) == []
    kept = [*FailedAttempt.objects.values_list("reason", "detail")]
    assert told(str(kept)) == []


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "."])
def test_a_mail_server_that_repeats_what_it_was_told_in_its_refusal(planted, service, logs, monkeypatch, stage):
    template = TemplateFactory.create(subject="For {{ first_name }}", text="{{ plan }} {{ recipient.email }}")
    ScheduleFactory.create(template_id=template.pk)
    with SmtpDouble() as double:
        double.replies[stage] = f"550 5.1.1 <{ADDRESS}>: user unknown".encode()
        chain = (SmtpProvider(url=double.url, sender="Shop <shop@example.com>"),)
        monkeypatch.setattr("delivery.providers.registry.chain", cache(lambda _: chain))
        service.step()
        assert double.connections, logs.getvalue()
    assert told(logs.getvalue()) == []
    kept = [*FailedAttempt.objects.values_list("reason", "detail")]
    assert ("user unknown" in str(kept)) == (stage != "MAIL")  # that is the account's fault, and nobody's attempt
    assert told(str(kept)) == []


def test_a_provider_and_a_template_that_break_in_our_hands(planted, service, provider, logs, monkeypatch):
    breaking = TemplateFactory.create(subject="{{ first_name + 1 }}", text="{{ plan // 0 }}")
    ScheduleFactory.create(template_id=breaking.pk)
    ScheduleFactory.create()
    provider.answer = staticmethod(quoting)
    service.step()
    monkeypatch.setattr(calls, "compose", quoting)
    ScheduleFactory.create(run_at=NOW + MINUTE)
    service.run_to(NOW + MINUTE)
    assert "provider_raised" in logs.getvalue()
    assert "compose_raised" in logs.getvalue()
    assert told(logs.getvalue()) == []


def _failing(kind: type[Exception]) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise kind(f"{NAME} <{ADDRESS}> is no {ID}")

    return fail


def test_whoever_goes_on_after_an_error_tells_its_kind_alone(planted, service, provider, logs, monkeypatch):
    """Each place that catches an error and writes a line of it."""
    for number, (name, kind) in enumerate({"compose": OperationalError, "_reserve": CountersAway}.items()):
        ScheduleFactory.create(run_at=NOW + number * MINUTE)
        with monkeypatch.context() as patched:
            patched.setattr(calls, name, _failing(kind))
            service.run_to(NOW + number * MINUTE)
    provider.answers(Verdict.MISCONFIGURED, "credentials", detail=f"{NAME} <{ADDRESS}>")
    ScheduleFactory.create(run_at=NOW + 2 * MINUTE)
    service.run_to(NOW + 2 * MINUTE)
    monkeypatch.setattr("delivery.metrics._strays", _failing(DatabaseError))
    Client().get("/metrics")
    monkeypatch.setattr(rotation, "stale_indexes", _failing(DatabaseError))
    monkeypatch.setattr(rotation, "connection", mock.Mock())
    rotation.tell_stale()
    monkeypatch.setattr("scheduler_project.tasks.call_command", _failing(CommandError))
    export_audit()
    monkeypatch.setattr(recipients, "find", _failing(OperationalError))
    assert Api(token()).get("recipients/anybody").status_code == 503
    monkeypatch.setattr("frontend.sign_in.Token.post", _failing(OperationalError))
    assert Client().post("/oauth/token", {"grant_type": "client_credentials"}).status_code == 503
    written = [json.loads(line) for line in logs.getvalue().splitlines()]
    kinds = {line["event"]: line.get("error") for line in written}
    assert {event: kinds.get(event, "not told").rpartition(".")[2] for event in _KINDS} == _KINDS
    assert "circuit_open" in kinds
    assert told(logs.getvalue()) == []


_KINDS = {
    "database_away": "OperationalError",
    "counters_away": "CountersAway",
    "metrics_incomplete": "DatabaseError",
    "indexes_not_compared": "DatabaseError",
    "audit_not_exported": "CommandError",
    "api_database_away": "OperationalError",
    "sign_in_database_away": "OperationalError",
}


def test_no_line_is_made_of_an_errors_own_words():
    """A line holds the error itself, of which ``scheduler_project.logging`` tells what may be told."""
    root = Path(__file__).resolve().parents[2]
    made = [
        f"{path.relative_to(root)}:{call.lineno}"
        for app in ("audit", "schedules", "delivery", "frontend", "scheduler_project")
        for path in (root / app).rglob("*.py")
        for handler in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(handler, ast.ExceptHandler) and handler.name
        for call in ast.walk(handler)
        if isinstance(call, ast.Call) and _is_of_a_log(call.func) and _quotes(call, handler.name)
    ]
    assert made == []


def _is_of_a_log(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and getattr(function.value, "id", "") in ("log", "_log")


def _quotes(call: ast.Call, error: str) -> bool:
    """Whether what it is given is a text made of the error."""
    given = [*call.args, *(each.value for each in call.keywords)]
    return any(
        isinstance(part, ast.Call | ast.JoinedStr | ast.BinOp)
        and any(isinstance(name, ast.Name) and name.id == error for name in ast.walk(part))
        for value in given
        for part in ast.walk(value)
    )


def test_requests_that_can_not_be_read_or_that_fail(planted, service, logs, monkeypatch):
    api, admin, nobody = Api(token()), signed_in(Role.ADMIN), Client(raise_request_exception=False)
    admin.raise_request_exception = False
    answers = [
        api.call("PUT", "recipients/somebody", f'{{"email": "{ADDRESS}", "attributes": {{'.encode()),
        api.call("POST", "schedules", f'{{"name": "{NAME}", "name": "{NAME}"}}'.encode()),
        api.call("POST", "recipients:bulk", f"{ADDRESS}\n".encode(), content_type="text/plain"),
        api.post("audiences:preview", {"audienceQuery": {"field": "attributes.x", "op": "gt", "value": NAME}}),
        nobody.post("/hooks/user-service", json.dumps({"data": {"externalId": ID}}), content_type="application/json"),
        nobody.post("/admin/login/", {"username": ADDRESS, "password": NAME}),
    ]
    for fault in (violate, quoting):
        monkeypatch.setattr(recipients, "find", lambda fault=fault, **_: fault())
        answers.append(api.get("recipients/anybody"))
        monkeypatch.setattr("frontend.pages.messages.framed", lambda *_, fault=fault, **__: fault())
        answers.append(admin.get("/outbox/"))
    assert [answer.status_code for answer in answers[-4:]] == [500] * 4
    for answer in answers[:5] + answers[-4:]:
        assert told(answer.content.decode()) == [], answer.content[:500]
    assert logs.getvalue().count('"exception"') >= 4
    assert told(logs.getvalue()) == []


def test_an_upload_that_fails_half_way(planted, service, logs, monkeypatch):
    line = json.dumps({"externalId": ID, "email": ADDRESS, "attributes": {"plan": "secret-plan"}}).encode()
    for fault in (violate, quoting):
        kept = uploads.keep(name="people.ndjson", chunks=[line], format=Format.NDJSON, by=BY, now=NOW)
        with monkeypatch.context() as patched:
            patched.setattr(uploads, "_read", lambda *_, fault=fault, **__: fault())
            uploads.run(import_id=kept.pk, now=NOW)
        kept.refresh_from_db()
        assert told(kept.detail) == []
    assert "import_failed" in logs.getvalue()
    assert told(logs.getvalue()) == []


def test_messages_to_workers_and_a_task_that_fails(planted, service, provider, logs, monkeypatch):
    ScheduleFactory.create()
    sent: list[Any] = []
    for task in (tasks.send, tasks.materialise_occurrences, tasks.send_test, tasks.import_people):
        monkeypatch.setattr(task, "apply_async", lambda *args, **options: sent.append((args, options)))
    tasks.tick()
    service.materialise()
    tasks.tick()
    assert sent
    assert told(str(sent)) == []
    assert found_in_redis(WORDS) == []
    failing = celery.task(name="test.failing")(quoting)
    failing.apply(args=[NAME], kwargs={"to": ADDRESS})
    assert '"task_failed"' in logs.getvalue()
    assert told(logs.getvalue()) == []


def test_metrics_and_health_name_nobody(planted, service, provider):
    ScheduleFactory.create(name="Zebulon's schedule")
    service.step()
    assert told(Client().get("/metrics").content.decode()) == []


def test_what_keeps_schedules_from_being_read_is_told_without_its_words(planted, service, provider, logs, monkeypatch):
    ScheduleFactory.create()
    ScheduleFactory.create(cron="1 10 * * *")
    monkeypatch.setattr(calls, "read_pinned", quoting)
    monkeypatch.setattr(dispatch, "next_firing", quoting)
    service.step()
    service.after(MINUTE).tick()
    events = {json.loads(line)["event"]: line for line in logs.getvalue().splitlines()}
    assert all("ValueError" in events[event] for event in ("pinned_not_read", "schedule_broken"))
    assert told(str(Schedule.objects.values_list("status_reason", flat=True))) == []
    assert told(logs.getvalue()) == []

"""What the service tells in passing: log lines of requests, filters of lists, messages shown to who sees no address."""

import io
import json
import logging

import pytest
from django.test import Client

from delivery import test_sends
from delivery.models import InboxMessage, OutboxMessage
from frontend.urls import site
from scheduler_project.logging import formatter
from schedules.models import Occurrence
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.api import Api, token
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory

pytestmark = pytest.mark.django_db


# --- Logs -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def lines():
    """What the service's own logging writes, line by line."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter(as_json=True))
    root = logging.getLogger()
    root.addHandler(handler)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    root.removeHandler(handler)


def test_a_refused_request_is_a_line_with_its_route_and_ids_and_not_its_path(lines):
    answers = [
        Api().get("recipients/anna@example.com"),
        Api(token()).get("recipients/anna@example.com"),
        Client().get("/nowhere/anna@example.com"),
        Client(enforce_csrf_checks=True).post("/language", {"next": "/anna@example.com"}),
    ]
    assert [answer.status_code for answer in answers] == [401, 404, 404, 403]
    told = [line for line in lines() if line["event"] == "request_refused"]
    assert [(line["status"], line["route"], line["request_id"]) for line in told] == [
        (401, "api/v1/recipients/<external:external_id>", answers[0]["X-Request-ID"]),
        (404, "api/v1/recipients/<external:external_id>", answers[1]["X-Request-ID"]),
        (404, "", answers[2]["X-Request-ID"]),
        (403, "language", answers[3]["X-Request-ID"]),
    ]
    assert "anna" not in json.dumps(lines())


def test_a_request_that_fails_is_a_line_with_what_failed(lines, monkeypatch):
    def fail(_request):
        raise RuntimeError("gone")

    monkeypatch.setattr("frontend.pages.metrics.page", lambda **_: fail(None))
    assert Client(raise_request_exception=False).get("/metrics").status_code == 500
    (line,) = [line for line in lines() if line["event"] == "request_failed"]
    assert (line["level"], line["route"]) == ("error", "metrics")
    assert line["exception"].endswith("RuntimeError")
    assert "in fail" in line["exception"]


def test_what_stands_in_a_line_begins_no_other():
    said = 'a\n{"event": "forged"}\r\x1b[2J\u2028'
    line = formatter(as_json=True).format(logging.LogRecord("x", logging.INFO, "", 0, said, (), None))
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    assert json.loads(line)["event"] == said
    assert json.loads(line)["timestamp"].endswith("Z")


# --- Filters ----------------------------------------------------------------------------------------------------------
def test_no_list_of_the_admin_is_filtered_by_what_it_does_not_show(service):
    RecipientFactory(external_id="anna", email="anna@example.com")
    schedule = ScheduleFactory()
    test_sends.ask(schedule_id=schedule.pk, external_id="anna", to="secret@example.com", by=BY, now=NOW)
    assert signed_in(Role.ANALYST).get("/admin/delivery/testsend/?to__startswith=secret").status_code == 400
    admin = signed_in(Role.ADMIN)
    for model, shown in site._registry.items():
        address = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        for field in model._meta.concrete_fields:
            status = admin.get(f"{address}?{field.name}__isnull=0").status_code
            assert status == (200 if field.name in shown.list_filter else 400), f"{address} {field.name}"
    assert admin.get("/admin/auth/user/?is_active__exact=1&role=ADMIN").status_code == 200


# --- Messages ---------------------------------------------------------------------------------------------------------
def test_an_address_in_a_message_that_was_sent_is_masked_for_who_may_not_see_it(service):
    ScheduleFactory()
    service.step()
    person = RecipientFactory(external_id="anna", email="anna@example.com")
    said = {"recipient": person, "occurrence_id": Occurrence.objects.get().pk, "created_at": NOW}
    mail = OutboxMessage.objects.create(
        to=person.email, subject="For Anna@example.com", text="a@b anna@example.com", html="<p>anna@example.com", **said
    )
    note = InboxMessage.objects.create(title="anna@example.com", body="anna@example.com", **said)
    analyst, marketer = signed_in(Role.ANALYST), signed_in(Role.MARKETER)
    for path in ("/outbox/", f"/outbox/{mail.pk}/", f"/outbox/{mail.pk}/body", "/inbox/", f"/inbox/{note.pk}/"):
        told = analyst.get(path).content.decode().lower()
        assert "anna@example.com" not in told, path
        assert "a…@example.com" in told, path
        assert "anna@example.com" in marketer.get(path).content.decode().lower(), path


@pytest.mark.parametrize(
    "written", ["{}", "pat.o&#x27;hara@example.com", "pat.o&#39;hara@example.com", "mailto:pat.o%27hara%40example.com"]
)
def test_so_is_the_address_that_it_went_to_however_a_template_wrote_it(service, written):
    ScheduleFactory()
    service.step()
    former, person = "pat.o'hara@example.com", RecipientFactory(email="new@example.com")
    mail = OutboxMessage.objects.create(
        recipient=person, occurrence_id=Occurrence.objects.get().pk, created_at=NOW, to=former,
        subject="", text="", html=f"<p>{written.format(former)}",
    )  # fmt: skip
    told = signed_in(Role.ANALYST).get(f"/outbox/{mail.pk}/body").content.decode()
    assert "hara" not in told
    assert "p…@example.com" in told

"""Rows of the audit: who did it under which name, what it belongs to, and what nobody did but the service."""

import json
from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from audit import trail
from audit.models import Action, AuditEvent
from delivery import circuits
from schedules import occurrences
from schedules.models import Occurrence, OccurrenceState, Recipient
from schedules.permissions import Role
from tests.accounts import account, signed_in
from tests.api import Api, service_client, token
from tests.factories import NOW, ScheduleFactory, people

pytestmark = pytest.mark.django_db
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(autouse=True)
def _at_now(service):
    """What is done is done at ``NOW``."""


def events(action: Action) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action).order_by("id"))


def test_the_name_stays_as_it_was_when_the_account_is_renamed_or_gone():
    mara = account(Role.MARKETER, name="mara")
    by = f"user:{mara.pk}"
    trail.record(action=Action.SENDING_STOP, by=by, now=NOW)
    User.objects.filter(pk=mara.pk).update(username="mary")
    trail.record(action=Action.SENDING_GO, by=by, now=NOW)
    mara.delete()
    trail.record(action=Action.SENDING_STOP, by=by, now=NOW)
    assert [event.actor_label for event in AuditEvent.objects.order_by("id")] == ["mara", "mary", ""]


def test_the_service_itself_is_named_by_its_part():
    assert trail.record(action=Action.SENDING_STOP, by="system:shell", now=NOW).actor_label == "shell"


def test_a_program_is_named_by_the_statement_that_knows_its_token():
    api = Api(token(client=service_client(name="the shop")))
    with CaptureQueriesContext(connection) as queries:
        assert (
            api.post("recipients:bulk", b'{"externalId": "a-1"}\n', content_type="application/x-ndjson").status_code
            == 200
        )
    assert AuditEvent.objects.latest("id").actor_label == "the shop"
    assert len([query for query in queries if "frontend_client" in query["sql"]]) == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "X-Correlation-ID": "order-9"}, TRACE),
        ({"X-Correlation-ID": "order-9"}, "order-9"),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01", "X-Correlation-ID": "order-9"}, "order-9"),
        ({"traceparent": f"ff-{TRACE}-00f067aa0ba902b7-01"}, "r-1"),
        ({"X-Correlation-ID": "two\nlines"}, "r-1"),
        ({"X-Correlation-ID": "x" * 101}, "r-1"),
        ({}, "r-1"),
    ],
)
def test_what_a_request_belongs_to_stands_beside_its_own_id(headers, expected):
    client = signed_in(Role.ADMIN, name="ada")
    client.get("/audit/file", headers={"X-Request-ID": "r-1", **headers})
    event = AuditEvent.objects.latest("id")
    assert (event.request_id, event.correlation_id, event.actor_label) == ("r-1", expected, "ada")


def test_a_sign_in_and_its_refusal_are_kept_without_what_was_typed():
    account(Role.MARKETER, name="mara", password="right-9-word")
    client = Client()
    for name, password in (("mara", "wrong"), ("my-secret-typed-as-name", "x"), ("mara", "right-9-word")):
        client.post("/admin/login/?next=/", {"username": name, "password": password})
    pk = User.objects.get().pk
    kept = [(event.action, event.actor_id, event.payload_diff) for event in AuditEvent.objects.order_by("id")]
    assert kept == [
        ("account.refuse", "system:sign_in", {"account": pk}),
        ("account.refuse", "system:sign_in", {"account": None}),
        ("account.sign_in", f"user:{pk}", {"account": pk}),
    ]
    assert "secret" not in str(list(AuditEvent.objects.values()))


def test_a_change_of_roles_is_kept_as_before_and_after_and_the_rest_without_values():
    ada = signed_in(Role.ADMIN, name="ada")
    mara = account(Role.MARKETER, name="mara")
    analyst = Group.objects.get_or_create(name=Role.ANALYST)[0]
    form = {"username": "mara", "is_active": "on", "email": "mara@example.org", "groups": [analyst.pk]}
    assert ada.post(f"/admin/auth/user/{mara.pk}/change/", form).status_code == 302
    (changed,), (roles,) = events(Action.ACCOUNT_UPDATE), events(Action.ACCOUNT_ROLES)
    assert changed.payload_diff == {"account": mara.pk, "email": "changed"}
    assert roles.payload_diff == {"account": mara.pk, "roles": [["MARKETER"], ["ANALYST"]]}
    assert roles.actor_label == "ada"
    ada.post(f"/admin/auth/user/{mara.pk}/delete/", {"post": "yes"})
    assert [event.payload_diff for event in events(Action.ACCOUNT_DELETE)] == [{"account": mara.pk}]


def test_a_file_that_was_taken_is_kept():
    signed_in(Role.ANALYST, name="ann").get("/audit/file")
    assert [(each.actor_label, each.payload_diff) for each in events(Action.EXPORT_FILE)] == [
        ("ann", {"file": "audit"})
    ]


def test_a_bulk_action_is_kept_beside_what_it_did_to_each():
    chosen = [ScheduleFactory().pk for _ in range(2)]
    client = signed_in(Role.MARKETER)
    client.post("/schedules/bulk/", {"verb": "pause", "schedule": chosen, "sure": "1"}, headers={"X-Request-ID": "b-1"})
    (bulk,) = events(Action.SCHEDULE_BULK)
    assert bulk.payload_diff["verb"] == "pause"
    assert (sorted(bulk.payload_diff["schedules"]), bulk.payload_diff["done"]) == (sorted(chosen), 2)
    assert {each.request_id for each in [bulk, *events(Action.SCHEDULE_PAUSE)]} == {"b-1"}


def test_runs_that_come_too_late_are_kept_by_one_statement(service):
    late = [ScheduleFactory(run_at=NOW + timedelta(hours=1)) for _ in range(20)]
    service.at(NOW + timedelta(days=3))
    with CaptureQueriesContext(connection) as queries:
        service.open()
    kept = events(Action.OCCURRENCE_MISS)
    assert {event.schedule_id for event in kept} == {schedule.pk for schedule in late}
    assert {event.payload_diff["reason"] for event in kept} == {"down"}
    assert len([query for query in queries if 'INTO "notification_audit"' in query["sql"]]) == 1


def test_runs_that_end_are_kept_by_one_statement():
    running = [
        Occurrence.objects.create(
            schedule=ScheduleFactory(), occurrence_at=NOW, state=OccurrenceState.RUNNING, version=1, opens_at=NOW,
            ends_at=NOW + timedelta(days=7), opened_at=NOW,
        )
        for _ in range(3)
    ]  # fmt: skip
    with CaptureQueriesContext(connection) as queries:
        assert occurrences.close([each.pk for each in running], now=NOW) == 3
    assert {event.payload_diff["occurrence"] for event in events(Action.OCCURRENCE_FINISH)} == {
        each.pk for each in running
    }
    assert len([query for query in queries if 'INTO "notification_audit"' in query["sql"]]) == 1


def test_a_circuit_that_opens_and_closes_is_kept_without_the_providers_words():
    circuits.open_circuit("email", reason="credentials", detail="no such key of anna@example.org", now=NOW)
    circuits.close_circuit("email", now=NOW)
    circuits.close_circuit("email", now=NOW)
    assert [event.payload_diff for event in events(Action.CIRCUIT_OPEN)] == [
        {"channel": "email", "reason": "credentials", "openings": 1}
    ]
    assert [event.payload_diff for event in events(Action.CIRCUIT_CLOSE)] == [{"channel": "email"}]


def test_a_whole_run_leaves_nothing_of_its_people_in_the_audit(service, provider):
    people(5)
    ScheduleFactory(run_at=NOW + timedelta(minutes=1))
    service.run_to(NOW + timedelta(hours=1))
    service.sweep()
    assert events(Action.OCCURRENCE_FINISH)
    told = json.dumps([event.payload_diff for event in AuditEvent.objects.all()])
    names = list(Recipient.objects.values_list("external_id", "email"))
    assert len(names) == 5
    assert [word for row in names for word in row if word in told] == []

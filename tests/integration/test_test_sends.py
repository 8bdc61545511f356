"""A schedule's message, sent to one person to be looked at."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from audit.models import AuditEvent
from delivery import test_sends
from delivery.models import Count, Delivery, InboxMessage, TestSend
from delivery.providers.base import Verdict
from schedules import encryption, stops
from tests.api import Api, token
from tests.factories import NOW, DeviceFactory, RecipientFactory, ScheduleFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def api(service) -> Api:
    return Api(token())


def work_off() -> None:
    for pk, _ in test_sends.take_waiting():
        test_sends.send(test_send_id=pk, now=NOW)


def test_it_goes_to_the_person_and_leaves_no_trace_in_ledger_or_metrics(api, provider):
    person = RecipientFactory.create(external_id="anna", attributes={"first_name": "Anna"})
    schedule = ScheduleFactory.create(audience_query={"field": "tags", "op": "contains", "value": "nobody"})
    answer = api.post(f"schedules/{schedule.pk}/test-send", {"recipient": "anna"})
    assert answer.status_code == 202
    assert answer.json()["state"] == "waiting"
    work_off()
    (message,) = provider.messages()
    assert message.to == person.email
    assert message.text == "Dear Anna, it is time."
    told = api.get(answer["Location"].removeprefix("/api/v1/")).json()
    assert told["state"] == "sent"
    assert told["subject"] == "Hello anna"
    assert not Delivery.objects.exists()
    assert not Count.objects.filter(name__contains="sent").exists()
    event = AuditEvent.objects.latest("id")
    assert event.action == "schedule.test_send"
    assert "example.com" not in str(event.payload_diff)


def test_another_address_and_another_language(api, provider):
    RecipientFactory.create(external_id="anna")
    schedule = ScheduleFactory.create()
    api.post(f"schedules/{schedule.pk}/test-send", {"recipient": "anna", "to": "me@example.org", "locale": "de"})
    work_off()
    (message,) = provider.messages()
    assert message.to == "me@example.org"


def test_the_same_wish_again_is_one_message(api, provider):
    RecipientFactory.create(external_id="anna")
    path = f"schedules/{ScheduleFactory.create().pk}/test-send"
    answers = [api.post(path, {"recipient": "anna"}, headers={"Idempotency-Key": "k"}) for _ in range(3)]
    assert len({answer.content for answer in answers}) == 1
    work_off()
    work_off()
    for wish in TestSend.objects.all():  # a second copy of the message
        test_sends.send(test_send_id=wish.pk, now=NOW)
    assert len(provider.messages()) == 1


def test_in_app_it_lies_in_the_inbox_beside_what_was_sent(api):
    person = RecipientFactory.create(external_id="anna")
    schedule = ScheduleFactory.create(channel="in_app")
    for _ in range(2):
        api.post(f"schedules/{schedule.pk}/test-send", {"recipient": "anna"})
    work_off()
    assert InboxMessage.objects.filter(recipient=person).count() == 2


def test_push_needs_a_device(api, provider):
    person = RecipientFactory.create(external_id="anna")
    schedule = ScheduleFactory.create(channel="push")
    refused = api.post(f"schedules/{schedule.pk}/test-send", {"recipient": "anna"})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["code"] == "no_address"
    device = DeviceFactory.create(recipient=person)
    api.post(f"schedules/{schedule.pk}/test-send", {"recipient": "anna"})
    work_off()
    (message,) = provider.messages()
    assert [target.device_id for target in message.targets] == [device.pk]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"recipient": "nobody"}, "/recipient"),
        ({}, "/recipient"),
        ({"recipient": "anna", "to": "no address"}, "/to"),
        ({"recipient": "anna", "to": "a@b.c, d@e.f"}, "/to"),
        ({"recipient": 5}, "/recipient"),
        ({"recipient": "anna", "shoe": 1}, "/shoe"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(api, body, pointer):
    RecipientFactory.create(external_id="anna")
    refused = api.post(f"schedules/{ScheduleFactory.create().pk}/test-send", body)
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert not TestSend.objects.exists()


def test_a_stop_holds_tests_too_and_a_draft_without_template_has_none(api):
    RecipientFactory.create(external_id="anna")
    schedule = ScheduleFactory.create()
    stops.stop_sending(scope="channel:email", by="user:1", now=NOW)
    assert api.post(f"schedules/{schedule.pk}/test-send", {"recipient": "anna"}).status_code == 409
    draft = ScheduleFactory.create(template_id=None, draft=True)
    assert api.post(f"schedules/{draft.pk}/test-send", {"recipient": "anna"}).status_code == 409


def test_a_stop_that_comes_after_the_wish_holds_it_too(api, provider):
    RecipientFactory.create(external_id="anna")
    path = f"schedules/{ScheduleFactory.create().pk}/test-send"
    address = api.post(path, {"recipient": "anna"})["Location"].removeprefix("/api/v1/")
    stops.stop_sending(scope="channel:email", by="user:1", now=NOW)
    work_off()
    told = api.get(address).json()
    assert (told["state"], told["reason"], told["settledAt"]) == ("failed", "stopped", "2026-11-21T10:00:00Z")
    assert not provider.messages()


@pytest.mark.parametrize(
    ("verdict", "state"),
    [(Verdict.PERMANENT, "failed"), (Verdict.TRANSIENT, "failed"), (Verdict.UNKNOWN, "unanswered")],
)
def test_what_the_provider_said_is_told(api, provider, verdict, state):
    RecipientFactory.create(external_id="anna")
    provider.answers(verdict, "said_so")
    answer = api.post(f"schedules/{ScheduleFactory.create().pk}/test-send", {"recipient": "anna"})
    work_off()
    told = api.get(answer["Location"].removeprefix("/api/v1/")).json()
    assert (told["state"], told["reason"]) == (state, "said_so")


@pytest.mark.parametrize("what", ["the address wished for", "the person's address", "the device"])
def test_what_cannot_be_read_stops_no_tick_and_fails_with_its_reason(api, provider, settings, monkeypatch, what):
    device = DeviceFactory.create(recipient=RecipientFactory.create(external_id="anna"))
    schedule = ScheduleFactory.create(channel="push" if what == "the device" else "email")
    to = {"to": "me@example.org"} if what == "the address wished for" else {}
    api.post(f"schedules/{schedule.pk}/test-send", {"recipient": "anna", **to})
    wish = TestSend.objects.get().pk
    column = {"the address wished for": "to", "the person's address": "email", "the device": "token"}[what]
    row = {"to": TestSend(pk=wish), "email": device.recipient, "token": device}[column]
    with connection.cursor() as cursor:
        cursor.execute(
            f'UPDATE {row._meta.db_table} SET "{column}" = substr("{column}", 1, 30) WHERE id = %s', [row.pk]
        )
    with monkeypatch.context() as patched:
        patched.setattr(encryption, "decrypt", None)
        assert test_sends.take_waiting() == [(wish, schedule.channel)]
    test_sends.send(test_send_id=wish, now=NOW)
    assert TestSend.objects.values_list("state", "reason").get() == ("failed", "unreadable")
    assert provider.calls == []


def test_a_wish_that_nobody_answers_is_given_up(api, provider):
    RecipientFactory.create(external_id="anna")
    path = f"schedules/{ScheduleFactory.create().pk}/test-send"
    waiting, dead = (api.post(path, {"recipient": "anna"}).json()["id"] for _ in range(2))
    TestSend.objects.filter(pk=dead).update(state="sending")
    TestSend.objects.update(created_real_at=timezone.now() - timedelta(minutes=5))
    assert test_sends.give_up(now=NOW) == 2
    assert TestSend.objects.get(pk=waiting).state == "failed"
    assert TestSend.objects.get(pk=dead).state == "unanswered"
    assert set(TestSend.objects.values_list("settled_at", flat=True)) == {NOW}

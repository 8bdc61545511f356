"""Somebody is planted everywhere, erased, and looked for: in every table, in Redis, in logs, exports and the audit."""

import json

import pytest

from delivery import test_sends
from delivery.events.base import Kind
from delivery.models import Delivery, InboxMessage, OutboxMessage
from delivery.providers.base import Verdict
from frontend import erasing
from schedules.imports import uploads
from schedules.imports.recipients import Format
from schedules.models import Recipient
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.api import Api, token
from tests.books import assert_books_close
from tests.factories import BY, NOW, ScheduleFactory, TemplateFactory
from tests.provider_events import event, settle
from tests.searching import found_in_files, found_in_redis, found_in_tables
from tests.service import MINUTE

pytestmark = pytest.mark.django_db

ADDRESS, TOKEN, NAME = "zebulon.quux@planted.example", "planted-token-7Qx9", "Zebulon Quuxington"
PLANTED = (ADDRESS, TOKEN, NAME, "zebulon.quux", "Quuxington")


@pytest.fixture
def planted(service, provider):
    """A person in every place that a person gets to, by the roads that lead there."""
    api = Api(token())
    profile = {
        "email": ADDRESS,
        "attributes": {"first_name": NAME},
        "tags": ["beta"],
        "devices": [{"platform": "ios", "token": TOKEN}],
    }
    line = json.dumps({"externalId": "zq-1", **profile}).encode()
    kept = {"headers": {"Idempotency-Key": "planted"}, "content_type": "application/x-ndjson"}
    assert api.call("POST", "recipients:bulk", line, **kept).status_code == 200
    person = Recipient.objects.get(external_id="zq-1")
    template = TemplateFactory(subject="For {{ first_name }}")
    for channel in ("email", "push", "in_app"):
        ScheduleFactory(channel=channel, template_id=template.pk)
    provider.answers(Verdict.PERMANENT, "refused", detail="mailbox of <address> is full")
    service.step()
    (mailed, *_) = Delivery.objects.order_by("occurrence_id")
    settle(*(event(kind, mailed, address=ADDRESS) for kind in (Kind.BOUNCE_SOFT, Kind.COMPLAINT)))
    blocked = api.post("suppressions", {"address": ADDRESS}, headers={"Idempotency-Key": "blocked"})
    assert blocked.status_code == 200
    coming = ScheduleFactory(run_at=NOW + MINUTE, template_id=template.pk)
    service.open()
    message = {"recipient": person, "created_at": NOW}
    InboxMessage.objects.create(occurrence_id=1, title=f"For {NAME}", body=ADDRESS, **message)
    OutboxMessage.objects.create(occurrence_id=1, to=ADDRESS, subject=f"For {NAME}", **message)
    test_sends.ask(schedule_id=coming.pk, external_id="zq-1", to=ADDRESS, by=BY, now=NOW)
    uploads.keep(name="people.ndjson", chunks=[line], format=Format.NDJSON, by=BY, now=NOW)
    admin = signed_in(Role.ADMIN)
    session = admin.session
    session[erasing.UNSAVED_STEPS] = {str(coming.pk): {"audience": f"query={ADDRESS}"}}
    session.save()
    assert api.get("recipients/zq-1").status_code == 200
    return person, admin


def test_nothing_that_is_kept_names_somebody_erased(planted, caplog, capfd):
    person, admin = planted
    before = {table for table, _, _ in found_in_tables(PLANTED)}
    assert before >= {
        "schedules_recipient", "schedules_device", "schedules_recipientimportchunk", "delivery_inboxmessage",
        "delivery_outboxmessage", "delivery_testsend", "sessions",
    }, "what is not planted can't be missed"  # fmt: skip
    erasing.erase(recipient_id=person.pk, by=BY, now=NOW)
    assert found_in_tables(PLANTED) == []
    assert found_in_redis(PLANTED) == []
    assert_books_close()
    assert found_in_files(PLANTED, admin, people=[person.pk]) == []
    out, err = capfd.readouterr()
    said = f"{out}{err}{caplog.text}".lower()
    assert not [word for word in PLANTED if word.lower() in said]


def test_the_external_id_stays_only_where_the_receipt_says_so(planted):
    person, _ = planted
    ScheduleFactory(run_at=NOW + MINUTE, audience_query={"field": "external_id", "op": "eq", "value": "zq-1"})
    receipt = erasing.erase(recipient_id=person.pk, by=BY, now=NOW)
    assert {table for table, _, _ in found_in_tables(["zq-1"])} == {"notification_audit"}
    assert "audit" in {each.what for each in receipt.remains}

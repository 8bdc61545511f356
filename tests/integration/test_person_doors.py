"""Erasing and showing a person from outside: commands, the export by program, the user service's signed hook."""

import base64
import hashlib
import hmac
import io
import json
import time

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from audit.models import AuditEvent
from delivery.models import InboxMessage
from frontend import hooks
from frontend.models import HookEvent
from schedules import fingerprints
from schedules.models import ErasedPerson, Recipient
from schedules.permissions import Scope
from tests.accounts import signed_in
from tests.api import Api, token
from tests.factories import NOW, DeviceFactory, RecipientFactory, ScheduleFactory

pytestmark = pytest.mark.django_db
SECRET = b"thirty-two bytes of a good secret"


def command(name, *arguments):
    out = io.StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def anna():
    person = RecipientFactory(external_id="anna", email="anna@example.com", attributes={"name": "Anna"})
    DeviceFactory(recipient=person, token="token-of-anna")
    return person


# Commands


def test_the_command_erases_and_prints_the_receipt(service, anna):
    said = command("erase_recipient", "anna")
    assert json.loads(said)["devices"] == 1
    assert "anna" not in said
    assert not Recipient.objects.exists()
    with pytest.raises(CommandError, match="nobody"):
        command("erase_recipient", "anna")


def test_everything_that_is_held_is_printed_and_the_audit_keeps_that_it_was(service, provider, anna):
    InboxMessage.objects.create(recipient=anna, occurrence_id=1, title="Hello", created_at=NOW)
    schedule = ScheduleFactory(audience_query={"field": "external_id", "op": "eq", "value": "anna"})
    service.step()
    held = json.loads(command("export_person", "anna"))
    assert held["profile"]["email"] == "anna@example.com"
    assert held["profile"]["attributes"] == {"name": "Anna"}
    assert [each["token"] for each in held["devices"]] == ["token-of-anna"]
    assert [each["title"] for each in held["inbox"]] == ["Hello"]
    assert [each["state"] for each in held["deliveries"]] == ["sent"]
    assert held["audiencesThatNameThePerson"] == [schedule.pk]
    assert AuditEvent.objects.get(action="export.file").payload_diff == {"file": f"person-{anna.pk}"}
    with pytest.raises(CommandError, match="nobody"):
        command("export_person", "bea")


def test_people_are_found_by_a_whole_address_however_it_is_written(anna):
    RecipientFactory(external_id="anna-2", email="Anna@Example.com")
    RecipientFactory(external_id="anne", email="anne@example.com")
    assert command("find_recipients", " ANNA@example.com").split() == ["anna", "anna-2"]
    with pytest.raises(CommandError, match="Nobody"):
        command("find_recipients", "anna@example.co")


# By program


def test_a_program_that_may_change_people_gets_everything_and_others_nothing(service, anna):
    other = RecipientFactory(external_id="bea")
    answer = Api(token()).get("recipients/anna/export")
    assert answer.status_code == 200
    assert answer["Cache-Control"] == "no-store"
    assert answer.json()["profile"]["externalId"] == "anna"
    assert other.email not in answer.content.decode()
    assert Api(token(scopes=Scope.READ.value)).get("recipients/anna/export").status_code == 403
    assert Api(token()).get("recipients/nobody/export").status_code == 404


# The user service's hook


def sign(event_id, timestamp, body, secret=SECRET):
    content = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()


def call(external_id="anna", *, kind="recipient.deleted", event_id="msg_1", at=None, body=None, signature=None):
    said = {"type": kind, "timestamp": "2026-11-22T10:00:00Z", "data": {"externalId": external_id}}
    body = json.dumps(said).encode() if body is None else body
    timestamp = str(int(time.time()) if at is None else at)
    headers = {
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": sign(event_id, timestamp, body) if signature is None else signature,
    }
    client = Client(enforce_csrf_checks=True)
    return client.post("/hooks/user-service", body, content_type="application/json", headers=headers)


@pytest.fixture
def hook(settings):
    settings.USER_SERVICE_HOOK_SECRET = "whsec_" + base64.b64encode(SECRET).decode()


def test_without_a_secret_there_is_no_such_address(anna):
    assert call().status_code == 404
    assert Recipient.objects.exists()


def test_the_signature_is_that_of_the_specification(hook, settings):
    """The example of the reference libraries (standard-webhooks, libraries/*/test)."""
    settings.USER_SERVICE_HOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    said = sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', secret)
    assert said == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_signed_message_erases_the_person(service, hook, anna):
    assert call().status_code == 204
    assert not Recipient.objects.exists()
    assert AuditEvent.objects.get(action="recipient.erase").actor_id == hooks.BY


def test_the_same_message_again_does_nothing_more(service, hook, anna):
    assert call().status_code == 204
    fingerprints.drop("anna", "anna@example.com")
    RecipientFactory(external_id="anna")
    assert call(at=int(time.time()) + 1).status_code == 204
    assert Recipient.objects.filter(external_id="anna").exists()
    assert call(event_id="msg_2").status_code == 204
    assert not Recipient.objects.exists()
    assert HookEvent.objects.count() == 2


def test_somebody_unknown_is_kept_from_coming_later(service, hook):
    assert call("never-seen").status_code == 204
    assert fingerprints.is_erased("never-seen", "")
    assert ErasedPerson.objects.count() == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"at": 1614265330},
        {"at": int(time.time()) + 3600},
        {"at": "now"},
        {"signature": ""},
        {"signature": "v1,AAAA"},
        {"signature": sign("msg_1", int(time.time()), b"{}", b"another secret")},
        {"event_id": ""},
        {"event_id": "x" * 201},
    ],
)
def test_what_is_not_signed_now_by_the_secret_is_refused(service, hook, anna, changed):
    assert call(**changed).status_code == 401
    assert Recipient.objects.exists()


def test_one_of_several_secrets_and_signatures_will_do(service, hook, settings, anna):
    settings.USER_SERVICE_HOOK_SECRET = f"whsec_{base64.b64encode(b'new').decode()} {settings.USER_SERVICE_HOOK_SECRET}"
    timestamp, body = str(int(time.time())), b'{"type": "recipient.deleted", "data": {"externalId": "anna"}}'
    signature = f"v1a,xyz v1,AAAA {sign('msg_1', timestamp, body)}"
    assert call(at=timestamp, body=body, signature=signature).status_code == 204


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no json", 400),
        (b"[]", 400),
        (b'{"type": "recipient.deleted"}', 400),
        (b'{"type": "recipient.deleted", "data": {"externalId": 7}}', 400),
        (b'{"type": "recipient.created", "data": {}}', 202),
        (b" " * 2_200_000, 413),
    ],
)
def test_what_makes_no_sense_is_refused_and_other_types_are_left(service, hook, anna, body, status):
    assert call(body=body).status_code == status
    assert Recipient.objects.exists()
    assert not HookEvent.objects.exists()


def test_it_is_only_posted_to(hook):
    assert Client().get("/hooks/user-service").status_code == 405
    assert signed_in(None).get("/hooks/user-service").status_code == 405

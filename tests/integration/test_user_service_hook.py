"""What the user service tells by itself, signed: how people are now. Each message once, in any order, nobody brought
back."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.db import OperationalError, connection
from django.test import Client
from psycopg.errors import DeadlockDetected

from frontend import hooks
from frontend.models import HookEvent
from schedules import fingerprints
from schedules.imports import merging
from schedules.models import Device, MirroredPerson, Recipient
from schedules.user_service import mirror
from tests.factories import NOW, DeviceFactory, RecipientFactory
from tests.integration.test_person_doors import SECRET, sign
from tests.service import DAY, HOUR, MINUTE

pytestmark = pytest.mark.django_db

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "user-service.md"
EVA = {
    "externalId": "eva",
    "email": "eva@example.com",
    "locale": "de-AT",
    "timeZone": "Europe/Vienna",
    "attributes": {"plan": "pro"},
    "tags": ["vip"],
    "consent": {"push": False},
    "devices": [{"platform": "ios", "token": "token-of-eva"}],
}


@pytest.fixture(autouse=True)
def secret(service, settings):
    settings.USER_SERVICE_HOOK_SECRET = "whsec_" + base64.b64encode(SECRET).decode()


def instant(at):
    return at.isoformat().replace("+00:00", "Z")


def call(*profiles, number="msg_1", at=NOW, body=None):
    said = {"type": "recipient.updated", "timestamp": instant(at), "data": {"recipients": profiles}}
    body = json.dumps(said).encode() if body is None else body
    stamp = str(int(time.time()))
    headers = {
        "webhook-id": number,
        "webhook-timestamp": stamp,
        "webhook-signature": sign(number, stamp, body),
    }
    return Client().post("/hooks/user-service", body, content_type="application/json", headers=headers)


def test_somebody_new_is_kept_with_all_that_is_said(service):
    assert call(EVA).status_code == 204
    eva = Recipient.objects.get()
    assert (eva.external_id, eva.email, eva.locale, eva.time_zone) == (
        "eva",
        "eva@example.com",
        "de-AT",
        "Europe/Vienna",
    )
    assert (eva.attributes, eva.tags, eva.consent, eva.updated_by) == (
        {"plan": "pro"},
        ["vip"],
        {"push": False},
        hooks.BY,
    )
    assert [device.token for device in eva.devices.all()] == ["token-of-eva"]
    told = MirroredPerson.objects.get()
    assert (told.recipient_id, told.mirrored_at, told.source_updated_at) == (eva.pk, NOW, NOW)


def test_of_somebody_known_what_is_said_takes_the_place_of_what_was_kept(service):
    eva = RecipientFactory(
        external_id="eva", email="old@example.com", locale="en", attributes={"plan": "free"}, consent={"email": False}
    )
    DeviceFactory(recipient=eva, token="old-token")
    said = {"externalId": "eva", "email": "new@example.com", "devices": []}
    assert call(said).status_code == 204
    eva.refresh_from_db()
    assert (eva.email, eva.locale, eva.attributes) == ("new@example.com", "en", {"plan": "free"})
    assert eva.consent == {"email": False}  # silence takes no objection back
    assert not Device.objects.exists()
    assert call({"externalId": "eva", "consent": {"email": True}}, number="msg_2").status_code == 204
    eva.refresh_from_db()
    assert eva.consent == {"email": True}


def test_the_same_message_again_does_nothing(service):
    call(EVA)
    Recipient.objects.update(locale="fr")
    assert call(EVA).status_code == 204
    assert Recipient.objects.get().locale == "fr"
    assert HookEvent.objects.count() == 1
    assert call(EVA, number="msg_2").status_code == 204
    assert Recipient.objects.get().locale == "de-AT"


@pytest.mark.parametrize("dated", ["by its own time", "by the message's"])
def test_a_late_one_changes_nothing(service, dated):
    def said(locale, at):
        if dated == "by its own time":
            return {"externalId": "eva", "locale": locale, "updatedAt": instant(at)}, NOW
        return {"externalId": "eva", "locale": locale}, at

    for number, (locale, at) in enumerate([("de", NOW - MINUTE), ("en", NOW - HOUR), ("fr", NOW - DAY)]):
        profile, timestamp = said(locale, at)
        assert call(profile, number=f"msg_{number}", at=timestamp).status_code == 204
    assert Recipient.objects.get().locale == "de"
    profile, timestamp = said("es", NOW)
    call(profile, number="msg_9", at=timestamp)
    assert Recipient.objects.get().locale == "es"


def test_a_time_that_has_not_come_yet_freezes_nobody(service):
    call({"externalId": "eva", "locale": "de", "updatedAt": "2099-01-01T00:00:00Z"}, at=NOW + 365 * DAY)
    service.at(NOW + MINUTE)
    call({"externalId": "eva", "locale": "en", "updatedAt": instant(NOW + MINUTE)}, number="msg_2")
    assert Recipient.objects.get().locale == "en"


def test_of_two_statements_in_one_message_the_newer_one_counts(service):
    older = {"externalId": "eva", "locale": "de", "updatedAt": instant(NOW - HOUR)}
    newer = {"externalId": "eva", "locale": "fr", "updatedAt": instant(NOW - MINUTE)}
    assert call(newer, older).status_code == 204
    assert Recipient.objects.get().locale == "fr"


def test_whoever_was_erased_is_not_brought_back(service):
    fingerprints.keep(external_ids=["eva"], address="", now=NOW)
    assert call(EVA, {"externalId": "bea"}).status_code == 204
    assert [each.external_id for each in Recipient.objects.all()] == ["bea"]


def test_what_can_not_be_kept_is_told_and_concerns_itself_alone(service):
    answer = call(
        {"externalId": "anna", "locale": "de"},
        {"externalId": "bea", "email": "no address", "locale": "fr"},
        {"email": "nobody@example.com"},
        "nobody",
        {"externalId": "nul\0"},
    )
    assert answer.status_code == 200
    found = [(each["index"], each["field"]) for each in answer.json()["problems"]]
    assert found == [(1, "email"), (2, "externalId"), (3, ""), (4, "externalId")]
    assert "no address" not in answer.content.decode()  # what was sent stands in no answer, which may be logged
    assert {each.external_id: (each.locale, each.email) for each in Recipient.objects.all()} == {
        "anna": ("de", ""),
        "bea": ("fr", ""),
    }


@pytest.mark.parametrize(
    "body",
    [
        {"type": "recipient.updated", "data": {"recipients": [EVA]}},
        {"type": "recipient.updated", "timestamp": "2026-11-22T10:00:00", "data": {"recipients": [EVA]}},
        {"type": "recipient.updated", "timestamp": "2026-13-22T10:00:00Z", "data": {"recipients": [EVA]}},
        {"type": "recipient.updated", "timestamp": 7, "data": {"recipients": [EVA]}},
        {"type": "recipient.updated", "timestamp": instant(NOW), "data": {"recipients": []}},
        {"type": "recipient.updated", "timestamp": instant(NOW), "data": {"recipients": [EVA] * 101}},
        {"type": "recipient.updated", "timestamp": instant(NOW), "data": {"recipients": EVA}},
        {"type": "recipient.updated", "timestamp": instant(NOW), "data": {}},
        {"type": "recipient.updated", "timestamp": instant(NOW), "data": None},
    ],
)
def test_a_message_that_makes_no_sense_is_refused_and_may_come_again(service, body):
    assert call(body=json.dumps(body).encode()).status_code == 400
    assert not Recipient.objects.exists()
    assert not HookEvent.objects.exists()
    assert call(EVA).status_code == 204


def test_a_hundred_large_profiles_fit_and_more_than_two_megabytes_do_not(service):
    many = [{"externalId": f"p-{n}", "attributes": {"bio": "x" * 10_000}} for n in range(100)]
    assert call(*many).status_code == 204
    assert Recipient.objects.count() == 100
    assert call(*many, {"externalId": "y" * 1_100_000}, number="msg_2").status_code == 413


@pytest.mark.django_db(transaction=True)
def test_while_an_import_writes_people_the_sender_is_told_when_to_come_again(service, monkeypatch):
    monkeypatch.setattr(hooks, "_PATIENCE", "100ms")
    rival = connection.copy()
    try:
        rival.set_autocommit(False)
        with rival.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [merging._TURN])  # an import's
        answer = call(EVA)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
        assert not HookEvent.objects.exists()
    finally:
        rival.close()
    assert call(EVA).status_code == 204


@pytest.mark.django_db(transaction=True)
def test_it_waits_for_no_page_of_a_run(service, monkeypatch):
    monkeypatch.setattr(hooks, "_PATIENCE", "100ms")
    rival = connection.copy()
    try:
        rival.set_autocommit(False)
        with rival.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [merging._TURN])
        assert call(EVA).status_code == 204
    finally:
        rival.close()


@pytest.mark.parametrize("error", [mirror.Overlapping(), OperationalError()])
def test_while_others_create_the_same_people_the_sender_is_told_when_to_come_again(service, monkeypatch, error):
    error.__cause__ = DeadlockDetected()

    def overtaken(*_, **__):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(mirror, "mirror", overtaken)
        answer = call(EVA)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert call(EVA).status_code == 204


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("language", "program", "told"),
    [
        ("bash", ["bash", "-euo", "pipefail", "-c"], {"locale": "de-AT", "consent": {"push": False}}),
        ("python", [sys.executable, "-c"], {"attributes": {"plan": "pro"}}),
    ],
)
def test_the_examples_of_the_document_are_taken(service, settings, live_server, language, program, told):
    (example,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    done = subprocess.run(
        [*program, example],
        env={
            "PATH": os.environ["PATH"],
            "HOOK": f"{live_server.url}/hooks/user-service",
            "USER_SERVICE_HOOK_SECRET": settings.USER_SERVICE_HOOK_SECRET,
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "204"), done.stderr
    (eva,) = Recipient.objects.all()
    assert eva.external_id == "42"
    assert {name: getattr(eva, name) for name in told} == told

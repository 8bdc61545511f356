"""Values that can't be read, damaged or under a lost key: shown as that, erased, and healed by what comes again."""

import io
import json

import pytest
from django.db import connection
from django.utils import timezone, translation

from delivery import erasure
from delivery.models import OutboxMessage, TestSend
from frontend import erasing
from schedules import recipients
from schedules.fields import UnreadableText
from schedules.imports import uploads
from schedules.imports.recipients import Format, import_recipients
from schedules.models import Device, Recipient, RecipientImport
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.api import Api, token
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory

pytestmark = pytest.mark.django_db

OTHER = "5f" * 32


def lose_the_key(settings):
    settings.ENCRYPTION_KEYS = [OTHER]


def damage(settings):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE schedules_recipient SET email = set_byte(email, 20, get_byte(email, 20) # 1)")
        cursor.execute("UPDATE schedules_device SET token = set_byte(token, 20, get_byte(token, 20) # 1)")


@pytest.fixture
def anna():
    person = RecipientFactory(external_id="anna", email="Anna@example.com")
    DeviceFactory(recipient=person, token="token-of-anna", platform="ios")
    return person


broken = pytest.mark.parametrize("break_it", [lose_the_key, damage])


def person():
    return Recipient.objects.get(external_id="anna")


def is_read():
    device = Device.objects.get()
    return (person().email, device.token) == ("Anna@example.com", "token-of-anna")


@broken
def test_pages_and_lists_say_so_of_the_value_and_show_the_others(settings, anna, break_it):
    break_it(settings)
    RecipientFactory(external_id="bea", email="bea@example.com")
    page = signed_in(Role.ADMIN)
    for path in ("/recipients/", f"/recipients/{anna.pk}/"):
        shown = page.get(path).content.decode()
        assert "(unreadable)" in shown
    assert "bea@example.com" in page.get("/recipients/").content.decode()
    listed = {each["externalId"]: each for each in Api(token()).get("recipients").json()["items"]}
    assert listed["anna"]["email"] == listed["anna"]["devices"][0]["token"] == "(unreadable)"
    assert "@" in listed["bea"]["email"]


def test_it_is_said_in_the_readers_language(settings, anna):
    lose_the_key(settings)
    with translation.override("de"):
        assert person().email.__html__() == "(unlesbar)"


@broken
def test_a_person_is_erased_with_what_went_to_the_address_that_nobody_can_read(settings, service, anna, break_it):
    TestSend.objects.create(schedule_id=1, recipient_id=0, channel="email", to="anna@EXAMPLE.com", created_at=NOW)
    bea = RecipientFactory(external_id="bea", email="bea@example.com")
    OutboxMessage.objects.create(recipient=bea, occurrence_id=1, to="ANNA@example.com", created_at=NOW)
    OutboxMessage.objects.create(recipient=bea, occurrence_id=2, to="bea@example.com", created_at=NOW)
    break_it(settings)
    receipt = erasing.erase(recipient_id=anna.pk, by=BY, now=NOW)
    assert (receipt.gone["devices"], receipt.gone["testSends"], receipt.gone["outboxMessages"]) == (1, 1, 1)
    assert list(Recipient.objects.values_list("external_id", flat=True)) == ["bea"]
    assert not TestSend.objects.exists()
    assert OutboxMessage.objects.get().occurrence_id == 2


def test_an_uploaded_file_that_nobody_can_read_is_thrown_away_with_the_person(settings, service, anna):
    line = json.dumps({"externalId": "bea"}).encode()
    uploads.keep(name="people.ndjson", chunks=[line], format=Format.NDJSON, by=BY, now=NOW)
    lose_the_key(settings)
    assert erasure.forget(recipient_id=anna.pk, by=BY, now=NOW).gone["uploadedFiles"] == 1
    assert RecipientImport.objects.get().state == "failed"


@broken
def test_a_change_of_something_else_leaves_the_value_as_it_is_kept(settings, anna, break_it):
    keys = settings.ENCRYPTION_KEYS
    break_it(settings)
    before = kept()
    recipients.update(recipient_id=anna.pk, changes={"locale": "de"}, by=BY, now=NOW)
    changed = person()
    changed.save()
    assert kept() == before
    assert (changed.locale, changed.email_index) == ("de", anna.email_index)
    if break_it is lose_the_key:
        settings.ENCRYPTION_KEYS = [OTHER, *keys]
        assert is_read()


@broken
def test_a_profile_that_is_put_again_is_read_again(settings, anna, break_it):
    break_it(settings)
    body = {"email": "Anna@example.com", "devices": [{"platform": "ios", "token": "token-of-anna"}]}
    assert Api(token()).put("recipients/anna", body).status_code == 200
    assert is_read()


@broken
def test_the_source_list_imported_again_heals_it(settings, anna, break_it):
    devices = [{"platform": "ios", "token": "token-of-anna"}]
    line = {"externalId": "anna", "email": "Anna@example.com", "devices": devices}
    file = json.dumps(line).encode()
    assert bring(file).unchanged == 1
    break_it(settings)
    written = bring(file)
    assert (written.updated, written.devices_added, written.devices_renewed) == (1, 0, 1)
    assert is_read()
    version = person().version
    assert bring(file).unchanged == 1
    assert person().version == version
    assert person().email_index == anna.email_index


def test_a_list_heals_those_alone_whose_values_are_damaged(settings, anna):
    bea = RecipientFactory(external_id="bea", email="bea@example.com")
    damage(settings)
    recipients.update(recipient_id=bea.pk, changes={"email": "bea@example.com"}, by=BY, now=NOW)
    lines = [{"externalId": "anna", "email": "Anna@example.com"}, {"externalId": "bea", "email": "bea@example.com"}]
    written = bring("\n".join(map(json.dumps, lines)).encode())
    assert (written.updated, written.unchanged) == (1, 1)
    assert person().email == "Anna@example.com"
    assert isinstance(Device.objects.get().token, UnreadableText)  # the list did not bring it


@broken
def test_a_list_without_the_address_leaves_it_as_it_is_kept(settings, anna, break_it):
    break_it(settings)
    before = kept()
    assert bring(json.dumps({"externalId": "anna", "locale": "de"}).encode()).updated == 1
    assert kept() == before
    assert isinstance(person().email, UnreadableText)


def bring(data):
    return import_recipients(stream=io.BytesIO(data), format=Format.NDJSON, by=BY, now=timezone.now()).written


def kept():
    with connection.cursor() as cursor:
        cursor.execute("SELECT email, token FROM schedules_recipient r JOIN schedules_device d ON r.id = recipient_id")
        return [tuple(map(bytes, row)) for row in cursor.fetchall()]

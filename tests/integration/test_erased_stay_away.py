"""Who was erased is not brought back by an import, a bulk upsert or a sync, unless somebody asks for it."""

import io
import json
import re
from html import unescape

import pytest
from django.core.management import call_command
from django.urls import reverse

from audit.models import AuditEvent
from delivery import erasure
from frontend import erasing
from frontend.api.recipients_bulk import NDJSON
from schedules import fingerprints, recipients
from schedules.imports import merging, uploads
from schedules.imports.recipients import Format, import_recipients
from schedules.models import Device, ErasedPerson, Recipient
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.api import Api, token
from tests.factories import BY, NOW, RecipientFactory

pytestmark = pytest.mark.django_db

FILE = b"""external_id,email,devices
anna,other@example.com,ios:t1
new-id,Anna@Example.com ,ios:t2
bea,b@example.com,ios:t3
"""


@pytest.fixture
def anna():
    person = RecipientFactory(external_id="anna", email="anna@example.com")
    erasing.erase(recipient_id=person.pk, by=BY, now=NOW)
    return person


def people():
    return set(Recipient.objects.values_list("external_id", flat=True))


def bring(**options):
    return import_recipients(stream=io.BytesIO(FILE), format=Format.CSV, by=BY, now=NOW, **options)


def text_of(response) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def test_what_is_kept_is_a_number_that_nobody_can_make_without_the_key(anna, settings):
    kept = set(ErasedPerson.objects.values_list("fingerprint", flat=True))
    assert kept == {fingerprints.of_id("anna"), fingerprints.of_address("ANNA@example.com")}
    assert fingerprints.of_id("x@example.com") != fingerprints.of_address("x@example.com")
    settings.ERASURE_KEY = "another key"
    assert not fingerprints.is_erased("anna", "anna@example.com")


def test_an_import_leaves_out_the_id_and_the_address_and_says_how_many_not_whom(anna):
    report = bring()
    assert people() == {"bea"}
    assert Device.objects.count() == 1
    assert report.written.left_out == 2
    assert (report.written.created, report.written.unchanged) == (1, 0)
    event = AuditEvent.objects.get(action="recipient.import")
    assert event.payload_diff["left_out"] == 2
    assert "anna" not in str(event.payload_diff)
    again = bring()
    assert (again.written.left_out, again.written.unchanged) == (2, 1)


def test_an_import_that_is_asked_to_brings_them_back_for_good(anna):
    assert bring(bring_back=True).written.left_out == 0
    assert people() == {"anna", "new-id", "bea"}
    assert bring().written.left_out == 0


def test_a_dry_run_tells_as_much_and_keeps_nothing(anna):
    assert bring(dry_run=True).written.left_out == 2
    assert bring(dry_run=True, bring_back=True).written.left_out == 0
    assert fingerprints.is_erased("anna", "")


def test_somebody_who_is_there_may_get_the_address_of_an_erased_person(anna):
    RecipientFactory(external_id="new-id", email="mine@example.com")
    bring()
    assert Recipient.objects.get(external_id="new-id").email == "Anna@Example.com"


def test_whoever_is_erased_while_an_import_waits_to_write_is_not_created(service, monkeypatch):
    person = RecipientFactory(external_id="anna", email="")
    leave_out = merging._leave_out

    def erase_then(cursor, tell, **more):
        found = leave_out(cursor, tell, **more)
        erasure.forget(recipient_id=person.pk, by=BY, now=NOW)
        return found

    monkeypatch.setattr(merging, "_leave_out", erase_then)
    bring()
    assert people() == {"new-id", "bea"}


def test_the_command_says_so_in_words_and_has_an_option(anna, tmp_path, capsys):
    (tmp_path / "f.csv").write_bytes(FILE)
    call_command("import_recipients", str(tmp_path / "f.csv"))
    said = capsys.readouterr().out
    assert "2 of the lines are left out, since the person was erased before" in said
    assert "anna" not in said.lower().replace(str(tmp_path), "")
    call_command("import_recipients", str(tmp_path / "f.csv"), "--bring-back")
    assert people() == {"anna", "new-id", "bea"}


def test_an_uploaded_file_says_so_and_has_a_box(anna, client):
    admin = signed_in(Role.ADMIN)
    assert "Bring back people who were erased" in text_of(admin.get(reverse("recipient-imports")))
    for bring_back, words in ((False, "2 lines are left out"), (True, "3 new")):
        kept = uploads.keep(name="f.csv", chunks=[FILE], format=Format.CSV, by=BY, now=NOW, bring_back=bring_back)
        uploads.run(import_id=kept.pk, now=NOW)
        page = text_of(admin.get(reverse("recipient-import", args=[kept.pk])))
        assert words in page
        assert "anna" not in page.lower()


def test_the_api_refuses_one_and_leaves_out_of_many_unless_it_is_asked_to(anna):
    api = Api(token())
    refused = api.call("PUT", "recipients/anna", {"locale": "de"})
    assert refused.status_code == 409
    assert "bringBack=true" in refused.json()["detail"]
    lines = b'{"externalId": "anna"}\n{"externalId": "bea"}\n'
    many = api.call("POST", "recipients:bulk", lines, content_type=NDJSON)
    assert [json.loads(line)["status"] for line in many.content.splitlines()] == ["left_out", "created"]
    assert people() == {"bea"}
    assert api.call("PUT", "recipients/anna?bringBack=yes", {}).status_code == 400
    assert api.call("PUT", "recipients/anna?bringBack=true", {"locale": "de"}).status_code == 201
    assert not fingerprints.is_erased("anna", "")


def test_the_form_asks_whether_the_person_is_wanted_back(anna):
    admin = signed_in(Role.ADMIN)
    posted = {"external_id": "anna", "attributes-TOTAL_FORMS": 0, "attributes-INITIAL_FORMS": 0}
    asked = admin.post(reverse("recipient-new"), posted)
    assert "Bring the erased person back" in text_of(asked)
    assert people() == set()
    admin.post(reverse("recipient-new"), {**posted, "bring_back": "on"})
    assert people() == {"anna"}


def test_an_operation_refuses_in_words_that_name_nobody(anna):
    with pytest.raises(recipients.ErasedBefore) as refused:
        recipients.create(external_id="anna", profile={}, by=BY, now=NOW)
    assert "anna" not in str(refused.value)

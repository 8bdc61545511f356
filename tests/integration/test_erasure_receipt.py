"""What an erasure says of itself, and the places outside the ledger in which a person may still stand."""

import json
import re
from html import unescape

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.urls import reverse

from audit.models import AuditEvent
from delivery import erasure, test_sends
from delivery.models import OutboxMessage, TestSend
from frontend import erasing
from frontend.models import IdempotencyKey
from schedules.definition import Definition
from schedules.imports import uploads
from schedules.imports.recipients import Format
from schedules.models import RecipientImportChunk, Schedule, ScheduleVersion
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.api import Api, token
from tests.books import assert_books_close
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, people
from tests.service import MINUTE

pytestmark = pytest.mark.django_db


def text_of(response) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.content.decode())).split())


def names(external_id, op="eq"):
    value = [external_id, "other"] if op in ("in", "not_in") else external_id
    return {"all": [{"field": "external_id", "op": op, "value": value}]}


def erase(person):
    return erasing.erase(recipient_id=person.pk, by=BY, now=NOW)


def test_the_receipt_counts_by_schedule_and_says_what_stays_and_why(service, provider):
    gone, _ = people(2)
    past = ScheduleFactory(run_at=NOW)
    service.step()
    coming = [ScheduleFactory(run_at=NOW + MINUTE), ScheduleFactory(run_at=NOW + MINUTE, channel="in_app")]
    service.open()
    receipt = erase(gone)
    assert_books_close()
    assert receipt.schedules == {schedule.pk: 1 for schedule in coming}
    assert past.pk not in receipt.schedules
    said = receipt.to_json()
    assert said["pending"] == 2
    assert said["noCallStartsAfter"] == "2026-11-21T10:00:05Z"
    remains = {each["what"]: each for each in said["remains"]}
    assert remains["ledger"]["count"] == 3
    assert remains.keys() == {"ledger", "fingerprints", "backups"}
    assert all(each["why"] for each in said["remains"])
    event = AuditEvent.objects.get(action="recipient.erase")
    assert event.payload_diff["receipt"] == json.loads(json.dumps(said))
    assert gone.external_id not in json.dumps(event.payload_diff)


def test_an_erasure_that_only_the_ledger_knows_of_has_no_receipt(service):
    assert erasure.receipt_of(recipient_id=12345) is None


def test_the_persons_page_shows_the_receipt_ever_after(service):
    person = RecipientFactory(external_id="anna")
    schedule = ScheduleFactory(name="Offer", run_at=NOW + MINUTE)
    service.open()
    client = signed_in(Role.ADMIN)
    erase_page = reverse("recipient-erase", args=[person.pk])
    client.post(erase_page, {"external_id": "anna", "version": person.version})
    said = text_of(signed_in(Role.ANALYST).get(reverse("recipient", args=[person.pk])))
    assert f"Erased person #{person.pk}" in said
    assert schedule.name in said
    assert "Messages still to come, which are not sent" in said
    assert "The books of past runs have to close" in said
    assert "anna" not in said


@pytest.mark.parametrize("op", ["eq", "ne", "in", "not_in", "starts_with"])
def test_audiences_that_name_the_person_name_nobody_in_drafts_and_in_every_version(service, op):
    person = RecipientFactory(external_id='an"na é')
    schedule = ScheduleFactory(run_at=NOW + MINUTE, audience_query=names(person.external_id, op))
    service.update(schedule, audience_query=names("somebody"))
    other = ScheduleFactory(run_at=NOW + MINUTE, audience_query={"field": "tags", "op": "contains", "value": "x"})
    receipt = erase(person)
    assert receipt.gone["definitions"] == 1
    kept = [*ScheduleVersion.objects.values_list("definition", flat=True)]
    assert person.external_id not in str(kept)
    instead = f"erased person #{person.pk}"
    first = ScheduleVersion.objects.get(schedule=schedule, version=1).definition["audienceQuery"]
    assert first == json.loads(json.dumps(names("?", op)).replace('"?"', json.dumps(instead)))
    remains = {each.what: each.count for each in receipt.remains}
    assert remains["audit"] == 2
    other.refresh_from_db()
    assert other.audience_query["value"] == "x"


def test_a_draft_that_names_the_person_can_still_be_read_and_run(service):
    person = RecipientFactory(external_id="anna")
    schedule = ScheduleFactory(run_at=NOW + MINUTE, audience_query=names("anna", "in"))
    erase(person)
    schedule = Schedule.objects.get(pk=schedule.pk)
    assert Definition.of(schedule).to_json() == schedule.versions.get().definition
    RecipientFactory(external_id="other")
    service.run_to(NOW + MINUTE)
    assert schedule.occurrences.get().targeted == 1


def test_an_attribute_or_a_name_that_is_the_same_word_is_left_alone(service):
    person = RecipientFactory(external_id="gold")
    query = {"field": "attributes.plan", "op": "eq", "value": "gold"}
    schedule = ScheduleFactory(name="gold", run_at=NOW + MINUTE, audience_query=query)
    assert erase(person).gone["definitions"] == 0
    schedule.refresh_from_db()
    assert schedule.audience_query == query


def test_tests_sent_to_the_person_and_to_the_persons_address_are_gone(service):
    person, other = RecipientFactory(external_id="anna", email="Anna@example.com"), RecipientFactory()
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    wish = {"schedule_id": schedule.pk, "by": BY, "now": NOW}
    test_sends.ask(external_id="anna", **wish)
    test_sends.ask(external_id=other.external_id, to="anna@example.com", **wish)
    kept = test_sends.ask(external_id=other.external_id, **wish)
    OutboxMessage.objects.create(recipient=other, occurrence_id=1, to="anna@example.com", created_at=NOW)
    receipt = erase(person)
    assert (receipt.gone["testSends"], receipt.gone["outboxMessages"]) == (2, 1)
    assert [*TestSend.objects.values_list("pk", flat=True)] == [kept.pk]


@pytest.mark.parametrize(
    ("text", "encoding", "is_theirs"),
    [
        ("external_id,email\nx,ANNA@example.com\n", "utf-8", True),
        ("external_id\nännä-7\n", "utf-8", True),
        ("external_id\nännä-7\n", "utf-16", True),
        ("external_id\nännä-7\n", "cp1252", True),
        ('{"externalId": "\\u00e4nn\\u00e4-7"}\n', "utf-8", True),
        ("external_id,devices\nx,ios:token-of-anna\n", "utf-8", True),
        ("external_id,email\nx,bea@example.com\n", "utf-8", False),
    ],
)
def test_an_uploaded_file_with_the_person_in_it_is_thrown_away(service, text, encoding, is_theirs):
    person = RecipientFactory(external_id="ännä-7", email="anna@example.com")
    DeviceFactory(recipient=person, token="token-of-anna")
    upload = uploads.keep(
        name="f.csv", chunks=[text.encode(encoding)], format=Format.CSV, by=BY, now=NOW, encoding=encoding
    )
    receipt = erase(person)
    upload.refresh_from_db()
    assert receipt.gone["uploadedFiles"] == is_theirs
    assert (upload.failure == "person_erased") == is_theirs
    assert RecipientImportChunk.objects.exists() != is_theirs
    if is_theirs:
        assert "has been erased" in text_of(signed_in(Role.ADMIN).get(reverse("recipient-import", args=[upload.pk])))


def test_a_word_across_two_pieces_of_a_file_is_found(service):
    person = RecipientFactory(external_id="anna-the-great")
    upload = uploads.keep(name="f.csv", chunks=[b"x"], format=Format.CSV, by=BY, now=NOW)
    upload.chunks.all().delete()
    for number, data in enumerate([b"external_id\nb\nanna-the", b"-great\nc\n"]):
        RecipientImportChunk.objects.create(upload=upload, number=number, data=data)
    assert erase(person).gone["uploadedFiles"] == 1


def test_kept_answers_to_programs_are_freed_of_the_person_and_their_keys_stay(service):
    api = Api(token())
    person = RecipientFactory(external_id="42", email="anna@example.com")
    body = json.dumps([{"externalId": "42", "line": 42}, {"externalId": "420"}, {"to": "anna@example.com"}])
    kept = {"client": "c", "fingerprint": "f", "status": 200, "created_at": NOW}
    IdempotencyKey.objects.create(key="theirs", body=body, **kept)
    IdempotencyKey.objects.create(key="others", body='[{"externalId": "420"}]', **kept)
    assert api.delete("recipients/42", version=person.version).json()["storedAnswers"] == 1
    assert json.loads(IdempotencyKey.objects.get(key="theirs").body) == [
        {"externalId": "erased", "line": 42}, {"externalId": "420"}, {"to": "erased"},
    ]  # fmt: skip
    assert IdempotencyKey.objects.get(key="others").body == '[{"externalId": "420"}]'


def test_half_typed_drafts_that_name_the_person_are_dropped_from_sessions(service):
    person = RecipientFactory(external_id="anna 7")
    session = SessionStore()
    session[erasing.UNSAVED_STEPS] = {"1": {"audience": "query=%7B%22anna+7", "basics": "name=Hannah+77"}}
    session.save()
    assert erase(person).gone["sessions"] == 1
    assert SessionStore(session.session_key)[erasing.UNSAVED_STEPS] == {"1": {"basics": "name=Hannah+77"}}

"""Erasures at once with each other, with edits and tests under way; of people who are hard to find or to delete."""

import json
import threading
import time

import pytest
from django.db import connections, transaction

from audit.models import AuditEvent
from delivery import caps, erasure, test_sends
from delivery.counters import CountersAway
from delivery.models import OutboxMessage, TestSend
from delivery.providers.base import Permit
from frontend import erasing
from frontend.models import IdempotencyKey
from schedules import fingerprints, mentions, operations
from schedules.imports import uploads
from schedules.imports.recipients import Format
from schedules.models import Device, Recipient, ScheduleVersion
from schedules.recipients import NoSuchRecipient
from tests.books import assert_books_close
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, people
from tests.service import MINUTE, in_threads, states

pytestmark = pytest.mark.django_db(transaction=True)

ODD = [
    '"',
    "\\",
    "a\\u0041",
    "%s",
    "%(id)s",
    "{}",
    "$.x",
    "ä\u0301\u202e",
    "𝕏" * 50,
    "'; --",
    "null",
    "1",
    "x" * 200,
    "a/b?c",
]


def erase(person):
    return erasing.erase(recipient_id=person.pk, by=BY, now=NOW)


def naming(*ids):
    return {"all": [{"field": "external_id", "op": "in", "value": list(ids)}]}


def test_of_two_erasures_of_one_person_one_finds_nobody(service):
    person = people(1)[0]
    ScheduleFactory.create(run_at=NOW + MINUTE, audience_query=naming(person.external_id))
    service.open()

    def tried():
        try:
            return erase(person)
        except NoSuchRecipient:
            return None

    receipts = in_threads(tried, tried)
    assert len([each for each in receipts if each]) == 1
    assert AuditEvent.objects.filter(action="recipient.erase").count() == 1
    assert not Recipient.objects.exists()


def test_people_of_the_same_batches_definitions_and_answers_are_erased_at_once(service):
    gone, staying = people(8), people(30)
    schedules = [
        ScheduleFactory.create(run_at=NOW + MINUTE, channel=channel, audience_query={"all": []})
        for channel in ("email", "in_app", "push")
    ]
    named = ScheduleFactory.create(run_at=NOW + MINUTE, audience_query=naming(*(each.external_id for each in gone)))
    service.open()
    answer = {"client": "c", "fingerprint": "f", "status": 200, "created_at": NOW}
    for number in range(20):
        body = json.dumps([{"externalId": each.external_id, "email": each.email} for each in gone[number % 5 :]])
        IdempotencyKey.objects.create(key=f"k{number}", body=body, **answer)
    in_threads(*(lambda person=person: erase(person) for person in gone))
    assert_books_close()
    assert Recipient.objects.count() == len(staying)
    for schedule in schedules:
        assert states(schedule) == {"erased": len(gone), "pending": len(staying)}
    kept = str([*IdempotencyKey.objects.values_list("body"), *named.versions.values_list("definition")])
    assert not [each for each in gone if f'"{each.external_id}"' in kept or f"'{each.external_id}'" in kept]


@pytest.mark.parametrize("external_id", ODD)
def test_an_odd_id_is_found_wherever_it_stands(service, external_id):
    person = RecipientFactory.create(external_id=external_id, email="odd@example.com")
    schedule = ScheduleFactory.create(run_at=NOW + MINUTE, audience_query=naming("other", external_id))
    others = ScheduleFactory.create(
        run_at=NOW + MINUTE, audience_query=naming(f"{external_id}2", external_id.upper() + "x")
    )
    before = others.versions.get().definition
    kept = {"client": "c", "fingerprint": "f", "status": 200, "created_at": NOW}
    IdempotencyKey.objects.create(key="k", body=json.dumps({"externalId": external_id}), **kept)
    assert mentions.schedules_naming(external_id=external_id) == [schedule.pk]
    receipt = erase(person)
    assert receipt.gone["definitions"] == 2
    assert receipt.gone["storedAnswers"] == 1
    assert mentions.schedules_naming(external_id=external_id) == []
    assert schedule.versions.get().definition["audienceQuery"] == naming("other", f"erased person #{person.pk}")
    assert others.versions.get().definition == before
    assert fingerprints.is_erased(external_id, "")


def test_an_edit_under_way_that_still_names_the_person_is_met(service):
    """It has locked the schedule, and its version is written while the erasure waits."""
    person = people(1)[0]
    schedule = ScheduleFactory.create(run_at=NOW + MINUTE, audience_query=naming(person.external_id))
    with transaction.atomic():
        changes = {"audience_query": naming("more", person.external_id)}
        operations.update(schedule_id=schedule.pk, changes=changes, by=BY, now=NOW)
        eraser = threading.Thread(target=lambda: (erase(person), connections.close_all()))
        eraser.start()
        time.sleep(0.3)
    eraser.join(20)
    assert not Recipient.objects.exists()
    assert person.external_id not in str([*ScheduleVersion.objects.values_list("definition", flat=True)])
    schedule.refresh_from_db()
    assert person.external_id not in str(schedule.audience_query)


def test_a_schedule_that_names_the_person_for_the_first_time_meanwhile_is_met(service, monkeypatch):
    """Between two look-ups, as while the erasure waits for the lock of another schedule."""
    person = people(1)[0]
    ScheduleFactory.create(run_at=NOW + MINUTE, audience_query=naming(person.external_id))
    look, late = mentions._versions_naming, []

    def looked(external_id):
        found = look(external_id)
        if not late:
            late.append(ScheduleFactory.create(run_at=NOW + MINUTE, audience_query=naming("more", external_id)))
        return found

    monkeypatch.setattr(mentions, "_versions_naming", looked)
    receipt = erase(person)
    late[0].refresh_from_db()
    assert late[0].audience_query == naming("more", f"erased person #{person.pk}")
    assert late[0].versions.get().definition["audienceQuery"] == late[0].audience_query
    assert receipt.gone["definitions"] == 4


def test_an_id_that_is_changed_while_the_person_is_erased_is_forgotten_too(service, monkeypatch):
    person = people(1)[0]
    schedule = ScheduleFactory.create(run_at=NOW + MINUTE, audience_query=naming(person.external_id, "renamed"))
    forget = mentions.forget

    def forgotten(**arguments):
        Recipient.objects.filter(pk=person.pk).update(external_id="renamed")
        return forget(**arguments)

    monkeypatch.setattr(mentions, "forget", forgotten)
    receipt = erase(person)
    schedule.refresh_from_db()
    assert schedule.audience_query == naming(*[f"erased person #{person.pk}"] * 2)
    assert receipt.gone["definitions"] == 4
    assert next(each.count for each in receipt.remains if each.what == "audit") == 1


def test_somebody_with_a_thousand_devices_and_many_stored_answers_is_erased_within_seconds(service):
    person = RecipientFactory.create()
    Device.objects.bulk_create(DeviceFactory.build_batch(1_000, recipient=person))
    token = Device.objects.latest("pk").token
    kept = {"client": "c", "fingerprint": "f", "status": 200, "created_at": NOW}
    filler = "x" * 1_000
    IdempotencyKey.objects.bulk_create(
        IdempotencyKey(key=f"k{number}", body=json.dumps([token if number % 100 == 0 else filler]), **kept)
        for number in range(1_000)
    )
    start = time.thread_time()
    receipt = erase(person)
    assert time.thread_time() - start < 5
    assert (receipt.gone["devices"], receipt.gone["storedAnswers"]) == (1_000, 10)
    assert not IdempotencyKey.objects.filter(body__contains=token).exists()


def test_without_the_counters_somebody_is_erased_all_the_same(service, monkeypatch):
    def away(*_):
        raise CountersAway("refused")

    monkeypatch.setattr(caps, "_ask", away)
    person = people(1)[0]
    erase(person)
    assert not Recipient.objects.exists()


def test_a_test_that_is_being_sent_is_forgotten_and_one_not_yet_begun_never_begins(service, provider):
    person = RecipientFactory.create()
    schedule = ScheduleFactory.create(run_at=NOW + MINUTE)
    wishes = [test_sends.ask(schedule_id=schedule.pk, external_id=person.external_id, by=BY, now=NOW) for _ in range(2)]
    provider.meanwhile = staticmethod(lambda: erase(person))
    test_sends.send(test_send_id=wishes[0].pk, now=NOW)
    test_sends.send(test_send_id=wishes[1].pk, now=NOW)
    assert len(provider.calls) == 1
    assert not TestSend.objects.exists()
    assert not OutboxMessage.objects.exists()


def test_a_test_whose_worker_was_held_up_after_it_had_read_the_address_is_not_sent(service, provider, monkeypatch):
    """Its permit counts from before the person was read, as in a run."""
    person = RecipientFactory.create()
    schedule = ScheduleFactory.create(run_at=NOW + MINUTE)
    wish = test_sends.ask(schedule_id=schedule.pk, external_id=person.external_id, by=BY, now=NOW)
    monkeypatch.setattr(test_sends, "_PERMIT_S", 0.2)
    rendered = test_sends._rendered

    def slowly(*args, **kwargs):
        time.sleep(0.4)
        erase(person)
        return rendered(*args, **kwargs)

    monkeypatch.setattr(test_sends, "_rendered", slowly)
    test_sends.send(test_send_id=wish.pk, now=NOW)
    assert provider.calls == []


def test_a_test_that_is_erased_while_a_worker_takes_it_is_nobodys(service, provider, monkeypatch):
    person = RecipientFactory.create()
    schedule = ScheduleFactory.create(run_at=NOW + MINUTE)
    wish = test_sends.ask(schedule_id=schedule.pk, external_id=person.external_id, by=BY, now=NOW)
    lasting = Permit.lasting

    def then(seconds):
        erasure.forget(recipient_id=person.pk, by=BY, now=NOW)
        return lasting(seconds)

    monkeypatch.setattr(test_sends.Permit, "lasting", staticmethod(then))
    test_sends.send(test_send_id=wish.pk, now=NOW)
    assert provider.calls == []


@pytest.mark.parametrize("is_read", [False, True])
def test_an_import_in_which_the_person_stands_brings_back_nobody_and_nothing_of_the_file(service, monkeypatch, is_read):
    """The person is erased while a worker is at the file: before it reads it, or after everything but the last word."""
    person = RecipientFactory.create(external_id="anna", email="anna@example.com")
    lines = [{"externalId": "anna", "email": "anna@example.com", "tags": ["new"]}, {"externalId": "bea"}]
    data = "\n".join(map(json.dumps, lines)).encode()
    kept = uploads.keep(name="people.ndjson", chunks=[data], format=Format.NDJSON, by=BY, now=NOW)
    uploads.run(import_id=kept.pk, now=NOW)
    uploads.confirm(import_id=kept.pk, by=BY, now=NOW)
    read = uploads._read
    others: list[threading.Thread] = []

    def erase_beside():
        others.append(threading.Thread(target=lambda: (erase(person), connections.close_all())))
        others[0].start()
        others[0].join(0 if is_read else 20)

    def reading(*args, **kwargs):
        if not is_read:
            erase_beside()
        found = read(*args, **kwargs)
        if is_read:
            erase_beside()
            time.sleep(0.3)
        return found

    monkeypatch.setattr(uploads, "_read", reading)
    uploads.run(import_id=kept.pk, now=NOW)
    others[0].join(20)
    kept.refresh_from_db()
    assert not Recipient.objects.filter(external_id="anna").exists()
    assert Recipient.objects.filter(external_id="bea").exists() == is_read
    assert not kept.chunks.exists()
    assert "anna" not in str([kept.report, kept.bad])

"""Forgetting a person: the profile goes, what was still to come is erased, and the books still close."""

import threading

import pytest
from django.db import connections

from audit.models import AuditEvent
from delivery import erasure
from delivery.models import Delivery, FailedAttempt, InboxMessage, OutboxMessage, State
from delivery.providers.base import Verdict
from delivery.providers.in_app import InAppProvider
from schedules.models import Device, Recipient
from schedules.recipients import NoSuchRecipient
from tests.books import assert_books_close
from tests.factories import BY, NOW, DeviceFactory, ScheduleFactory, people
from tests.service import DAY, HOUR, MINUTE, only_occurrence, reasons, row_of, states

pytestmark = pytest.mark.django_db


def forget(service, person):
    done = erasure.forget(recipient_id=person.pk, by=BY, now=service.now)
    assert_books_close()
    return done


def test_what_is_still_to_come_is_erased_at_once_in_every_occurrence(service, provider):
    gone, staying = people(2)
    schedules = [ScheduleFactory(run_at=NOW + MINUTE, channel=channel) for channel in ("email", "push", "in_app")]
    service.open()
    assert forget(service, gone).pending == 3
    for schedule in schedules:
        assert reasons(schedule) == {"erased: profile_gone": 1, "pending: ": 1}
        assert row_of(schedule, gone).settled_at == NOW
    service.run_to(NOW + MINUTE)
    assert gone.pk not in provider.reached()
    assert row_of(schedules[0], staying).state == State.SENT


def test_the_profile_goes_with_its_devices_inbox_and_outbox(service):
    person = DeviceFactory().recipient
    for channel in ("in_app", "email"):
        ScheduleFactory(channel=channel)
    service.step()
    assert (InboxMessage.objects.count(), OutboxMessage.objects.count()) == (1, 1)
    forget(service, person)
    assert not Recipient.objects.exists()
    assert not Device.objects.exists()
    assert not InboxMessage.objects.exists()
    assert not OutboxMessage.objects.exists()


def test_what_was_sent_stays_in_the_books_under_an_id_that_means_nothing_any_more(service, provider):
    gone = people(1)[0]
    schedule = ScheduleFactory()
    service.step()
    assert forget(service, gone).pending == 0
    assert states(schedule) == {"sent": 1}
    assert only_occurrence(schedule).targeted == 1


def test_nothing_that_is_kept_names_the_person(service, provider):
    gone = people(1, attributes={"first_name": "Ada"})[0]
    schedule = ScheduleFactory()
    provider.answers(Verdict.TRANSIENT, "busy", detail="mailbox of <address> is full")
    service.step()
    forget(service, gone)
    kept = [
        *Delivery.objects.values(),
        *FailedAttempt.objects.values(),
        *AuditEvent.objects.values(),
        *schedule.versions.values(),
    ]
    for word in (gone.external_id, gone.email, "Ada"):
        assert word not in str(kept)


def test_who_waits_for_a_retry_is_not_tried_again(service, provider):
    gone = people(1)[0]
    schedule = ScheduleFactory()
    provider.answers(Verdict.TRANSIENT, "busy")
    service.step()
    assert forget(service, gone).pending == 1
    service.run_to(NOW + HOUR)
    assert reasons(schedule) == {"erased: profile_gone": 1}
    assert len(provider.calls) == 1


def test_a_call_under_way_ends_and_is_booked_as_what_it_was(service, provider):
    persons = people(3)
    schedule = ScheduleFactory()
    service.open()
    provider.answers(Verdict.UNKNOWN, "read_timeout")
    service.send()
    assert forget(service, persons[0]).pending == 0
    assert reasons(schedule) == {"unknown: read_timeout": 3}


def test_who_is_forgotten_between_two_waves_gets_nothing_from_the_second(service, provider):
    gone = people(1, time_zone="UTC")[0]
    people(60, time_zone="Asia/Kolkata")
    schedule = ScheduleFactory(run_at=NOW + DAY, time_zone_mode="user_local")
    service.run_to(NOW + DAY - HOUR)
    forget(service, gone)
    service.run_to(NOW + DAY)
    assert states(schedule) == {"sent": 60, "erased": 1}
    assert only_occurrence(schedule).closed_at is not None


def test_who_is_forgotten_before_an_audience_is_found_is_not_in_it(service, provider):
    gone, _ = people(2)
    schedule = ScheduleFactory()
    service.tick()
    forget(service, gone)
    service.materialise()
    assert states(schedule) == {"pending": 1}


def test_who_is_forgotten_is_not_brought_back_by_an_edit(service, provider):
    gone, _ = people(2, tags=["a"])
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    service.open()
    forget(service, gone)
    service.update(schedule, audience_query={"field": "tags", "op": "contains", "value": "a"})
    service.materialise()
    assert reasons(schedule) == {"erased: profile_gone": 1, "pending: ": 1}


def test_the_receipt_says_who_did_it_and_how_much_was_still_to_come(service):
    gone = people(1)[0]
    ScheduleFactory(run_at=NOW + MINUTE)
    service.open()
    forget(service, gone)
    event = AuditEvent.objects.get(action="recipient.erase")
    assert (event.actor_id, event.created_at) == (BY, NOW)
    assert event.payload_diff["pending"] == 1


def test_forgetting_nobody_is_said_to(service):
    with pytest.raises(NoSuchRecipient):
        erasure.forget(recipient_id=999_999_999, by=BY, now=NOW)


def test_a_failure_on_the_way_forgets_nothing(service, monkeypatch):
    gone = people(1)[0]
    schedule = ScheduleFactory(run_at=NOW + MINUTE)
    service.open()

    def fail(**_):
        raise RuntimeError("no room for the receipt")

    monkeypatch.setattr(erasure.trail, "record", fail)
    with pytest.raises(RuntimeError):
        erasure.forget(recipient_id=gone.pk, by=BY, now=NOW)
    assert Recipient.objects.filter(pk=gone.pk).exists()
    assert states(schedule) == {"pending": 1}


@pytest.mark.django_db(transaction=True)
def test_who_is_forgotten_while_a_new_message_is_laid_into_the_inbox_is_forgotten_with_it(service, monkeypatch):
    gone = people(1)[0]
    ScheduleFactory(channel="in_app")
    service.tick()
    laid, go_on = threading.Event(), threading.Event()
    inbox = InAppProvider._call

    def lay_and_wait(self, messages, *, permit):
        answers = inbox(self, messages, permit=permit)
        laid.set()
        assert go_on.wait(60)
        return answers

    def send():
        service.send()
        connections.close_all()

    def meanwhile(tally):
        """Past the erasure's look at what is to come: an audience is found, and a worker is about to commit."""
        monkeypatch.setattr(erasure.Tally, "flush", flush)
        other.start()
        assert laid.wait(60)
        threading.Timer(0.3, go_on.set).start()

    monkeypatch.setattr(InAppProvider, "_call", lay_and_wait)
    flush = erasure.Tally.flush
    other = threading.Thread(target=send)
    look = erasure._open_batches

    def look_before(recipient_id):
        found = look(recipient_id)
        finder = threading.Thread(target=lambda: (service.materialise(), connections.close_all()))
        finder.start()
        finder.join()
        return found

    monkeypatch.setattr(erasure, "_open_batches", look_before)
    monkeypatch.setattr(erasure.Tally, "flush", meanwhile)
    erasure.forget(recipient_id=gone.pk, by=BY, now=NOW)
    other.join()
    assert not Recipient.objects.exists()
    assert not InboxMessage.objects.exists()

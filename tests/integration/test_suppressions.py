"""Addresses that are not written to any more: how they become so, what it means, and who may take it back."""

from collections import Counter
from uuid import UUID

import pytest
from django.db import connection

from audit.models import AuditEvent
from delivery import erasure, forecast, holdings
from delivery.events.base import Kind
from delivery.ledger import claims
from delivery.models import Delivery
from schedules import encryption, rotation, suppressions
from schedules.audience.parser import parse
from schedules.audience.preview import preview
from schedules.consents import Asked
from schedules.definition import Definition
from schedules.models import SoftBounce, Suppression
from tests.factories import BY, NOW, RecipientFactory, ScheduleFactory, people
from tests.provider_events import event, settle
from tests.service import DAY, HOUR, reasons

pytestmark = pytest.mark.django_db

EVERYBODY = {"all": []}


def row_of(person):
    return Delivery.objects.filter(recipient_id=person.pk).latest("occurrence_id")


def send(service, **fields):
    """A schedule that is due now, and what became of its people."""
    schedule = ScheduleFactory(run_at=service.now, **fields)
    service.step()
    return schedule


def suppressed() -> Counter[str]:
    return Counter(Suppression.objects.values_list("reason", flat=True))


# --- By events --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "reason"), [(Kind.BOUNCE_HARD, "bounced"), (Kind.COMPLAINT, "complained")])
def test_whose_message_came_back_or_who_complained_is_not_written_to_again(service, provider, kind, reason):
    gone, _ = people(2)
    send(service)
    settle(event(kind, row_of(gone), detail="Permanent/General"), now=service.now)
    kept = Suppression.objects.get()
    assert (kept.reason, kept.source, kept.detail) == (reason, "system:events", "Permanent/General")
    assert kept.occurrence_id == row_of(gone).occurrence_id
    provider.reset()
    again = send(service.after(HOUR))
    assert reasons(again) == {f"suppressed: {reason}": 1, "sent: ": 1}
    assert gone.pk not in provider.reached()
    assert row_of(gone).detail == '{"since": "2026-11-21T10:00:00+00:00"}'
    in_app = send(service.after(HOUR), channel="in_app")
    assert reasons(in_app) == {"sent: ": 2}


def test_five_messages_that_came_back_for_now_are_enough_and_the_same_one_is_no_second(service, provider):
    (person,) = people(1)
    for number in range(1, 6):
        service.after(DAY)
        send(service)
        for _ in range(2):
            settle(event(Kind.BOUNCE_SOFT, row_of(person)), now=service.now)
        assert SoftBounce.objects.count() == number
        assert suppressed() == ({"bounced_often": 1} if number == 5 else {})
    assert reasons(send(service.after(DAY))) == {"suppressed: bounced_often": 1}


def test_what_came_back_more_than_a_fortnight_ago_counts_no_more(service, provider):
    (person,) = people(1)
    for _ in range(7):
        send(service.after(4 * DAY))
        settle(event(Kind.BOUNCE_SOFT, row_of(person)), now=service.now)
    assert suppressed() == {}
    assert suppressions.soft_bounces(person, now=service.now) == 4
    assert suppressions.purge(now=service.now) == 3
    assert SoftBounce.objects.count() == 4


def test_a_complaint_is_graver_than_a_bounce_and_not_the_other_way_round(service, provider):
    (person,) = people(1)
    send(service)
    for kind, expected in [
        (Kind.BOUNCE_HARD, "bounced"),
        (Kind.COMPLAINT, "complained"),
    ]:
        settle(event(kind, row_of(person)))
        assert suppressed() == {expected: 1}
    send(service.after(HOUR))
    settle(event(Kind.BOUNCE_HARD, row_of(person)))
    assert suppressed() == {"complained": 1}


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ("Anna@Example.com", "anna@example.COM"),
        ("anna@bücher.example", "anna@xn--bcher-kva.example"),
        ("anna@xn--bcher-kva.example", "anna@bücher.example"),
        ("anna@example.com", "Anna <anna@example.com>"),
        ("anna@example.com", ""),  # the provider does not say which
    ],
)
def test_an_address_is_known_however_it_is_written(service, provider, kept, told):
    person = RecipientFactory(email=kept)
    send(service)
    settle(event(Kind.BOUNCE_HARD, row_of(person), address=told), now=service.now)
    assert reasons(send(service.after(HOUR))) == {"suppressed: bounced": 1}


def test_another_address_of_the_person_is_written_to(service, provider):
    (person,) = people(1)
    send(service)
    settle(event(Kind.BOUNCE_HARD, row_of(person)), now=service.now)
    person.email = "new@example.com"
    person.save()
    assert reasons(send(service.after(HOUR))) == {"sent: ": 1}


def test_whoever_has_the_address_is_not_written_to(service, provider):
    (person,) = people(1)
    send(service)
    settle(event(Kind.COMPLAINT, row_of(person)), now=service.now)
    RecipientFactory(external_id="twin", email=person.email.upper())
    assert reasons(send(service.after(HOUR))) == {"suppressed: complained": 2}
    found = suppressions.people_of(Suppression.objects.all())
    assert [sorted(each.external_id for each in people) for people in found.values()] == [
        sorted([person.external_id, "twin"])
    ]


def test_an_objection_is_told_first(service, provider):
    RecipientFactory(external_id="quiet", consent={"email": False}, email="quiet@example.com")
    fingerprint = suppressions.fingerprint_to_block("quiet@example.com")
    suppressions.block(fingerprint=fingerprint, by=BY, now=NOW)
    assert reasons(send(service)) == {"suppressed: opted_out": 1}


# --- Told before ------------------------------------------------------------------------------------------------------


def test_forecast_and_preview_count_the_suppressed_as_those_who_objected(service):
    person, other, *_ = people(4)
    RecipientFactory(consent={"email": False})
    for each in (person, other):
        suppressions.block(fingerprint=suppressions.fingerprint_to_block(each.email), by=BY, now=NOW)
    schedule = ScheduleFactory(run_at=NOW + HOUR, max_per_user_per_day=1)
    told = forecast.forecast(definition=Definition.of(schedule), now=NOW, editing=schedule.pk)
    assert (told.targeted, told.suppressed, told.unaddressable, told.attempted) == (5, 3, 0, 2)
    looked = preview(node=parse(EVERYBODY), asked=Asked("email"), sample=0, now=NOW)
    assert (looked.count, looked.suppressed, looked.unaddressable) == (5, 3, 0)
    pushed = preview(node=parse(EVERYBODY), asked=Asked("push"), sample=0, now=NOW)
    assert (pushed.suppressed, pushed.unaddressable) == (0, 5)


# --- By people --------------------------------------------------------------------------------------------------------


def test_somebody_is_blocked_and_written_to_again_and_the_audit_tells_of_both_without_the_address(service, provider):
    (person,) = people(1)
    fingerprint = suppressions.fingerprint_to_block(person.email)
    kept, is_new = suppressions.block(fingerprint=fingerprint, by=BY, now=NOW, recipient_id=person.pk)
    assert (kept.reason, is_new) == ("blocked", True)
    assert suppressions.block(fingerprint=fingerprint, by=BY, now=NOW) == (kept, False)
    assert suppressions.of_person(person) == kept
    assert reasons(send(service)) == {"suppressed: blocked": 1}
    suppressions.lift(suppression_id=kept.pk, by=BY, now=NOW, may_forgive=False, recipient_id=person.pk)
    assert reasons(send(service.after(HOUR))) == {"sent: ": 1}
    events = AuditEvent.objects.filter(action__startswith="suppression.").order_by("id")
    assert [(event.action, event.payload_diff["recipient"]) for event in events] == [
        ("suppression.add", person.pk),
        ("suppression.remove", person.pk),
    ]
    said = str([event.payload_diff for event in events])
    assert person.email not in said
    assert fingerprint.hex() not in said


def test_a_complaint_is_taken_back_by_who_may_change_people_alone(service, provider):
    (person,) = people(1)
    send(service)
    settle(event(Kind.COMPLAINT, row_of(person)))
    kept = Suppression.objects.get()
    with pytest.raises(suppressions.NotYours):
        suppressions.lift(suppression_id=kept.pk, by=BY, now=NOW, may_forgive=False)
    suppressions.lift(suppression_id=kept.pk, by=BY, now=NOW, may_forgive=True)
    with pytest.raises(suppressions.NoSuchSuppression):
        suppressions.lift(suppression_id=kept.pk, by=BY, now=NOW, may_forgive=True)


def test_an_event_that_comes_again_does_not_take_back_what_a_person_has_decided(service, provider):
    (person,) = people(1)
    send(service)
    bounce = event(Kind.BOUNCE_HARD, row_of(person))
    settle(bounce)
    suppressions.lift(suppression_id=Suppression.objects.get().pk, by=BY, now=NOW, may_forgive=False)
    settle(bounce)
    assert suppressed() == {}
    send(service.after(HOUR))
    settle(event(Kind.BOUNCE_HARD, row_of(person)))
    assert suppressed() == {"bounced": 1}


def test_who_is_written_to_again_begins_anew(service, provider):
    (person,) = people(1)
    for _ in range(5):
        send(service.after(HOUR))
        settle(event(Kind.BOUNCE_SOFT, row_of(person)), now=service.now)
    suppressions.lift(suppression_id=Suppression.objects.get().pk, by=BY, now=NOW, may_forgive=False)
    send(service.after(HOUR))
    settle(event(Kind.BOUNCE_SOFT, row_of(person)), now=service.now)
    assert (suppressed(), SoftBounce.objects.count()) == ({}, 1)


@pytest.mark.parametrize("address", ["", "nobody", "@example.com", "nobody@", "a\0b@example.com"])
def test_what_is_no_address_can_not_be_blocked(address):
    with pytest.raises(suppressions.InvalidSuppression):
        suppressions.fingerprint_to_block(address)


# --- Erased -----------------------------------------------------------------------------------------------------------


def test_an_erasure_leaves_the_fingerprint_which_nobody_can_read_and_says_so(service, provider):
    (person,) = people(1)
    send(service)
    settle(event(Kind.BOUNCE_SOFT, row_of(person)), event(Kind.COMPLAINT, row_of(person)))
    receipt = erasure.forget(recipient_id=person.pk, by=BY, now=NOW)
    remains = {each.what: each for each in receipt.remains}
    assert remains["suppression"].count == 1
    assert suppressed() == {"complained": 1}
    assert not SoftBounce.objects.exists()
    assert receipt.gone["softBounces"] == 1
    back = RecipientFactory(external_id="back", email=person.email)
    assert reasons(send(service.after(HOUR))) == {"suppressed: complained": 1}
    assert suppressions.of_person(back) is not None


def test_what_is_held_of_a_person_names_what_came_back(service, provider):
    (person,) = people(1)
    send(service)
    settle(event(Kind.BOUNCE_SOFT, row_of(person)), event(Kind.BOUNCE_HARD, row_of(person)))
    held = holdings.export(recipient_id=person.pk, by=BY, now=NOW)
    assert held["suppression"]["reason"] == "bounced"
    assert "fingerprint" not in held["suppression"]
    assert held["softBounces"] == 1
    (told,) = held["feedback"]
    assert told["news"] == "bounced_hard"
    assert told["occurrenceId"] == row_of(person).occurrence_id


# --- A new key --------------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_what_the_index_begins_with_in_python_and_in_sql():
    index = encryption.index_of_address("anna@example.com")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {encryption.fingerprint_sql('%s::uuid')}", [index])
        assert bytes(cursor.fetchone()[0]) == encryption.fingerprint_of(index)
    low, high = encryption.range_of_index(encryption.index_with(encryption.fingerprint_of(index)))
    assert low <= index <= high
    assert isinstance(low, UUID)


def test_what_is_suppressed_stays_so_under_another_key_of_the_indexes(service, settings):
    person, other = people(2)
    suppressions.block(fingerprint=suppressions.fingerprint_to_block(person.email), by=BY, now=NOW)
    before = bytes(Suppression.objects.get().fingerprint)
    settings.BLIND_INDEX_KEY = "ab" * 32
    assert suppressions.of_person(person) is not None  # by the index that it still has
    rotation.rotate(reindex=True)
    for each in (person, other):
        each.refresh_from_db()
    assert bytes(Suppression.objects.get().fingerprint) != before
    assert suppressions.of_person(person) is not None
    assert suppressions.of_person(other) is None
    assert reasons(send(service)) == {"suppressed: blocked": 1, "sent: ": 1}


# --- What it costs ----------------------------------------------------------------------------------------------------


def test_a_claim_probes_the_index_and_never_reads_all_suppressions(service):
    """By the plan of the claim's own question, with many more suppressions than people."""
    made = [
        Suppression(channel="email", fingerprint=n.to_bytes(12, "big"), reason="bounced", source=BY, created_at=NOW)
        for n in range(20_000)
    ]
    Suppression.objects.bulk_create(made)
    people(60)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE schedules_suppression")
        cursor.execute("ANALYZE schedules_recipient")
        cursor.execute(
            f"EXPLAIN SELECT CASE {claims._IS_SUPPRESSED} ELSE 0 END FROM schedules_recipient r",
            {"channel": "email"},
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "suppression_once" in plan
    assert "Seq Scan on schedules_suppression" not in plan

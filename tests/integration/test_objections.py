"""An objection made here stands, whatever the user service repeats, until it is known to have been taken back."""

import io
from datetime import timedelta
from importlib import import_module

import pytest
from django.db import connection

from schedules import recipients
from schedules.imports import merging
from schedules.imports.bulk import merge_lines
from schedules.imports.recipients import Format, import_recipients
from schedules.models import Recipient
from schedules.user_service.mirror import mirror
from schedules.user_service.reading import read_profiles
from tests.factories import BY, NOW, RecipientFactory
from tests.service import DAY, HOUR, MINUTE

pytestmark = pytest.mark.django_db

AT = "2026-11-21T10:00:00+00:00"  # NOW


def told(consent, *, at=None, now=NOW + DAY, said_at=None, **members):
    """What the user service says of Anna; ``at``: its ``updatedAt``."""
    dated = {} if at is None else {"updatedAt": at.isoformat()}
    dated |= members
    profiles = read_profiles([{"externalId": "anna", "consent": consent, **dated}])
    return mirror(*profiles, by="system:user_service", now=now, said_at=said_at)


def anna() -> Recipient:
    return Recipient.objects.get(external_id="anna")


def create():
    recipients.create(external_id="anna", profile={"consent": {"email": False}}, by=BY, now=NOW)


def update():
    person = RecipientFactory(external_id="anna", consent={"email": True})
    recipients.update(recipient_id=person.pk, changes={"consent": {"email": False}}, by=BY, now=NOW)


def replace():
    person = RecipientFactory(external_id="anna")
    profile = {"external_id": "anna", "consent": {"email": False}}
    recipients.replace(recipient_id=person.pk, profile=profile, by=BY, now=NOW)


def save_the_form():
    person = RecipientFactory(external_id="anna", consent={"email": True})
    profile = {"external_id": "anna", "consent": {"email": False}}
    recipients.replace(recipient_id=person.pk, profile=profile, keep_objections=False, by=BY, now=NOW)


def import_somebody_new(now=NOW):
    stream = io.BytesIO(b"external_id,consent_email\nanna,no\n")
    return import_recipients(stream=stream, format=Format.CSV, by=BY, now=now)


def import_somebody_known():
    RecipientFactory(external_id="anna", consent={"email": True})
    import_somebody_new()


def send_many():
    RecipientFactory(external_id="anna")
    merge_lines(stream=io.BytesIO(b'{"externalId": "anna", "consent": {"email": false}}'), by=BY, now=NOW)


DOORS = [create, update, replace, save_the_form, import_somebody_new, import_somebody_known, send_many]


@pytest.mark.parametrize("door", DOORS)
def test_an_older_or_undated_yes_of_the_service_takes_nothing_back_and_a_younger_one_does(door):
    door()
    assert anna().objected_at == {"email": AT}
    for at in (NOW - DAY, NOW, None):
        told({"email": True, "push": True}, at=at)
        assert (anna().consent, anna().objected_at) == ({"email": False, "push": True}, {"email": AT})
    told({"email": True}, at=NOW + MINUTE)
    assert (anna().consent, anna().objected_at) == ({"email": True, "push": True}, {})


def test_it_stands_however_often_the_service_repeats_itself():
    told({"email": True}, at=NOW - DAY)
    recipients.update(recipient_id=anna().pk, changes={"consent": {"email": False}}, by=BY, now=NOW)
    before = anna().version
    for hours in range(3):
        found = told({"email": True}, at=NOW - DAY, now=NOW + hours * HOUR)
        assert (anna().consent, anna().version, found.ids) == ({"email": False}, before, [anna().pk])


@pytest.mark.parametrize("consented", [NOW - DAY, NOW, None, NOW + 3 * DAY], ids=["before", "then", "null", "to come"])
def test_where_the_service_dates_the_consent_itself_nothing_else_that_is_new_takes_an_objection_back(consented):
    create()
    dated = {"consentUpdatedAt": consented and consented.isoformat()}
    told({"email": True}, at=NOW + HOUR, locale="de", **dated)
    assert (anna().consent, anna().objected_at, anna().locale) == ({"email": False}, {"email": AT}, "de")
    told({"email": True}, at=NOW + HOUR, consentUpdatedAt=(NOW + MINUTE).isoformat())
    assert (anna().consent, anna().objected_at) == ({"email": True}, {})


def test_a_dated_consent_counts_in_a_profile_without_a_date_too():
    create()
    told({"email": True}, said_at=NOW + HOUR, consentUpdatedAt=(NOW + MINUTE).isoformat())
    assert anna().consent == {"email": True}


def test_what_a_message_is_dated_is_no_date_of_the_consent_in_it():
    create()
    told({"email": True}, said_at=NOW + HOUR)
    assert anna().consent == {"email": False}


def test_a_yes_of_a_time_to_come_takes_nothing_back_but_a_clock_may_be_a_little_ahead():
    create()
    now = NOW + HOUR
    told({"email": True}, at=now + DAY, now=now)
    assert anna().consent == {"email": False}
    told({"email": True}, at=now + timedelta(seconds=20), now=now)
    assert anna().consent == {"email": True}


def test_an_objection_that_the_service_alone_has_told_is_its_own_to_take_back():
    told({"email": False}, at=NOW)
    assert (anna().consent, anna().objected_at) == ({"email": False}, {})
    told({"email": True})
    assert anna().consent == {"email": True}


def test_who_objects_here_as_well_is_believed():
    told({"email": False}, at=NOW - DAY)
    before = anna().version
    recipients.update(recipient_id=anna().pk, changes={"consent": {"email": False}}, by=BY, now=NOW)
    assert (anna().objected_at, anna().version) == ({"email": AT}, before)
    told({"email": True}, at=NOW - HOUR)
    assert anna().consent == {"email": False}


def test_an_objection_is_as_old_as_the_last_time_it_was_said():
    import_somebody_new(now=NOW - DAY)
    assert import_somebody_new().written.unchanged == 1
    assert (anna().objected_at, anna().version) == ({"email": AT}, 1)
    told({"email": True}, at=NOW - HOUR)
    assert anna().consent == {"email": False}


def test_a_form_that_shows_the_objection_says_it_no_more_than_it_was():
    told({"email": False}, at=NOW - DAY)
    profile = {"external_id": "anna", "locale": "de", "consent": {"email": False}}
    recipients.replace(recipient_id=anna().pk, profile=profile, keep_objections=False, by=BY, now=NOW)
    assert (anna().locale, anna().objected_at) == ("de", {})
    recipients.update(recipient_id=anna().pk, changes={"consent": {"email": False}}, by=BY, now=NOW)
    recipients.replace(recipient_id=anna().pk, profile=profile, keep_objections=False, by=BY, now=NOW + HOUR)
    assert anna().objected_at == {"email": AT}


def test_who_takes_it_back_here_has_taken_it_back():
    create()
    recipients.update(recipient_id=anna().pk, changes={"consent": {"email": True}}, by=BY, now=NOW + HOUR)
    assert anna().objected_at == {}
    create_again = io.BytesIO(b"external_id,consent_email\nanna,no\n")
    import_recipients(stream=create_again, format=Format.CSV, by=BY, now=NOW)
    import_recipients(stream=io.BytesIO(b"external_id,consent_email\nanna,yes\n"), format=Format.CSV, by=BY, now=NOW)
    assert (anna().consent, anna().objected_at) == ({"email": True}, {})
    recipients.update(recipient_id=anna().pk, changes={"consent": {"email": False}}, by=BY, now=NOW)
    profile = {"external_id": "anna", "consent": {}}
    recipients.replace(recipient_id=anna().pk, profile=profile, keep_objections=False, by=BY, now=NOW)
    assert (anna().consent, anna().objected_at) == ({}, {})


def test_silence_of_a_replacement_keeps_it_as_old_as_it_was():
    create()
    profile = {"external_id": "anna", "locale": "de"}
    recipients.replace(recipient_id=anna().pk, profile=profile, by=BY, now=NOW + HOUR)
    assert (anna().consent, anna().objected_at) == ({"email": False}, {"email": AT})


def test_one_that_is_made_while_the_service_is_listened_to_stands(monkeypatch):
    told({"email": True}, at=NOW - DAY)
    merge = merging.merge

    def objected_in_between(**arguments):
        recipients.update(recipient_id=anna().pk, changes={"consent": {"email": False}}, by=BY, now=NOW)
        return merge(**arguments)

    with monkeypatch.context() as patched:
        patched.setattr(merging, "merge", objected_in_between)
        told({"email": True, "push": True}, at=NOW - HOUR)
    assert anna().consent == {"email": False, "push": True}


def test_those_of_before_count_as_made_here_when_the_profile_was_last_changed():
    RecipientFactory(external_id="anna", consent={"email": False, "push": True}, updated_at=NOW)
    RecipientFactory(external_id="bea", consent={"push": True}, updated_at=NOW)
    migration = import_module("schedules.migrations.0021_objections_made_here")
    with connection.cursor() as cursor:
        cursor.execute(migration._DATE_OBJECTIONS)
    assert anna().objected_at == {"email": AT}
    assert Recipient.objects.get(external_id="bea").objected_at == {}

"""Quiet hours that were set here stand, whatever the user service repeats, until it says so of a later time."""

import pytest

from schedules import preferences, recipients
from schedules.models import Recipient
from schedules.user_service.mirror import mirror
from schedules.user_service.reading import read_profiles
from tests.factories import BY, NOW, RecipientFactory
from tests.service import DAY, HOUR, MINUTE

pytestmark = pytest.mark.django_db

NIGHT = {"from": "22:00", "to": "07:00"}
LUNCH = {"from": "12:00", "to": "14:00"}
SERVICE = "system:user_service"


def told(hours, *, now=NOW + DAY, **dated):
    """What the user service says of Anna."""
    profile = {"externalId": "anna", "quietHours": hours, **{name: at and at.isoformat() for name, at in dated.items()}}
    return mirror(*read_profiles([profile]), by=SERVICE, now=now)


def anna() -> Recipient:
    return Recipient.objects.get(external_id="anna")


def test_what_the_service_says_is_kept_and_only_what_is_new_is_written():
    told(NIGHT, now=NOW)
    assert (anna().quiet_hours, anna().quiet_hours_source) == (NIGHT, {"by": SERVICE, "at": NOW.isoformat()})
    assert told(NIGHT, now=NOW + HOUR).written.unchanged == 1
    assert anna().version == 1
    told(LUNCH, now=NOW + DAY)  # its own words it may change at any time
    assert (anna().quiet_hours, anna().version) == (LUNCH, 2)
    mirror(*read_profiles([{"externalId": "anna", "locale": "de"}]), by=SERVICE, now=NOW + DAY)
    assert (anna().quiet_hours, anna().locale) == (LUNCH, "de")
    told(None, now=NOW + 2 * DAY)
    assert anna().quiet_hours is None


@pytest.mark.parametrize("hours", [NIGHT, None], ids=["set", "taken away"])
@pytest.mark.parametrize("by_person", [True, False])
def test_those_set_here_stand_against_what_is_not_known_to_be_later(hours, by_person):
    person = RecipientFactory(external_id="anna", quiet_hours={"from": "01:00", "to": "02:00"})
    if by_person:
        preferences.change(recipient_id=person.pk, said={"quiet_hours": hours}, now=NOW)
    else:
        recipients.update(recipient_id=person.pk, changes={"quiet_hours": hours}, by=BY, now=NOW)
    source = anna().quiet_hours_source
    for dated in (
        {},
        {"updatedAt": NOW - HOUR},
        {"updatedAt": NOW},
        {"updatedAt": NOW + HOUR, "quietHoursUpdatedAt": NOW - DAY},
        {"updatedAt": NOW + HOUR, "quietHoursUpdatedAt": None},
        {"updatedAt": NOW + 2 * HOUR, "quietHoursUpdatedAt": NOW + 3 * DAY},  # which is still to come
    ):
        told(LUNCH, **dated)
        assert (anna().quiet_hours, anna().quiet_hours_source) == (hours, source), dated
    told(LUNCH, updatedAt=NOW + 3 * HOUR, quietHoursUpdatedAt=NOW + MINUTE)
    assert (anna().quiet_hours, anna().quiet_hours_source["by"]) == (LUNCH, SERVICE)


def test_where_the_service_dates_the_profile_alone_that_counts():
    person = RecipientFactory(external_id="anna")
    recipients.update(recipient_id=person.pk, changes={"quiet_hours": NIGHT}, by=BY, now=NOW)
    told(LUNCH, updatedAt=NOW + HOUR)
    assert anna().quiet_hours == LUNCH


@pytest.mark.parametrize(
    "hours", [{"from": "22:00", "to": "22:00"}, {"from": "22:00"}, "22:00-07:00", {"from": "x", "to": "07:00"}]
)
def test_what_can_not_be_kept_is_left_out_and_counted(hours):
    person = RecipientFactory(external_id="anna")
    recipients.update(recipient_id=person.pk, changes={"quiet_hours": NIGHT}, by=SERVICE, now=NOW)
    found = told(hours)
    assert (found.flawed, found.ids) == (1, [person.pk])
    assert anna().quiet_hours == NIGHT

"""What the user service says of people becomes what is kept of them: whole, newest, and no more than it says."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit.models import Action, AuditEvent
from delivery import erasure
from schedules.models import Device, MirroredPerson, Recipient
from schedules.user_service.mirror import mirror
from schedules.user_service.reading import read_profiles
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory
from tests.service import DAY, HOUR
from tests.user_service import LONG_SINCE, profile, said_at

pytestmark = pytest.mark.django_db


def told(*profiles, now=NOW, as_of=None, resolution_id=None):
    return mirror(*read_profiles(profiles), by="system:user_service", now=now, as_of=as_of, resolution_id=resolution_id)


def kept(external_id="anna") -> Recipient:
    return Recipient.objects.get(external_id=external_id)


def tokens(external_id="anna") -> set[str]:
    return {device.token for device in Device.objects.filter(recipient__external_id=external_id)}


def device(token, platform="ios"):
    return {"platform": platform, "token": token}


# --- What a profile says ----------------------------------------------------------------------------------------------


def test_somebody_new_is_kept_with_all_that_is_said():
    found = told(
        profile(
            "anna",
            locale="de-AT",
            timeZone="Europe/Vienna",
            attributes={"plan": "pro"},
            tags=["beta"],
            consent={"push": False},
            devices=[device("t1")],
        )
    )
    anna = kept()
    assert found.ids == [anna.pk]
    assert (anna.email, anna.locale, anna.time_zone) == ("anna@example.com", "de-AT", "Europe/Vienna")
    assert (anna.attributes, anna.tags, anna.consent) == ({"plan": "pro"}, ["beta"], {"push": False})
    assert tokens() == {"t1"}
    mirrored = MirroredPerson.objects.get()
    assert (mirrored.recipient_id, mirrored.mirrored_at, mirrored.source_updated_at) == (anna.pk, NOW, LONG_SINCE)


def test_what_is_named_takes_the_place_of_what_was_there_as_a_whole():
    anna = RecipientFactory(external_id="anna", attributes={"plan": "free", "city": "Graz"}, tags=["beta", "old"])
    DeviceFactory(recipient=anna, token="t1")
    DeviceFactory(recipient=anna, token="t2")
    told(profile("anna", email=None, attributes={"plan": "pro"}, tags=["new"], devices=[device("t2"), device("t3")]))
    after = kept()
    assert (after.email, after.attributes, after.tags) == ("", {"plan": "pro"}, ["new"])
    assert tokens() == {"t2", "t3"}
    assert after.version == anna.version + 1


def test_what_is_not_named_stays():
    anna = RecipientFactory(external_id="anna", attributes={"plan": "free"}, tags=["beta"], locale="de")
    DeviceFactory(recipient=anna, token="t1")
    told({"externalId": "anna", "timeZone": "Europe/Vienna"})
    after = kept()
    assert (after.email, after.attributes, after.tags, after.locale) == (anna.email, {"plan": "free"}, ["beta"], "de")
    assert (after.time_zone, tokens()) == ("Europe/Vienna", {"t1"})


def test_no_devices_any_more_is_said_by_an_empty_list():
    anna = RecipientFactory(external_id="anna")
    DeviceFactory(recipient=anna, token="t1")
    told({"externalId": "anna", "devices": []})
    assert tokens() == set()
    assert kept().version == anna.version + 1


def test_silence_takes_no_objection_back_and_a_word_does():
    RecipientFactory(external_id="anna", consent={"email": False, "push": False})
    told(profile("anna"), profile("bea", consent={}))
    assert kept().consent == {"email": False, "push": False}
    told(profile("anna", consent={"push": True, "email": None}))
    assert kept().consent == {"email": False, "push": True}


def test_where_nothing_is_new_nothing_is_written_but_that_it_was_told_again():
    same = profile("anna", attributes={"plan": "pro"}, devices=[device("t1")])
    first = told(same)
    before, events = Recipient.objects.values().get(), AuditEvent.objects.count()
    again = told(same, now=NOW + HOUR)
    assert Recipient.objects.values().get() == before
    assert AuditEvent.objects.count() == events
    assert (again.ids, again.written.unchanged) == (first.ids, 1)
    assert MirroredPerson.objects.get().mirrored_at == NOW + HOUR


def test_what_changed_is_in_the_audit_by_number_and_signed():
    told(profile("anna"), profile("bea", devices=[device("t1")]))
    event = AuditEvent.objects.get()
    assert (event.action, event.actor_id) == (Action.RECIPIENT_IMPORT, "system:user_service")
    assert event.payload_diff["created"] == 2
    assert event.payload_diff["devices_added"] == 1
    assert "anna" not in str(event.payload_diff)
    assert kept().updated_by == "system:user_service"


def test_of_a_profile_with_a_bad_part_the_rest_is_kept_and_both_are_counted():
    RecipientFactory(external_id="anna", email="anna@example.com")
    found = told(
        {"externalId": "anna", "email": "no address", "locale": "de"},
        {"externalId": "", "email": "who@example.com"},
        {"email": "nobody@example.com"},
    )
    assert (kept().email, kept().locale) == ("anna@example.com", "de")
    assert (len(found.ids), found.flawed, found.unreadable) == (1, 1, 2)
    assert Recipient.objects.count() == 1


# --- Devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "consent", [{"email": False, "sms": True}, {"push": "no", "email": False}, {"email": False, "sms": "\0"}]
)
def test_an_objection_is_kept_whatever_stands_beside_it(consent):
    told(profile("anna", consent={"email": True, "push": True}))
    assert told(profile("anna", consent=consent)).flawed == 1
    assert kept().consent == {"email": False, "push": True}


def test_a_device_that_the_push_provider_retired_stays_retired():
    anna = RecipientFactory(external_id="anna")
    DeviceFactory(recipient=anna, token="t1", platform="ios", active=False)
    told(profile("anna", devices=[device("t1"), device("t2")]))
    assert set(Device.objects.values_list("token_index", "active")) == {
        (each.token_index, each.token == "t2") for each in Device.objects.all()
    }


def spoil() -> None:
    """Change one bit of every address and every token, as no key's owner would."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE schedules_recipient SET email = set_byte(email, 20, get_byte(email, 20) # 1)")
        cursor.execute("UPDATE schedules_device SET token = set_byte(token, 20, get_byte(token, 20) # 1)")


def lose_the_key(settings) -> None:
    settings.ENCRYPTION_KEYS = ["5f" * 32]


@pytest.mark.parametrize("more", [{}, {"locale": "de"}], ids=["nothing new", "something new"])
@pytest.mark.parametrize("is_damaged", [True, False])
def test_what_nobody_can_read_is_put_back_by_what_is_told_again(settings, is_damaged, more):
    anna, bea = profile("anna", devices=[device("t1"), device("t2")]), profile("bea", devices=[device("t3")])
    told(anna, bea)
    spoil() if is_damaged else lose_the_key(settings)
    found = told(anna | more)
    assert (kept().email, tokens(), kept().version) == ("anna@example.com", {"t1", "t2"}, 2)
    assert (found.written.updated, found.written.devices_renewed) == (1, 2)
    assert (str(kept("bea").email), kept("bea").version) == ("(unreadable)", 1)


def test_a_retired_device_is_not_revived_because_nobody_can_read_it():
    anna = RecipientFactory(external_id="anna", email="anna@example.com")
    DeviceFactory(recipient=anna, token="t1", platform="ios", active=False)
    spoil()
    told(profile("anna", devices=[device("t1")]))
    assert (kept().email, Device.objects.get().active) == ("anna@example.com", False)


def test_a_device_goes_to_whom_it_is_said_to_belong_now():
    anna = RecipientFactory(external_id="anna")
    DeviceFactory(recipient=anna, token="t1")
    told(profile("bea", devices=[device("t1")]))
    assert (tokens("anna"), tokens("bea")) == (set(), {"t1"})
    assert kept("anna").version == anna.version + 1


def test_of_two_who_are_said_to_have_one_device_the_newer_statement_is_right():
    found = told(
        profile("anna", devices=[device("t1")], updatedAt=said_at(1)),
        profile("bea", devices=[device("t1"), device("t2")], updatedAt=said_at(2)),
        profile("cleo", devices=[device("t2")], updatedAt=said_at(0)),
    )
    assert len(found.ids) == 3
    assert (tokens("anna"), tokens("bea"), tokens("cleo")) == (set(), {"t1", "t2"}, set())


# --- Which statement counts -------------------------------------------------------------------------------------------


def test_what_is_older_than_what_is_known_changes_nothing_and_names_the_person_all_the_same():
    told(profile("anna", locale="de", updatedAt=said_at(5)))
    found = told(profile("anna", locale="fr", devices=[device("t1")], updatedAt=said_at(4)), now=NOW + HOUR)
    assert (kept().locale, tokens(), found.ids) == ("de", set(), [kept().pk])
    told(profile("anna", locale="it", updatedAt=said_at(5)))
    assert kept().locale == "it"
    assert MirroredPerson.objects.get().source_updated_at == LONG_SINCE + 5 * DAY


def test_a_statement_without_its_time_is_taken_for_the_latest():
    told(profile("anna", locale="de", updatedAt=said_at(5)))
    told({"externalId": "anna", "locale": "fr"})
    assert kept().locale == "fr"
    assert MirroredPerson.objects.get().source_updated_at == LONG_SINCE + 5 * DAY


def test_a_page_without_times_takes_nothing_back_of_what_was_said_after_its_instant():
    anna = {"externalId": "anna"}
    told(anna | {"consent": {"email": False}, "updatedAt": (NOW + HOUR).isoformat()}, now=NOW + HOUR)
    page = anna | {"consent": {"email": True}}
    assert told(page, now=NOW + 2 * HOUR, as_of=NOW, resolution_id=1).ids == [kept().pk]
    assert kept().consent == {"email": False}
    told(page, now=NOW + 3 * HOUR, as_of=NOW + 2 * HOUR, resolution_id=2)
    assert kept().consent == {"email": True}


def test_a_time_that_is_still_to_come_is_taken_for_the_present():
    told(profile("anna", locale="de", updatedAt="2099-01-01T00:00:00Z"))
    assert MirroredPerson.objects.get().source_updated_at == NOW
    told(profile("anna", locale="fr", updatedAt=(NOW + timedelta(seconds=1)).isoformat()), now=NOW + HOUR)
    assert kept().locale == "fr"


@pytest.mark.parametrize("newer", [0, 1])
def test_of_two_statements_of_a_page_the_newest_counts(newer):
    says = [profile("anna", locale=locale, updatedAt=said_at(day)) for locale, day in (("de", 1), ("fr", 2))]
    found = told(*(says if newer else says[::-1]))
    assert (kept().locale, len(found.ids), found.repeated) == ("fr", 1, 1)


def test_of_two_statements_without_a_time_the_first_counts():
    found = told({"externalId": "anna", "locale": "de"}, {"externalId": " anna ", "locale": "fr"})
    assert (kept().locale, found.repeated) == ("de", 1)


def test_over_the_pages_of_one_resolution_as_within_one():
    told({"externalId": "anna", "locale": "de"}, resolution_id=7)
    second = told({"externalId": "anna", "locale": "fr"}, profile("bea"), resolution_id=7)
    assert kept().locale == "de"
    assert (second.ids, second.repeated) == ([kept("bea").pk], 1)
    third = told(profile("anna", locale="it"), resolution_id=7)
    assert (kept().locale, third.ids, third.repeated) == ("it", [], 1)
    other = told({"externalId": "anna", "locale": "es"}, resolution_id=8)
    assert (kept().locale, other.ids, other.repeated) == ("es", [kept().pk], 0)


def test_what_is_pushed_in_between_does_not_hide_who_has_been_told_of():
    told(profile("anna"), resolution_id=7)
    told(profile("anna", updatedAt=said_at(3)))
    assert told(profile("anna", updatedAt=said_at(3)), resolution_id=7).repeated == 1


# --- Who is gone ------------------------------------------------------------------------------------------------------


def test_somebody_erased_is_left_out_and_counted():
    person = RecipientFactory(external_id="anna", email="anna@example.com")
    told(profile("anna"))
    erasure.forget(recipient_id=person.pk, by=BY, now=NOW)
    assert not MirroredPerson.objects.exists()
    found = told(profile("anna", devices=[device("t1")]), profile("bea"))
    assert (found.left_out, found.ids) == (1, [kept("bea").pk])
    assert not Recipient.objects.filter(external_id="anna").exists()
    assert not Device.objects.exists()


# --- What it takes ----------------------------------------------------------------------------------------------------


def test_a_page_takes_as_many_statements_however_many_people_are_on_it():
    def statements(*profiles):
        with CaptureQueriesContext(
            connection,
        ) as caught:
            told(*profiles)
        return len(caught)

    some = [profile(f"person-{number}", devices=[device(f"t{number}")]) for number in range(3)]
    many = [profile(f"other-{number}", devices=[device(f"o{number}")]) for number in range(60)]
    assert statements(*many) == statements(*some)


def test_where_nothing_is_new_nothing_is_encrypted_or_staged():
    same = profile("anna", attributes={"plan": "pro", "age": 31, "deep": {"a": [1.5, "ä\n"]}}, devices=[device("t1")])
    told(same)
    plain = same | {"attributes": {"z": 'ä "\n\u007f', "plan": "pro", "b": True, "age": 31, "größe": 1.5}}
    told(plain)
    with CaptureQueriesContext(connection) as caught:
        found = told(plain, profile("nobody-new") | {"externalId": "anna"})
    assert (found.written.unchanged, found.repeated) == (1, 1)
    assert not [each["sql"] for each in caught if "TEMPORARY" in each["sql"]]


@pytest.mark.parametrize("now_says", [{"vip": 1}, {"vip": "true"}, {"vip": None}, {"vip": True, "more": 1}, {}])
def test_what_only_looks_alike_is_something_new(now_says):
    told(profile("anna", attributes={"vip": True}))
    told(profile("anna", attributes=now_says))
    after = kept()
    said = {name: value for name, value in now_says.items() if value is not None}
    assert [(name, type(value)) for name, value in after.attributes.items()] == [
        (name, type(value)) for name, value in said.items()
    ]
    assert (after.attributes, after.version) == (said, 2)


def test_a_page_of_nobody_is_nothing():
    assert told().ids == []
    assert told({"email": "nobody@example.com"}).unreadable == 1

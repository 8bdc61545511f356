"""The pages about people: who is found, who sees what, and that each change goes through its operation."""

import re
from datetime import timedelta
from html import unescape

import pytest
from django.urls import reverse

from audit.models import Action, AuditEvent
from delivery.models import Delivery, State
from schedules import recipients
from schedules.models import Recipient
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.factories import NOW, DeviceFactory, RecipientFactory, ScheduleFactory, people

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("service")]

LIST = "/recipients/"


def text_of(response) -> str:
    return " ".join(unescape(response.content.decode()).split())


def form(*attributes, **changes):
    """What a browser posts for a profile; ``attributes``: (name, kind, value)."""
    said = {
        "external_id": "anna",
        "email": "anna@example.com",
        "locale": "de",
        "time_zone": "Europe/Berlin",
        "tags": "beta\nvip",
        "consent_push": "no",
        "attributes-TOTAL_FORMS": len(attributes),
        "attributes-INITIAL_FORMS": 0,
        **changes,
    }
    for number, (name, kind, value) in enumerate(attributes):
        said |= {f"attributes-{number}-name": name, f"attributes-{number}-kind": kind}
        said[f"attributes-{number}-value"] = value
    return said


def ids(response) -> list[str]:
    return [row.person.external_id for row in response.context["rows"]]


def test_people_are_found_by_id_zone_language_tag_and_address():
    RecipientFactory(external_id="anna-1", time_zone="Europe/Berlin", locale="de", tags=["vip"])
    RecipientFactory(external_id="anna-2", time_zone="Mars/Crater", email="")
    RecipientFactory(external_id="bert")
    client = signed_in(Role.ANALYST)
    page = client.get(LIST)
    assert ids(page) == ["bert", "anna-2", "anna-1"]
    assert "3 people" in text_of(page)
    assert text_of(page).count("unknown zone") == 1
    for asked, found in (
        ({"q": "anna"}, ["anna-2", "anna-1"]),
        ({"zone": "Europe/Berlin"}, ["anna-1"]),
        ({"locale": "de"}, ["anna-1"]),
        ({"tag": "vip"}, ["anna-1"]),
        ({"address": "no"}, ["anna-2"]),
        ({"address": "yes", "q": "b"}, ["bert"]),
    ):
        assert ids(client.get(LIST, asked)) == found, asked
    assert "Nobody fits" in text_of(client.get(LIST, {"q": "nobody"}))


def test_a_long_list_goes_on_by_key_at_the_same_cost(django_assert_max_num_queries):
    people(120)
    client = signed_in(Role.ADMIN)
    seen, address = [], LIST
    while address:
        with django_assert_max_num_queries(16):
            page = client.get(address)
        seen += ids(page)
        address = page.context["following"]
    assert len(seen) == len(set(seen)) == 120
    assert "incomplete" in text_of(client.get(LIST, {"after": "nonsense"}))


def test_a_large_table_is_told_in_round_numbers(monkeypatch):
    monkeypatch.setattr(recipients, "about_how_many", lambda: 2_034_567)
    assert "About 2,000,000 people" in text_of(signed_in(Role.ANALYST).get(LIST))


def test_nobody_at_all_is_told_with_what_to_do():
    assert "Import people" in text_of(signed_in(Role.ADMIN).get(LIST))
    page = signed_in(Role.ANALYST).get(LIST)
    assert "There is nobody yet" in text_of(page)
    assert "/recipients/import/" not in text_of(page)


def test_addresses_are_masked_by_role_and_analysts_find_no_control_that_writes():
    anna = RecipientFactory(external_id="anna", email="anna@example.com")
    DeviceFactory(recipient=anna, token="token-secret-123456")
    for role, clear in ((Role.ANALYST, False), (Role.MARKETER, True), (Role.ADMIN, True)):
        client = signed_in(role)
        for address in (LIST, reverse("recipient", args=[anna.pk])):
            page = text_of(client.get(address))
            assert ("anna@example.com" in page) is clear
            assert ("a…@example.com" in page) is not clear
            assert "token-secret" not in page
        edits = reverse("recipient-edit", args=[anna.pk]) in page
        assert edits is (role is Role.ADMIN)


def test_only_an_admin_writes():
    anna = RecipientFactory()
    device = DeviceFactory(recipient=anna)
    for role in (Role.MARKETER, Role.ANALYST):
        client = signed_in(role)
        for name, *args in (
            ("recipient-new",),
            ("recipient-edit", anna.pk),
            ("recipient-erase", anna.pk),
            ("recipient-device-add", anna.pk),
            ("recipient-device-remove", anna.pk, device.pk),
            ("recipient-imports",),
        ):
            assert client.post(reverse(name, args=args), form()).status_code == 403
    assert Recipient.objects.get().version == anna.version


def test_a_person_tells_what_is_known_of_him_and_what_became_of_each_message(service, django_assert_max_num_queries):
    anna = RecipientFactory(
        external_id="anna",
        time_zone="Asia/Tokyo",
        attributes={"plan": "pro", "lastOrder": "2026-11-20T10:00:00Z"},
        consent={"push": False},
    )
    DeviceFactory(recipient=anna)
    ScheduleFactory(name="Offer", max_per_user_per_day=1)
    ScheduleFactory(name="Note", channel="in_app")
    ScheduleFactory(name="Ping", channel="push")
    service.step()
    client = signed_in(Role.ANALYST)
    with django_assert_max_num_queries(30):
        page = client.get(reverse("recipient", args=[anna.pk]))
    said = text_of(page)
    assert "2026-11-21 19:00:00 Asia/Tokyo (UTC+09:00)" in said
    assert "Opted out: gets nothing here" in said
    assert "<dt>Plan</dt><dd>pro</dd>" in said
    assert '<dt>Last order <span class="ns-own">lastOrder</span></dt>' in said
    assert "2026-11-20 19:00:00 Asia/Tokyo (UTC+09:00)" in said
    assert {row.occurrence.schedule.name: row.state for row in page.context["rows"]} == {
        "Offer": "sent",
        "Note": "sent",
        "Ping": "suppressed",
    }
    day, week = page.context["windows"]
    assert (day.used, week.used) == (2, 2)
    assert day.frees_at == NOW + timedelta(hours=24)
    assert [(limit.schedule, limit.is_used_up) for limit in day.limits] == [("Offer", True)]
    assert [message.title for message in page.context["inbox_messages"]] == ["Hello anna"]


def test_an_invalid_zone_is_marked_and_an_erased_person_is_told():
    mars = RecipientFactory(time_zone="Mars/Crater")
    client = signed_in(Role.ANALYST)
    said = text_of(client.get(reverse("recipient", args=[mars.pk])))
    assert "unknown zone" in said
    assert "clock now" not in said
    address = reverse("recipient", args=[mars.pk])
    mars.delete()
    gone = client.get(address)
    assert gone.status_code == 404
    assert "leaves no profile behind" in text_of(gone)


def test_an_admin_makes_a_person_by_the_operation():
    client = signed_in(Role.ADMIN)
    sent = form(("plan", "text", "pro"), ("age", "number", "31"), ("fan", "boolean", "yes"), ("likes", "json", "[1]"))
    response = client.post(reverse("recipient-new"), sent)
    anna = Recipient.objects.get()
    assert response.url == reverse("recipient", args=[anna.pk])
    assert anna.attributes == {"plan": "pro", "age": 31, "fan": True, "likes": [1]}
    assert (anna.tags, anna.consent, anna.updated_at) == (["beta", "vip"], {"push": False}, NOW)
    assert AuditEvent.objects.latest("id").action == Action.RECIPIENT_SAVE
    again = client.post(reverse("recipient-new"), sent)
    assert again.status_code == 422
    assert "Somebody has this external id already" in text_of(again)


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"external_id": ""}, "external_id", "required"),
        ({"external_id": "a\tb"}, "external_id", "control character"),
        ({"email": "no address"}, "email", "no e-mail address"),
        ({"tags": "x" * 300}, "tags", "256"),
        ({"email": "a\0@example.com"}, "email", ""),
        ({"quiet_from": "22:00"}, "quiet_to", "Write a time here too"),
        ({"quiet_to": "07:00"}, "quiet_from", "Write a time here too"),
        ({"quiet_from": "late", "quiet_to": "07:00"}, "quiet_from", "Write a time such as"),
        ({"quiet_from": "07:00", "quiet_to": "07:00"}, "quiet_to", "ends when it begins"),
    ],
)
def test_what_is_wrong_with_a_profile_is_said_at_its_field(changes, field, said):
    page = signed_in(Role.ADMIN).post(reverse("recipient-new"), form(**changes))
    assert page.status_code == 422
    assert said in page.context["form"].errors[field][0]
    assert not Recipient.objects.exists()


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        (("", "text", "pro"), "name", "Name the attribute"),
        (("age", "number", "1,5"), "value", "Write a number such as"),
        (("age", "number", "1e999"), "value", "finite"),
        (("age", "number", "9" * 5_000), "value", "Write a number"),
        (("age", "number", "true"), "value", "Write a number"),
        (("fan", "boolean", "perhaps"), "value", "Write yes or no"),
        (("likes", "json", "[1"), "value", "Write a list"),
        (("likes", "json", "[" * 100_00), "value", ""),
        (("likes", "json", r'"\ud800"'), "value", "surrogate"),
        (("not a name!", "text", "x"), "name", "1 to 64 letters"),
    ],
)
def test_what_is_wrong_with_an_attribute_is_said_at_its_row(row, field, said):
    page = signed_in(Role.ADMIN).post(reverse("recipient-new"), form(("plan", "text", "pro"), row))
    assert page.status_code == 422
    assert said in page.context["attributes"].forms[1].errors[field][0]
    assert not Recipient.objects.exists()


def test_the_second_of_two_writers_is_shown_what_the_first_has_changed():
    anna = RecipientFactory(external_id="anna", email="old@example.com")
    boss = signed_in(Role.ADMIN, name="boss")
    edit = reverse("recipient-edit", args=[anna.pk])
    opened = boss.get(edit).context["form"].initial["version"]
    first = signed_in(Role.ADMIN, name="first")
    assert first.post(edit, form(email="first@example.com", version=opened)).status_code == 302
    second = boss.post(edit, form(email="second@example.com", version=opened))
    assert second.status_code == 422
    assert "first has changed this profile meanwhile" in text_of(second)
    assert ("E-mail address", "first@example.com", "second@example.com") in second.context["conflict"].differing
    version = second.context["form"]["version"].value()
    assert boss.post(edit, form(email="second@example.com", version=version)).status_code == 302
    anna.refresh_from_db()
    assert (anna.email, anna.version) == ("second@example.com", 3)


def test_quiet_hours_are_set_shown_kept_and_taken_away():
    anna = RecipientFactory(external_id="anna", time_zone="Europe/Berlin")
    boss = signed_in(Role.ADMIN, name="boss")
    page, edit = reverse("recipient", args=[anna.pk]), reverse("recipient-edit", args=[anna.pk])
    assert boss.post(edit, form(version=1, quiet_from="22:00", quiet_to="06:30")).status_code == 302
    shown = text_of(boss.get(page))
    assert "22:00 to 06:30" in shown
    assert "by boss" in shown
    opened = boss.get(edit).content.decode()
    assert re.search('type="time" name="quiet_from" value="22:00"', opened)
    assert re.search('type="time" name="quiet_to" value="06:30"', opened)
    stale = boss.post(edit, form(version=1, quiet_from="20:00", quiet_to="06:30"))
    assert ("Quiet hours", "22:00 to 06:30", "20:00 to 06:30") in stale.context["conflict"].differing
    assert boss.post(edit, form(version=2)).status_code == 302
    anna.refresh_from_db()
    assert (anna.quiet_hours, anna.quiet_hours_source["at"]) == (None, NOW.isoformat())


def test_a_device_is_registered_and_removed():
    anna = RecipientFactory()
    client = signed_in(Role.ADMIN)
    add = reverse("recipient-device-add", args=[anna.pk])
    assert client.post(add, {"platform": "ios", "token": "token-1"}).status_code == 302
    device = anna.devices.get()
    refused = client.post(add, {"platform": "ios", "token": "a b"})
    assert refused.status_code == 422
    assert "no spaces" in text_of(refused)
    assert client.post(reverse("recipient-device-remove", args=[anna.pk, device.pk])).status_code == 302
    assert not anna.devices.exists()


def test_erasing_asks_for_the_external_id_and_leaves_no_name(service):
    anna = RecipientFactory(external_id="anna")
    DeviceFactory(recipient=anna)
    schedule = ScheduleFactory(run_at=NOW + timedelta(seconds=30), now=NOW)
    service.open()
    client = signed_in(Role.ADMIN)
    erase = reverse("recipient-erase", args=[anna.pk])
    assert "There is no way back" in text_of(client.get(erase))
    wrong = client.post(erase, {"external_id": "Anna", "version": anna.version})
    assert wrong.status_code == 422
    assert "Nobody was erased" in text_of(wrong)
    stale = client.post(erase, {"external_id": "anna", "version": anna.version + 1}, follow=True)
    assert "Look at it again" in text_of(stale)
    assert Recipient.objects.exists()
    done = client.post(erase, {"external_id": "anna", "version": anna.version}, follow=True)
    assert "1 message that was still to come is not sent" in text_of(done)
    assert not Recipient.objects.exists()
    assert Delivery.objects.get(occurrence_id=schedule.occurrences.get().pk).state == State.ERASED
    assert AuditEvent.objects.latest("id").action == Action.RECIPIENT_ERASE

"""``/api/v1/recipients``: people and their devices, each answer as promised."""

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from django.db import connection

from audit.models import AuditEvent
from delivery.models import Delivery, InboxMessage, OutboxMessage, State
from frontend.instants import instant
from frontend.models import Client
from schedules import recipients
from schedules.models import Device, Recipient
from schedules.permissions import Role, Scope
from tests.accounts import account
from tests.api import READ_WRITE, Api, token
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, people

pytestmark = pytest.mark.django_db

EVA = {
    "email": "eva@example.com",
    "locale": "de-AT",
    "timeZone": "Europe/Vienna",
    "attributes": {"plan": "pro", "age": 31},
    "tags": ["beta"],
    "consent": {"email": True, "push": False},
}


@pytest.fixture
def api(service) -> Api:
    return Api(token())


def create(api, external_id="eva", body=EVA, **options):
    return api.call("PUT", f"recipients/{quote(external_id, safe='')}", body, **options)


def pointers(answer):
    return {error.get("pointer", error.get("parameter", error.get("header"))) for error in answer.json()["errors"]}


def test_a_person_is_created_read_replaced_changed_and_erased(api):
    made = create(api)
    assert made.status_code == 201, made.json()
    assert made["Location"] == "/api/v1/recipients/eva"
    assert made["ETag"] == '"1"'
    kept = made.json()
    made_by = f"client:{Client.objects.get().pk}"
    assert kept == {
        **EVA, "externalId": "eva", "devices": [], "version": 1, "createdAt": instant(NOW), "updatedAt": instant(NOW),
        "mirroredAt": None, "sourceUpdatedAt": None, "quietHours": None, "quietHoursSource": None,
        "consentSource": [{"key": key, "by": made_by, "at": instant(NOW)} for key in ("email", "push")],
    }  # fmt: skip
    read = api.get("recipients/eva")
    assert (read.json(), read["ETag"]) == (kept, '"1"')

    changed = api.patch("recipients/eva", {"attributes": {"plan": None, "city": "Wien"}, "locale": None}, version=1)
    assert changed.status_code == 200, changed.json()
    assert changed.json()["attributes"] == {"age": 31, "city": "Wien"}
    assert (changed.json()["locale"], changed.json()["email"]) == ("", "eva@example.com")
    assert changed["ETag"] == '"2"'

    replaced = api.put("recipients/eva", {"locale": "de"}, version=2)
    assert replaced.status_code == 200
    wanted = {"email": "", "locale": "de", "timeZone": "", "attributes": {}, "tags": [], "consent": {"push": False}}
    assert {name: replaced.json()[name] for name in wanted} == wanted

    erased = api.delete("recipients/eva", version=3)
    assert erased.status_code == 200
    assert {name: erased.json()[name] for name in ("pending", "devices", "inboxMessages", "outboxMessages")} == {
        "pending": 0, "devices": 0, "inboxMessages": 0, "outboxMessages": 0,
    }  # fmt: skip
    assert api.get("recipients/eva").status_code == 404
    assert not Recipient.objects.exists()


def test_a_change_that_changes_nothing_raises_no_version_and_leaves_no_trace(api):
    create(api)
    before = AuditEvent.objects.count()
    assert api.put("recipients/eva", EVA)["ETag"] == '"1"'
    assert api.patch("recipients/eva", {"tags": ["beta"]})["ETag"] == '"1"'
    assert AuditEvent.objects.count() == before
    assert api.patch("recipients/eva", {"attributes": {"age": True}})["ETag"] == '"2"'
    assert api.patch("recipients/eva", {"attributes": {"age": 1}}).json()["attributes"]["age"] == 1


def test_an_objection_is_taken_back_by_a_yes_alone(api):
    create(api)
    assert api.put("recipients/eva", {}).json()["consent"] == {"push": False}
    assert api.patch("recipients/eva", {"consent": {"push": None}}).json()["consent"] == {"push": False}
    assert api.put("recipients/eva", {"consent": {"push": True}}).json()["consent"] == {"push": True}
    assert api.put("recipients/eva", {}).json()["consent"] == {}


def test_quiet_hours_stay_until_null_takes_them_away_and_are_merged_as_a_patch_asks(api):
    night = {"from": "22:00", "to": "07:00"}
    made = create(api, body={**EVA, "quietHours": night}).json()
    assert (made["quietHours"], made["quietHoursSource"]["at"]) == (night, instant(NOW))
    assert made["quietHoursSource"]["by"] == f"client:{Client.objects.get().pk}"
    assert api.put("recipients/eva", EVA).json()["quietHours"] == night
    patch = {"quietHours": {"to": "08:30"}}
    assert pointers(api.patch("recipients/eva", patch)) == {"/quietHours"}
    merged = api.patch("recipients/eva", patch, content_type="application/merge-patch+json")
    assert merged.json()["quietHours"] == {"from": "22:00", "to": "08:30"}
    gone = api.patch("recipients/eva", {"quietHours": None}).json()
    assert (gone["quietHours"], gone["quietHoursSource"]["by"]) == (None, made["quietHoursSource"]["by"])


@pytest.mark.parametrize(
    "hours", [{"from": "22:00", "to": "22:00"}, {"from": "22:00", "to": "24:00"}, {"from": "22:00"}, "22:00-07:00", 7]
)
def test_what_are_no_quiet_hours_is_refused_by_its_name_and_nobody_is_kept(api, hours):
    answer = create(api, body={**EVA, "quietHours": hours})
    assert (answer.status_code, pointers(answer)) == (400, {"/quietHours"})
    assert not Recipient.objects.exists()


def test_the_audit_gets_the_names_of_what_changed_and_no_value(api):
    create(api)
    api.patch("recipients/eva", {"email": "new@example.com", "attributes": {"secret": "word"}})
    person = Recipient.objects.get()
    made, changed = AuditEvent.objects.filter(action="recipient.save").order_by("id")
    assert changed.payload_diff == {"recipient": person.pk, "email": "changed", "attributes": "changed"}
    assert changed.actor_id == person.updated_by
    told = str([made.payload_diff, changed.payload_diff])
    assert not [word for word in ("eva", "example", "secret", "word", "Vienna") if word in told]


def test_who_exists_is_replaced_only_with_if_match(api):
    create(api)
    without = create(api)
    assert (without.status_code, without.json()["currentVersion"]) == (428, 1)
    only_new = create(api, headers={"If-None-Match": "*"})
    assert only_new.status_code == 412
    assert only_new.json()["changedBy"].startswith("client:")
    assert create(api, "max", headers={"If-None-Match": "*"}).status_code == 201
    assert api.put("recipients/nobody", EVA, version="*").status_code == 412
    assert api.put("recipients/nobody", EVA, version=1).status_code == 412
    both = create(api, headers={"If-None-Match": "*", "If-Match": "*"})
    assert (both.status_code, pointers(both)) == (400, {"If-Match"})
    assert create(api, headers={"If-None-Match": '"3"'}).status_code == 400


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_a_stale_change_is_refused_with_who_was_quicker(api, method):
    create(api)
    other = Api(token(user=account(Role.ADMIN), scopes=READ_WRITE))
    assert other.patch("recipients/eva", {"locale": "fr"}).status_code == 200
    body = () if method == "delete" else ({"locale": "it"},)
    stale = getattr(api, method)("recipients/eva", *body, version=1)
    assert stale.status_code == 412
    problem = stale.json()
    assert (problem["currentVersion"], problem["changedAt"]) == (2, instant(NOW))
    assert problem["changedBy"].startswith("user:")
    assert Recipient.objects.get().locale == "fr"
    assert api.call(method.upper(), "recipients/eva", *body).status_code == 428
    assert api.call(method.upper(), "recipients/eva", *body, headers={"If-Match": "3"}).status_code == 400


@pytest.mark.django_db(transaction=True)
def test_of_two_writers_one_wins_and_of_two_creators_too(service):
    bearer = token()

    def write(body):
        try:
            return Api(bearer).patch("recipients/eva", body, version=1).status_code
        finally:
            connection.close()

    def make(number):
        try:
            return create(Api(bearer), "eva", {"locale": "de"}, headers={"If-None-Match": "*"}).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(make, range(4))) == [201, 412, 412, 412]
        assert sorted(pool.map(write, [{"locale": name} for name in ("fr", "it", "es", "pl")])) == [200, 412, 412, 412]
    assert Recipient.objects.get().version == 2


@pytest.mark.parametrize(
    "external_id", ["a b", "ä/ö", "a/devices", "a/devices/7", "100%", "a%2Fb", "?x#y", "日本", ".:;@&="]
)
def test_an_external_id_may_hold_any_characters(api, external_id):
    address = f"recipients/{quote(external_id, safe='')}"
    sent = {"RAW_URI": f"/api/v1/{address}"}
    made = api.call("PUT", address, {"locale": "de"}, **sent)
    assert made.status_code == 201, made.json()
    assert made["Location"] == f"/api/v1/{address}"
    assert made.json()["externalId"] == external_id
    assert api.get(address, **sent).json()["externalId"] == external_id
    registered = api.post(f"{address}/devices", {"platform": "web", "token": "t"}, RAW_URI=f"/api/v1/{address}/devices")
    assert registered.status_code == 201
    device = f"{address}/devices/{registered.json()['id']}"
    assert api.delete(device, RAW_URI=f"/api/v1/{device}").status_code == 204
    assert [person.external_id for person in Recipient.objects.all()] == [external_id]


def test_a_server_that_hands_on_no_raw_path_tells_a_slash_from_a_slash_where_it_can(api):
    assert create(api, "team/7").json()["externalId"] == "team/7"
    assert api.get("recipients/team%2F7").status_code == 200


@pytest.mark.parametrize("external_id", ["%00", "x" * 201, "a%0Ab", "a%0A", "%20a"])
def test_what_can_be_no_external_id_is_refused_and_found_nowhere(api, external_id):
    address = f"recipients/{external_id}"
    assert api.get(address).status_code == 404
    assert api.call("PUT", address, {}).status_code == 400
    assert api.delete(address).status_code == 404
    assert not Recipient.objects.exists()


def test_every_problem_is_told_at_once_each_with_its_pointer(api):
    answer = create(
        api,
        "eva",
        {
            "email": "a@b, c@d",
            "locale": 5,
            "timeZone": "x" * 65,
            "attributes": {"no good name": 1},
            "tags": ["ok", 7],
            "consent": {"email": "yes", "fax": True},
            "devices": [{"platform": "fax", "token": "t"}, {"platform": "ios"}],
            "externalId": "other",
            "shoe": 43,
        },
    )
    assert answer.status_code == 400
    assert pointers(answer) == {
        "/email", "/locale", "/timeZone", "/attributes", "/tags/1", "/consent/email", "/consent/fax",
        "/devices/0/platform", "/devices/1/token", "/externalId", "/shoe",
    }  # fmt: skip
    assert not Recipient.objects.exists()
    assert pointers(create(api, "x" * 201)) == {"external_id"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", 5), ("attributes", []), ("attributes", None), ("tags", "a"), ("tags", None),
        ("consent", {"email": 1}), ("consent", []), ("devices", {}), ("devices", [{"platform": "ios", "token": "a b"}]),
        ("devices", [{"platform": "ios", "token": f"t{n}"} for n in range(51)]), ("attributes", {"a": "x" * 20_000}),
    ],
)  # fmt: skip
def test_the_values_of_files_are_those_of_the_api(api, field, value):
    answer = create(api, body={field: value})
    assert answer.status_code == 400
    assert all(pointer.startswith(f"/{field}") for pointer in pointers(answer))


# Devices


def test_devices_are_registered_listed_and_removed_and_raise_the_version(api):
    create(api)
    made = api.post("recipients/eva/devices", {"platform": "ios", "token": "token-secret-123456"})
    assert made.status_code == 201, made.json()
    assert made.json()["token"] == "…123456"
    again = api.post("recipients/eva/devices", {"platform": "ios", "token": "token-secret-123456"})
    assert (again.status_code, again.json()) == (200, made.json())
    assert api.get("recipients/eva/devices").json() == {"items": [made.json()], "nextCursor": None}
    assert api.get("recipients/eva")["ETag"] == '"2"'
    device = f"recipients/eva/devices/{made.json()['id']}"
    create(api, "max")
    assert api.delete(device.replace("eva", "max")).status_code == 404
    assert api.delete(device).status_code == 204
    assert api.delete(device).status_code == 404
    assert api.get("recipients/eva").json()["version"] == 3


def test_a_token_belongs_to_one_person_and_moves_with_whoever_registers_it(api):
    create(api)
    create(api, "max", {"devices": [{"platform": "ios", "token": "t"}]})
    Device.objects.update(active=False)
    moved = api.post("recipients/eva/devices", {"platform": "android", "token": "t"})
    assert (moved.status_code, moved.json()["active"]) == (201, True)
    assert Device.objects.get().recipient.external_id == "eva"
    assert api.get("recipients/max").json()["devices"] == []
    assert [api.get(f"recipients/{name}").json()["version"] for name in ("eva", "max")] == [2, 2]
    taken_back = api.put("recipients/max", {"devices": [{"platform": "ios", "token": "t"}]})
    assert taken_back.json()["devices"][0]["platform"] == "ios"
    assert api.get("recipients/eva").json()["devices"] == []


def test_devices_are_replaced_when_given_and_stay_when_not(api):
    create(api, "eva", {"devices": [{"platform": "ios", "token": "t1"}, {"platform": "web", "token": "t2"}]})
    assert len(api.put("recipients/eva", {}).json()["devices"]) == 2
    kept = api.patch("recipients/eva", {"devices": [{"platform": "web", "token": "t2"}]}).json()
    assert [device["platform"] for device in kept["devices"]] == ["web"]
    assert api.put("recipients/eva", {"devices": []}).json()["devices"] == []


def test_a_person_has_fifty_devices_and_no_more(api):
    person = RecipientFactory(external_id="eva")
    Device.objects.bulk_create(Device(recipient=person, token=f"t{n}", platform="ios") for n in range(50))
    refused = api.post("recipients/eva/devices", {"platform": "ios", "token": "one more"})
    assert (refused.status_code, pointers(refused)) == (400, {"/token"})
    refused = api.post("recipients/eva/devices", {"platform": "ios", "token": "more"})
    assert refused.json()["errors"][0]["code"] == "too_many"
    assert api.post("recipients/eva/devices", {"platform": "ios", "token": "t7"}).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_token_that_several_register_at_once_is_somebody_s_and_everybody_s_version_tells(service):
    bearer = token()
    names = [person.external_id for person in people(4)]

    def register(name):
        try:
            return Api(bearer).post(f"recipients/{name}/devices", {"platform": "ios", "token": "t"}).status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(register, names)) == {201}
    owner = Device.objects.get().recipient
    assert owner.version == 2
    assert set(Recipient.objects.exclude(pk=owner.pk).values_list("version", flat=True)) == {3}


def test_the_same_key_registers_once(api):
    create(api)
    body, headers = {"platform": "ios", "token": "t"}, {"Idempotency-Key": "k"}
    first = api.post("recipients/eva/devices", body, headers=headers)
    assert first.status_code == 201
    again = api.post("recipients/eva/devices", body, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())


# Lists


def test_the_list_is_filtered_and_paged(api):
    for name, locale, zone, tag in (
        ("a1", "de", "UTC", "x"),
        ("a2", "fr", "UTC", "y"),
        ("b1", "de", "Asia/Tokyo", "x"),
    ):
        RecipientFactory(external_id=name, locale=locale, time_zone=zone, tags=[tag])

    def found(query):
        answer = api.get(f"recipients?{query}")
        assert answer.status_code == 200, answer.json()
        return [person["externalId"] for person in answer.json()["items"]]

    assert found("") == ["b1", "a2", "a1"]
    assert found("prefix=a") == ["a2", "a1"]
    assert found("prefix=%25") == []
    assert found("locale=de") == ["b1", "a1"]
    assert found("timeZone=Asia/Tokyo") == ["b1"]
    assert found("tag=x&locale=de&prefix=a") == ["a1"]
    first = api.get("recipients?limit=2").json()
    RecipientFactory(external_id="new")
    assert [person["externalId"] for person in api.get(f"recipients?cursor={first['nextCursor']}").json()["items"]] == [
        "a1"
    ]
    assert pointers(api.get("recipients?colour=red&limit=0")) == {"colour", "limit"}
    assert api.get("recipients?prefix=%00").status_code == 400


def test_a_page_takes_as_many_queries_for_twenty_as_for_two(api, django_assert_max_num_queries):
    for person in people(20):
        DeviceFactory(recipient=person)
    api.get("recipients")
    for limit in (2, 20):
        with django_assert_max_num_queries(4):
            assert len(api.get(f"recipients?limit={limit}").json()["items"]) == limit


# Who may


def test_addresses_are_in_clear_for_those_who_may_see_them(api):
    create(api)
    reader = Api(token(scopes=str(Scope.READ)))
    analyst = Api(token(scopes=READ_WRITE, user=account(Role.ANALYST)))
    for masked in (reader, analyst):
        assert masked.get("recipients/eva").json()["email"] == "e…@example.com"
        assert masked.get("recipients").json()["items"][0]["email"] == "e…@example.com"
    assert Api(token(user=account(Role.MARKETER))).get("recipients/eva").json()["email"] == "eva@example.com"


@pytest.mark.parametrize(("role", "status"), [(Role.ANALYST, 403), (Role.MARKETER, 403), (Role.ADMIN, 201)])
def test_only_admins_and_services_write_people(service, role, status):
    api = Api(token(user=account(role)))
    assert create(api).status_code == status
    RecipientFactory(external_id="max")
    device = api.post("recipients/max/devices", {"platform": "ios", "token": "t"})
    assert device.status_code == status
    if status == 403:
        assert api.patch("recipients/max", {}).status_code == 403
        assert api.delete("recipients/max").status_code == 403
    reader = Api(token(scopes=str(Scope.READ)))
    assert create(reader, "lea").status_code == 403
    assert create(Api(), "lea").status_code == 401


# Erasing


def test_erasing_says_what_was_purged_and_nothing_is_sent(service, provider):
    api = Api(token())
    eva, other = RecipientFactory(external_id="eva"), RecipientFactory()
    DeviceFactory(recipient=eva)
    kept = {"occurrence_id": 1, "created_at": NOW}
    InboxMessage.objects.create(recipient=eva, **kept)
    InboxMessage.objects.create(recipient=other, **kept)
    OutboxMessage.objects.create(recipient=eva, to="eva@example.com", **kept)
    ScheduleFactory()
    service.open()
    erased = api.delete("recipients/eva")
    receipt = erased.json()
    assert [receipt[name] for name in ("pending", "devices", "inboxMessages", "outboxMessages")] == [1, 1, 1, 1]
    assert receipt["recipientId"] == eva.pk
    assert "eva" not in erased.content.decode()
    service.send()
    assert set(provider.reached()) == {other.pk}
    assert Delivery.objects.get(recipient_id=eva.pk).state == State.ERASED
    assert api.delete("recipients/eva").status_code == 404
    assert AuditEvent.objects.filter(action="recipient.erase").count() == 1


def test_an_operation_tells_a_renaming_that_is_taken(service):
    eva, _ = RecipientFactory(external_id="eva"), RecipientFactory(external_id="max")
    with pytest.raises(recipients.AlreadyThere):
        recipients.update(recipient_id=eva.pk, changes={"external_id": "max"}, by=BY, now=NOW)
    renamed = recipients.update(recipient_id=eva.pk, changes={"external_id": "lea"}, by=BY, now=NOW)
    assert (renamed.external_id, renamed.version) == ("lea", 2)


def test_a_merge_patch_merges_attributes_however_deep(api):
    person = RecipientFactory.create(attributes={"plan": "pro", "home": {"city": "Wien", "floor": 3}})
    patch = {"email": None, "attributes": {"plan": None, "home": {"floor": None, "zip": "1010"}, "new": {"a": None}}}
    path = f"recipients/{person.external_id}"
    merged = api.patch(path, patch, content_type="application/merge-patch+json")
    assert merged.status_code == 200, merged.json()
    assert merged.json()["attributes"] == {"home": {"city": "Wien", "zip": "1010"}, "new": {}}
    assert merged.json()["email"] == ""
    assert api.patch(path, {"attributes": {"home": {"zip": "1020"}}}).json()["attributes"]["home"] == {"zip": "1020"}

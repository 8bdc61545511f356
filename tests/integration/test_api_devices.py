"""Devices register by token or installation id, by a service or by the app itself, and get new tokens as they go."""

import pytest

from audit.models import Action, AuditEvent
from delivery.providers import fcm
from schedules import recipients
from schedules.models import Device
from schedules.permissions import Role, Scope
from tests.accounts import account
from tests.api import READ_WRITE, Api, token
from tests.factories import DeviceFactory, RecipientFactory

pytestmark = pytest.mark.django_db

FID = "cW1wRm5KQ0tSdWZjTG5pR0"  # 22 characters, as Firebase makes them


@pytest.fixture
def eva(service):
    return RecipientFactory(external_id="eva")


@pytest.fixture
def app(eva) -> Api:
    """Eva's own, who has no role."""
    return Api(token(scopes=str(Scope.INBOX), user=account(None, name="eva")))


@pytest.fixture(params=["the app", "a service"])
def post(request, eva, app):
    """Registers a device of Eva's."""
    caller, path = (app, "me/devices") if request.param == "the app" else (Api(token()), "recipients/eva/devices")
    return lambda body, **options: caller.post(path, body, **options)


def tokens(person):
    return {device.token: device.pk for device in person.devices.filter(active=True)}


@pytest.mark.parametrize("said", [{"token": "a:token"}, {"fid": FID}], ids=["token", "fid"])
def test_a_device_registers_by_token_or_by_installation_id(post, eva, said):
    answer = post({"platform": "android", **said})
    assert answer.status_code == 201, answer.json()
    (address,) = said.values()
    assert set(tokens(eva)) == {address}
    again = post({"platform": "android", **said})
    assert (again.status_code, again.json()) == (200, answer.json())


def test_a_refreshed_token_takes_the_place_of_the_old_one(post, eva):
    first = post({"platform": "ios", "token": "old"}).json()
    second = post({"platform": "ios", "token": "new", "replaces": "old"})
    assert (second.status_code, second.json()["id"]) == (200, first["id"])
    assert tokens(eva) == {"new": first["id"]}
    eva.refresh_from_db()
    assert eva.version == 3
    assert AuditEvent.objects.filter(action=Action.RECIPIENT_SAVE).count() == 2
    # Firebase's library moves from tokens to installation ids in the same way.
    assert post({"platform": "ios", "fid": FID, "replaces": "new"}).json()["id"] == first["id"]
    assert tokens(eva) == {FID: first["id"]}


def test_a_device_that_was_retired_comes_back_by_its_new_token(post, eva):
    device = DeviceFactory(recipient=eva, token="old", active=False)
    assert post({"platform": device.platform, "token": "new", "replaces": "old"}).status_code == 200
    assert tokens(eva) == {"new": device.pk}


def test_a_refresh_that_is_sent_twice_changes_nothing_more(post, eva):
    post({"platform": "ios", "token": "old"})
    refresh = {"platform": "ios", "token": "new", "replaces": "old"}
    first = post(refresh).json()
    eva.refresh_from_db()
    version = eva.version
    assert post(refresh).json() == first
    eva.refresh_from_db()
    assert (eva.version, set(tokens(eva))) == (version, {"new"})


def test_a_device_nobody_knew_registers_all_the_same(post, eva):
    answer = post({"platform": "web", "token": "new", "replaces": "never seen"})
    assert answer.status_code == 201
    assert set(tokens(eva)) == {"new"}


def test_what_is_replaced_by_a_device_that_is_there_goes(post, eva):
    kept = DeviceFactory(recipient=eva, token="new", platform="ios")
    DeviceFactory(recipient=eva, token="old", platform="ios")
    assert post({"platform": "ios", "token": "new", "replaces": "old"}).json()["id"] == kept.pk
    assert tokens(eva) == {"new": kept.pk}


def test_nobody_replaces_the_device_of_another(post, eva):
    other = RecipientFactory(external_id="max")
    theirs = DeviceFactory(recipient=other, token="theirs")
    assert post({"platform": "ios", "token": "mine", "replaces": "theirs"}).status_code == 201
    assert tokens(other) == {"theirs": theirs.pk}
    assert set(tokens(eva)) == {"mine"}


def test_a_phone_that_changed_hands_is_the_new_owners(post, eva):
    other = RecipientFactory(external_id="max")
    DeviceFactory(recipient=other, token="phone", platform="ios")
    DeviceFactory(recipient=eva, token="old", platform="ios")
    assert post({"platform": "ios", "token": "phone", "replaces": "old"}).status_code == 200
    assert (set(tokens(eva)), set(tokens(other))) == ({"phone"}, set())


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({}, "token"),
        ({"token": "a", "fid": FID}, "token"),
        ({"fid": "too-short"}, "fid"),
        ({"fid": "x" + FID[1:]}, "fid"),
        ({"fid": "a:" + "x" * 140}, "fid"),
        ({"token": "with space"}, "token"),
        ({"token": "x" * 501}, "token"),
        ({"token": 7}, "token"),
        ({"token": "a", "replaces": 7}, "replaces"),
        ({"token": "a", "replaces": "a\x00"}, "replaces"),
        ({"token": "a", "other": 1}, "other"),
    ],
)
def test_what_is_no_device_is_refused_by_name(post, eva, said, field):
    answer = post({"platform": "ios", **said})
    assert answer.status_code in (400, 422)
    assert [each["pointer"] for each in answer.json()["errors"]] == [f"/{field}"]
    assert not tokens(eva)


def test_the_id_is_judged_as_the_provider_judges_it():
    assert recipients._INSTALLATION_ID.pattern == fcm._INSTALLATION_ID.pattern


def test_it_is_done_once_with_an_idempotency_key(post, eva):
    key = {"headers": {"Idempotency-Key": "k"}}
    first = post({"platform": "ios", "token": "a"}, **key)
    Device.objects.all().delete()
    assert post({"platform": "ios", "token": "a"}, **key).json() == first.json()
    assert not Device.objects.exists()


def test_an_account_that_is_nobodys_has_no_devices(service):
    nobody = Api(token(scopes=str(Scope.INBOX), user=account(None, name="nobody")))
    assert nobody.post("me/devices", {"platform": "ios", "token": "a"}).status_code == 404


def test_a_token_of_a_service_or_without_the_scope_is_refused(eva):
    for bearer in (token(), token(scopes=READ_WRITE, user=account(Role.ADMIN, name="eva"))):
        assert Api(bearer).post("me/devices", {"platform": "ios", "token": "a"}).status_code == 403
    assert not Device.objects.exists()

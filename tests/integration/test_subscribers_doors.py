"""Endpoints by API and pages: made, shown, switched, sent to again; their secret is told once."""

import re
from html import unescape

import pytest
from django.urls import reverse

from audit.models import AuditEvent
from delivery.endpoint_models import Endpoint, Posting
from delivery.subscribers import operations
from schedules.permissions import Role
from tests.accounts import signed_in
from tests.api import Api, token
from tests.factories import BY, NOW
from tests.http_double import HttpDouble
from tests.subscribers import LOOPBACK, got, is_good, serve, shown, subscribed

pytestmark = pytest.mark.django_db


@pytest.fixture
def double(settings):
    settings.OUTGOING_ALLOWED_NETWORKS = LOOPBACK
    with HttpDouble() as double:
        yield double


@pytest.fixture
def api():
    return Api(token())


@pytest.fixture
def admin():
    return signed_in(Role.ADMIN)


def text_of(response):
    return unescape(response.content.decode())


def test_a_program_makes_an_endpoint_tests_it_and_reads_what_came_of_it(service, api, double):
    body = {"url": f"{double.url}/in", "description": "Shop", "types": ["occurrence.finished"]}
    made = api.post("endpoints", body)
    assert made.status_code == 201
    path = f"endpoints/{made.json()['id']}"
    assert made.headers["Location"] == f"/api/v1/{path}"
    secret = made.json()["secret"]
    assert "secret" not in api.get(path).json()
    assert secret not in api.get("endpoints").content.decode()

    assert api.post(f"{path}/test", {}).status_code == 202
    serve()
    assert is_good(double.requests[0], secret)
    (event,) = api.get(f"{path}/events").json()["items"]
    assert (event["type"], event["state"], event["attempts"][0]["status"]) == ("endpoint.test", "delivered", 200)
    assert api.post(f"{path}/events/{event['id']}/replay", {}).status_code == 202
    serve()
    assert [each["id"] for each in got(double)] == [event["eventId"]] * 2
    assert api.get(path).json()["answeredAt"]

    renewed = api.post(f"{path}/rotate-secret", {}).json()["secret"]
    assert renewed != secret
    assert api.post(f"{path}/off", {}).json()["offReason"] == "person"
    assert api.post(f"{path}/test", {}).status_code == 409
    assert api.post(f"{path}/on", {}).json()["isOn"]
    assert api.post(f"{path}/replay", {"since": "2026-11-20T00:00:00Z"}).json() == {"events": 0}
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


def test_a_change_names_the_version_that_was_read(service, api, double):
    endpoint = subscribed(double)
    path = f"endpoints/{endpoint.pk}"
    changed = api.patch(path, {"description": "Shop 2"}, version=1)
    assert (changed.status_code, changed.json()["description"], changed.headers["ETag"]) == (200, "Shop 2", '"2"')
    stale = api.patch(path, {"types": []}, version=1)
    assert (stale.status_code, stale.json()["currentVersion"]) == (412, 2)


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"url": "http://10.0.0.1/"}, "/url", "not_public"),
        ({"url": "ftp://shop.example.com/"}, "/url", "scheme"),
        ({"url": "https://a@shop.example.com/"}, "/url", "malformed"),
        ({"url": "https://[::1]/", "types": ["occurrence.begun"]}, "/types/0", "invalid_choice"),
        ({"url": "https://[::1]/", "secret": "mine"}, "/secret", "read_only"),
        ({}, "/url", "required"),
    ],
)
def test_what_can_not_be_kept_is_named_and_nothing_is(service, api, body, pointer, code):
    answer = api.post("endpoints", body)
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["pointer"], error["detail"] != "") == (pointer, True)
    assert not Endpoint.objects.exists()
    assert code


def test_there_are_as_many_endpoints_as_have_a_thread_and_no_more(service, api, double, monkeypatch):
    monkeypatch.setattr(operations, "MOST", 1)
    subscribed(double)
    answer = api.post("endpoints", {"url": double.url})
    assert answer.status_code == 400
    assert "There are 1 endpoints" in answer.json()["errors"][0]["detail"]


def test_an_admin_makes_one_on_its_page_and_sees_the_secret_once(service, admin, double):
    form = {"url": f"{double.url}/in", "description": "Shop", "types": ["deliveries.settled"]}
    page = admin.post(reverse("endpoint-new"), form)
    secret = Endpoint.objects.get().secret
    assert secret in text_of(page)
    assert "no-store" in page.headers["Cache-Control"]
    endpoint = Endpoint.objects.get()
    for name in ("endpoint", "endpoint-edit"):
        assert secret not in text_of(admin.get(reverse(name, args=[endpoint.pk])))
    renewed = admin.post(reverse("endpoint-rotate", args=[endpoint.pk]))
    assert Endpoint.objects.get().secret in text_of(renewed)


def test_an_address_that_may_not_be_called_is_refused_beside_its_field(service, admin):
    page = admin.post(reverse("endpoint-new"), {"url": "https://169.254.169.254/"})
    assert page.status_code == 422
    assert "It leads to where no user may have this service call." in text_of(page)
    assert not Endpoint.objects.exists()


def test_the_page_shows_each_attempt_and_what_was_answered_as_text(service, admin):
    posting = shown()
    page = admin.get(reverse("endpoint", args=[posting.endpoint_id]))
    assert "&lt;b&gt;What is this?&lt;/b&gt;" in page.content.decode()
    assert "It refuses the event." in text_of(page)
    waiting = text_of(admin.get(reverse("endpoint", args=[posting.endpoint_id]), {"state": "waiting"}))
    assert len(re.findall(r"evt_\d+_\d", waiting)) < len(re.findall(r"evt_\d+_\d", text_of(page)))
    assert admin.get(reverse("endpoint", args=[posting.endpoint_id]), {"from": "x"}).status_code == 404


def test_events_are_sent_again_from_the_page_one_or_all_that_failed(service, admin, double):
    endpoint = subscribed(double)
    send = reverse("endpoint-send", args=[endpoint.pk])
    assert admin.post(send).status_code == 302
    serve()
    posting = Posting.objects.get()
    admin.post(send, {"posting": posting.pk})
    assert serve() == 1
    Posting.objects.update(state=Posting.State.FAILED, due_at=None)
    admin.post(send, {"since": "2026-11-20T00:00"})
    assert serve() == 1
    assert len({each["id"] for each in got(double)}) == 1
    assert admin.post(send, {"posting": "9999999"}).status_code == 404
    told = text_of(admin.post(send, {"since": "soon"}, follow=True))
    assert "Say from when on" in told


def test_one_that_the_service_has_switched_off_is_told_on_every_page_of_an_admin(service, admin):
    posting = shown()
    operations.give_up(endpoint_id=posting.endpoint_id, reason=Endpoint.Off.FAILING, now=NOW)
    words = "The endpoint “Shop” is told nothing since"
    assert words in text_of(admin.get(reverse("dashboard")))
    assert words not in text_of(signed_in(Role.MARKETER).get(reverse("dashboard")))
    admin.post(reverse("endpoint-switch", args=[posting.endpoint_id]))
    assert words not in text_of(admin.get(reverse("dashboard")))
    admin.post(reverse("endpoint-switch", args=[posting.endpoint_id]), {"to": "off"})
    assert words not in text_of(admin.get(reverse("dashboard")))  # a person knows what he did
    actions = list(AuditEvent.objects.filter(action__startswith="endpoint.").values_list("action", flat=True))
    assert sorted(actions) == ["endpoint.off", "endpoint.off", "endpoint.on"]
    page = text_of(admin.get(reverse("audit")))
    assert "switched the endpoint" in page


def test_a_deleted_one_is_forgotten(service, admin):
    posting = shown()
    admin.post(reverse("endpoint-delete", args=[posting.endpoint_id]))
    assert not Endpoint.objects.exists()
    assert not Posting.objects.exists()
    with pytest.raises(operations.NoSuchEndpoint):
        operations.delete(endpoint_id=posting.endpoint_id, by=BY, now=NOW)
    assert admin.get(reverse("audit")).status_code == 200

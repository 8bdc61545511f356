"""``/hooks/ses``: what Amazon SNS brings is taken when it is signed and readable, and refused in words otherwise, with
nothing written; SNS sends again what is answered with 500 and more."""

import json
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from delivery import continuity, counts
from delivery.events import settling, sns
from delivery.events.base import Kind
from delivery.models import Count
from frontend import provider_hooks
from schedules import outgoing
from stubs.ses_events import record
from stubs.sns import Certified, Sns, body_of
from tests.factories import NOW
from tests.told_by_ses import LOOPBACK, ORIGIN, TOPIC, Web, accepted

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def certified():
    return Certified(issuer=Certified("An authority"))


@pytest.fixture
def amazon(certified):
    return Sns(ORIGIN, TOPIC, certified=certified)


@pytest.fixture(autouse=True)
def web(service, amazon, settings, monkeypatch):
    settings.SNS_TOPICS = [TOPIC]
    web = Web(amazon)
    monkeypatch.setattr(outgoing, "fetch", web.fetch)
    monkeypatch.setattr(provider_hooks, "_TOLD", (1000.0, 1000))
    sns.forget_certificates()
    return web


@pytest.fixture
def settled(monkeypatch):
    """The events that were handed over, in the place of settling them."""
    found = []
    monkeypatch.setattr(settling, "settle", lambda events, now: found.extend(events))
    return found


def post(message, *, address="127.0.0.1", **headers):
    body = message if isinstance(message, bytes) else body_of(message)
    client = Client(raise_request_exception=False, REMOTE_ADDR=address)
    return client.generic("POST", "/hooks/ses", body, content_type="text/plain; charset=UTF-8", headers=headers)


def told(kind="Bounce", **changes):
    return json.dumps(record(kind, accepted(**changes)))


def counted():
    return dict(Count.objects.filter(name=counts.PROVIDER_HOOKS).values_list("label", "value"))


def test_an_event_is_handed_over(amazon, settled):
    assert post(amazon.notification(told())).status_code == 204
    assert [event.kind for event in settled] == [Kind.BOUNCE_HARD]
    assert counted() == {}


def test_a_restored_database_asks_to_be_told_again_once_it_is_settled(amazon, settled, same_numbers):
    continuity.declare(restored_to=NOW, now=NOW)
    answer = post(amazon.notification(told()))
    assert (answer.status_code, answer["Retry-After"]) == (503, "20")
    assert "This database was restored" in answer.json()["detail"]
    assert (settled, counted()) == ([], {"restored": 1})
    continuity.settled(now=NOW)
    assert post(amazon.notification(told())).status_code == 204
    assert [event.kind for event in settled] == [Kind.BOUNCE_HARD]


def test_whoever_is_refused_again_and_again_fills_no_log_and_what_is_signed_is_taken_all_the_same(
    amazon, settled, monkeypatch
):
    monkeypatch.setattr(provider_hooks, "_TOLD", (0.001, 3))
    beside, other = "198.51.100.31", "198.51.100.32"
    answers = [post(b"no JSON", address=beside) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 429, 429]
    assert int(answers[-1]["Retry-After"]) > 0
    forged = {**amazon.notification(told()), "Message": told("Complaint")}
    assert post(forged, address=beside).status_code == 429
    assert counted() == {"malformed": 3}
    assert post(b"no JSON", address=other).status_code == 400
    assert post(amazon.notification(told()), address=beside).status_code == 204
    assert [event.kind for event in settled] == [Kind.BOUNCE_HARD]


def test_what_is_told_of_other_things_is_taken_and_passed_over(amazon, settled):
    an_opening = json.dumps({**json.loads(told("Send")), "eventType": "Open"})
    for text in ("Successfully validated SNS topic for Amazon SES event publishing.", an_opening):
        assert post(amazon.notification(text)).status_code == 204
    assert settled == []


def test_without_topics_there_is_no_such_address(amazon, settled, settings):
    settings.SNS_TOPICS = []
    assert post(amazon.notification(told())).status_code == 404
    assert Client().get("/hooks/ses").status_code == 405


def test_a_subscription_of_a_topic_of_ours_is_confirmed(amazon, web, settled):
    assert post(amazon.confirmation()).status_code == 204
    assert web.confirmed["Token"] == [amazon.token]
    assert counted() == {"confirmed": 1}


def test_a_subscription_of_another_topic_is_refused(certified, web, settled):
    other = Sns(ORIGIN, TOPIC + "-of-a-stranger", certified=certified)
    answer = post(other.confirmation())
    assert (answer.status_code, web.calls, counted()) == (403, [], {"topic": 1})
    assert "SNS_TOPICS" in answer.json()["detail"]


def test_a_confirmation_that_can_not_be_sent_comes_again(amazon, web, settled, monkeypatch):
    monkeypatch.setattr(sns, "confirm", lambda message: (_ for _ in ()).throw(sns.Away("away", "SNS is away.")))
    answer = post(amazon.confirmation())
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "20")


def test_an_end_of_the_subscription_is_counted_and_never_taken_back(amazon, web, settled):
    assert post(amazon.confirmation(kind="UnsubscribeConfirmation")).status_code == 204
    assert web.confirmed == {}
    assert counted() == {"unsubscribed": 1}


def _forged(amazon):
    return {**amazon.notification(told()), "Message": told(to="max@example.com")}


def _of_a_stranger(amazon):
    return Sns("https://evil.example", TOPIC, certified=amazon.certified).notification(told())


def _late(amazon):
    return amazon.notification(told(), at=timezone.now() - timedelta(hours=3))


def _of_another_topic(amazon):
    return Sns(ORIGIN, TOPIC + "2", certified=amazon.certified).notification(told())


def _truncated(amazon):
    return body_of(amazon.notification(told()))[:-20]


def _with_a_record_cut_off(amazon):
    return amazon.notification(told()[:-20])


def _with_a_record_of_wrong_types(amazon):
    return amazon.notification(json.dumps({"eventType": "Bounce", "bounce": [[]], "mail": {"tags": 7}}))


def _nested(amazon):
    return amazon.notification("[" * 50_000 + "]" * 50_000)


def _huge(amazon):
    return amazon.notification("x" * 1_100_000)


@pytest.mark.parametrize(
    ("make", "status", "result"),
    [
        (_forged, 403, "forged"),
        (_of_a_stranger, 403, "forged"),
        (_late, 403, "stale"),
        (_of_another_topic, 403, "topic"),
        (_truncated, 400, "malformed"),
        (_with_a_record_cut_off, 400, "unreadable"),
        (_with_a_record_of_wrong_types, 400, "unreadable"),
        (_nested, 400, "unreadable"),
        (_huge, 413, "malformed"),
        (lambda amazon: b"", 400, "malformed"),
        (lambda amazon: b"\xff\xfe" * 50, 400, "malformed"),
    ],
)
def test_what_is_refused_is_told_why_and_writes_nothing(amazon, settled, make, status, result, caplog):
    answer = post(make(amazon))
    assert "provider_hook_refused" in caplog.text
    assert "@example.com" not in caplog.text
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.json()["detail"].endswith(".")
    assert "example.com" not in answer.json()["detail"]
    assert settled == []
    assert counted() == {result: 1}


def test_a_body_that_announces_less_than_it_is_is_refused(amazon, settled):
    body = body_of(amazon.notification("x" * 1_100_000))
    answer = Client().generic("POST", "/hooks/ses", body, CONTENT_LENGTH="999999999999")
    assert answer.status_code == 413


def test_raw_delivery_is_refused_since_nobody_signs_it(amazon, settled):
    answer = post(told().encode(), **{"x-amz-sns-rawdelivery": "true"})
    assert (answer.status_code, settled) == (400, [])
    assert "Raw message delivery" in answer.json()["detail"]


def test_sns_comes_again_while_it_can_not_be_found_out_who_signed(amazon, web, settled):
    web.error = outgoing.Unavailable("timeout", "did not answer")
    answer = post(amazon.notification(told()))
    assert (answer.status_code, settled, counted()) == (503, [], {"away": 1})


def test_sns_comes_again_while_the_database_is_away(amazon, monkeypatch):
    def away(events, now):
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(settling, "settle", away)
    answer = post(amazon.notification(told()))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "20")


def test_an_accident_in_settling_is_none_of_sns_and_comes_again(amazon, monkeypatch):
    def fails(events, now):
        raise KeyError("a bug")

    monkeypatch.setattr(settling, "settle", fails)
    assert post(amazon.notification(told())).status_code == 500


def test_the_certificate_is_fetched_by_the_guard_of_outgoing_calls(service, settings, monkeypatch):
    """Over a real connection to a double, which only ``SNS_ENDPOINT`` and a network that is allowed make possible."""
    monkeypatch.undo()
    settings.SNS_TOPICS = [TOPIC]
    settings.OUTGOING_ALLOWED_NETWORKS = []
    settings.SNS_ENDPOINT = "http://127.0.0.1:9"
    sns.forget_certificates()
    double = Sns("http://127.0.0.1:9", TOPIC)
    assert post(double.notification(told())).status_code == 503
    settings.OUTGOING_ALLOWED_NETWORKS = LOOPBACK
    assert post(double.notification(told())).status_code == 503  # nobody listens there

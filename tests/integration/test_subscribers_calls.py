"""How events get to endpoints: signed, again over days, one endpoint never in the way of another, nowhere forbidden."""

import json
import socket
import threading
from datetime import timedelta
from ipaddress import ip_network

import pytest
from django.db import connection
from django.utils import timezone

from audit.models import AuditEvent
from delivery import counts, health, heartbeats
from delivery.endpoint_models import Attempt, Endpoint, Event, Posting
from delivery.subscribers import calling, operations
from schedules.outgoing import errors
from tests import http_double
from tests.corpora import corpus
from tests.factories import BY, NOW
from tests.http_double import HttpDouble, Reply
from tests.subscribers import LOOPBACK, got, is_good, nowhere, serve, subscribed

pytestmark = pytest.mark.django_db
WAITING, DELIVERED, FAILED = "waiting", "delivered", "failed"


@pytest.fixture
def double(settings):
    settings.OUTGOING_ALLOWED_NETWORKS = LOOPBACK
    with HttpDouble() as double:
        yield double


@pytest.fixture
def endpoint(double):
    return subscribed(double)


def addressed(endpoint, count=1):
    """That many events on their way to the endpoint."""
    return [operations.test(endpoint_id=endpoint.pk, now=NOW) for _ in range(count)]


def at_once():
    """The time for the next try has come."""
    Posting.objects.filter(state=WAITING).update(due_at=timezone.now())
    Endpoint.objects.update(retry_at=None)


def outcomes():
    return list(Attempt.objects.order_by("pk").values_list("outcome", flat=True))


def test_an_event_arrives_signed_and_is_not_sent_again(double, endpoint):
    (posting,) = addressed(endpoint)
    assert serve() == 1
    (request,) = double.requests
    assert request.line == "POST /in HTTP/1.1"
    assert request.headers["content-type"] == "application/json"
    assert is_good(request, endpoint.secret)
    assert not is_good(request, operations.rotate(endpoint_id=endpoint.pk, by=BY, now=NOW).secret)
    event = request.json
    assert event == {
        "id": posting.event.event_id,
        "type": "endpoint.test",
        "timestamp": "2026-11-21T10:00:00Z",
        "sequence": posting.event_id,
        "data": {"endpointId": endpoint.pk},
    }
    assert request.headers["webhook-id"] == event["id"]
    posting.refresh_from_db()
    assert (posting.state, posting.attempts, posting.due_at) == (DELIVERED, 1, None)
    assert serve() == 0


def test_for_a_day_after_a_rotation_both_secrets_sign(double, endpoint):
    new = operations.rotate(endpoint_id=endpoint.pk, by=BY, now=NOW).secret
    addressed(endpoint)
    serve()
    Endpoint.objects.update(old_secret_until=timezone.now())
    addressed(endpoint)
    serve()
    during, after = double.requests
    assert new != endpoint.secret
    assert is_good(during, new)
    assert is_good(during, endpoint.secret)
    assert is_good(after, new)
    assert not is_good(after, endpoint.secret)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (Reply(500, b"oh"), "failing"),
        (Reply(404, b"where"), "refused"),
        (Reply(302, b"there", {"Location": "http://127.0.0.1:1/"}), "redirected"),
        (Reply(429, b"slow"), "busy"),
        (Reply(500, b"x" * 300_000), "failing"),
        (http_double.half, "cut_off"),
        (http_double.garbage, "cut_off"),
        (http_double.reset, "cut_off"),
    ],
)
def test_what_an_endpoint_may_do_wrong(double, endpoint, reply, outcome):
    if isinstance(reply, Reply):
        double.answer = lambda request: reply
    else:
        double.failure = reply
    (posting,) = addressed(endpoint)
    before = timezone.now()
    assert serve() == 1
    tried = Attempt.objects.get()
    assert tried.outcome == outcome
    assert len(tried.answer) <= 1_024
    posting.refresh_from_db()
    assert (posting.state, posting.attempts) == (WAITING, 1)
    assert timedelta(seconds=4) < posting.due_at - before < timedelta(minutes=1)
    assert len(double.requests) == 1  # no redirect is followed

    double.answer, double.failure = (lambda request: Reply()), None
    at_once()
    assert serve() == 1
    posting.refresh_from_db()
    assert (posting.state, posting.attempts) == (DELIVERED, 2)
    assert [each["id"] for each in got(double)] == [posting.event.event_id] * 2


def test_an_acceptance_of_any_size_is_one(double, endpoint):
    double.answer = lambda request: Reply(202, b"x" * 3_000_000)
    addressed(endpoint)
    serve()
    assert outcomes() == ["delivered"]
    assert Attempt.objects.get().answer == ""


def test_one_that_never_ends_its_answer_is_given_up(double, endpoint, monkeypatch):
    monkeypatch.setattr(calling, "TIMEOUT_S", 0.5)
    double.failure = http_double.silence
    addressed(endpoint)
    serve()
    assert outcomes() == ["timeout"]


def test_a_refusal_is_kept_as_text_that_can_be_kept(double, endpoint):
    double.answer = lambda request: Reply(400, b"<b>\x00\xff</b>" + b"y" * 5_000)
    addressed(endpoint)
    serve()
    answer = Attempt.objects.get().answer
    assert answer.startswith("<b>\ufffd\ufffd</b>y")
    assert len(answer) == 1_024
    with connection.cursor() as cursor:  # it may quote what we sent
        cursor.execute("SELECT answer FROM delivery_attempt")
        assert b"yyy" not in bytes(cursor.fetchone()[0])


def test_it_is_tried_for_three_days_and_then_has_failed(double, endpoint):
    double.answer = lambda request: Reply(500)
    (posting,) = addressed(endpoint)
    waits = []
    for _ in calling.WAITS_S:
        at_once()
        assert serve() == 1
        posting.refresh_from_db()
        if posting.due_at:
            waits.append((posting.due_at - timezone.now()).total_seconds())
    assert (posting.state, posting.attempts, len(waits)) == (FAILED, 10, 9)
    for wait, wanted in zip(waits, calling.WAITS_S[1:], strict=True):
        assert wanted * 0.89 - 30 < wait < wanted * 1.11
    assert sum(calling.WAITS_S) > 3 * 86_400


def test_an_endpoint_that_says_when_is_left_alone_until_then(double, endpoint):
    double.answer = lambda request: Reply(503, b"", {"Retry-After": "3600"})
    first, second = addressed(endpoint, 2)
    assert serve() == 1  # the other waits too
    first.refresh_from_db()
    assert first.due_at > timezone.now() + timedelta(minutes=50)
    assert Endpoint.objects.get().retry_at > timezone.now() + timedelta(minutes=50)
    second.refresh_from_db()
    assert second.attempts == 0


def test_while_an_endpoint_fails_what_waits_uses_up_no_attempts(double, endpoint):
    double.answer = lambda request: Reply(500)
    addressed(endpoint, 5)
    assert serve() == 2  # one bad event is no reason, two are
    assert serve() == 0
    assert Posting.objects.filter(attempts=0).count() == 3
    assert Endpoint.objects.get().failures == 2
    double.answer = lambda request: Reply()
    at_once()
    assert serve() == 5
    endpoint = Endpoint.objects.get()
    assert (endpoint.failures, endpoint.failing_since) == (0, None)


def test_gone_switches_it_off_at_once_and_what_waits_goes_on_once_it_is_back(double, endpoint):
    double.answer = lambda request: Reply(410)
    addressed(endpoint, 2)
    assert serve() == 1
    assert Endpoint.objects.get().off_reason == "gone"
    event = AuditEvent.objects.get(action="endpoint.off")
    assert (event.actor_id, event.payload_diff["off_reason"]) == ("system:subscribers", ["", "gone"])
    at_once()
    assert serve() == 0
    double.answer = lambda request: Reply()
    operations.switch_on(endpoint_id=endpoint.pk, by=BY, now=NOW)
    assert serve() == 2


def test_five_days_of_failures_switch_it_off(double, endpoint):
    double.answer = lambda request: Reply(500)
    addressed(endpoint)
    Endpoint.objects.update(failing_since=timezone.now() - timedelta(days=4, hours=23))
    serve()
    assert Endpoint.objects.get().off_reason == ""
    Endpoint.objects.update(failing_since=timezone.now() - timedelta(days=5, seconds=1))
    at_once()
    serve()
    assert Endpoint.objects.get().off_reason == "failing"
    assert AuditEvent.objects.filter(action="endpoint.off").count() == 1


def test_a_worker_killed_in_a_call_leaves_it_to_the_next_one(double, endpoint, monkeypatch):
    """It may arrive twice, as the same event."""

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    (posting,) = addressed(endpoint)
    with monkeypatch.context() as patched:
        patched.setattr(calling, "_note", killed)
        with pytest.raises(Killed):
            serve()
    assert len(double.requests) == 1
    assert serve() == 0  # the lease holds
    Endpoint.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    assert serve() == 1
    assert [each["id"] for each in got(double)] == [posting.event.event_id] * 2
    assert outcomes() == ["delivered"]


def test_of_two_workers_one_calls_and_the_one_who_lost_the_lease_notes_nothing(double, endpoint):
    addressed(endpoint)
    (lease,) = calling.take()
    assert not calling.take()
    posting = calling._next(lease)
    Endpoint.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    (other,) = calling.take()
    assert not calling._note(lease, posting, calling.Tried("delivered", 0.1, 200))
    assert calling._next(lease) is None
    assert calling.serve(other, ends_at=float("inf")) == 1
    assert outcomes() == ["delivered"]


@pytest.mark.django_db(transaction=True)
def test_a_slow_endpoint_delays_no_other(double, endpoint, monkeypatch):
    """The slow one answers only once the other has got all of its events, in their order."""
    monkeypatch.setattr(calling, "TIMEOUT_S", 120.0)
    all_there, waited, beats = threading.Event(), [], []

    def answer(request):
        if len(double.requests) == 10:
            all_there.set()
        return Reply()

    def wait(request):
        waited.append(all_there.wait(100))
        return Reply()

    with HttpDouble(wait) as slow:
        addressed(subscribed(slow))
        wanted = [posting.event.event_id for posting in addressed(endpoint, 10)]
        double.answer = answer
        assert calling.turn(alive=lambda: beats.append(1)) == 11
    assert waited == [True]
    assert [each["id"] for each in got(double)] == wanted
    assert double.at_once == 1
    assert beats


# --- Where it may lead ------------------------------------------------------------------------------------------------


def refused(url):
    with pytest.raises(operations.InvalidEndpoint) as raised:
        operations.create(url=url, by=BY, now=NOW)
    (problem,) = raised.value.problems
    assert problem.field == "url"
    return problem.code


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "https://169.254.169.254/latest", "https://[::1]/", "ftp://a.example/"]
)
def test_an_address_that_may_not_be_called_can_not_be_kept(url):
    assert refused(url) in errors.CODES
    assert not Endpoint.objects.exists()


def test_every_bad_address_there_is_known_is_refused_at_the_form(monkeypatch, settings):
    """The corpus says of each where its name leads."""
    settings.OUTGOING_REFUSED_NETWORKS = [ip_network("203.0.114.0/24")]
    lines = [line for line in corpus("addresses") if line["code"] and line.get("leads_to") != []]
    assert len(lines) >= 200
    leads = []
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in leads],
    )
    for line in lines:
        leads[:] = line.get("leads_to", ["127.0.0.1"])
        assert refused(line["url"]), line
    assert not Endpoint.objects.exists()


def test_a_name_that_leads_elsewhere_by_then_is_not_called(double, monkeypatch):
    """Rebinding: a public address at the form, this machine at the call."""
    found = ["93.184.216.34"]

    def resolve(host, port, *_, **__):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found[0], port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    endpoint = operations.create(url="https://hooks.example.com/in", by=BY, now=NOW)
    found[0] = "10.0.0.1"
    addressed(endpoint)
    serve()
    assert outcomes() == ["not_public"]
    assert not double.requests


def test_one_where_nobody_listens_is_tried_again(double):
    endpoint = operations.create(url=nowhere(), by=BY, now=NOW)
    addressed(endpoint)
    serve()
    assert outcomes() == ["unreachable"]


# --- By hand ----------------------------------------------------------------------------------------------------------


def event_at(at, event_type="occurrence.finished"):
    return Event.objects.create(event_id=f"evt_{at.timestamp()}", type=event_type, occurred_at=at, data={})


def test_one_event_is_sent_again_under_its_old_id(double, endpoint):
    (posting,) = addressed(endpoint)
    serve()
    operations.replay(posting_id=posting.pk, endpoint_id=endpoint.pk, by=BY, now=NOW)
    assert serve() == 1
    assert [each["id"] for each in got(double)] == [posting.event.event_id] * 2
    assert AuditEvent.objects.get(action="endpoint.replay").payload_diff["event"] == posting.event.event_id


def test_what_failed_and_what_happened_while_it_was_off_is_sent_again_from_an_instant_on(double):
    endpoint = subscribed(double, "occurrence.finished")
    hours = [NOW + timedelta(hours=number) for number in range(5)]
    old, failed, delivered, missed, other = [
        event_at(at, "occurrence.finished" if at is not hours[4] else "schedule.changed") for at in hours
    ]
    for event, state in ((old, FAILED), (failed, FAILED), (delivered, DELIVERED)):
        Posting.objects.create(endpoint=endpoint, event=event, state=state, attempts=10, due_at=None)
    assert operations.replay_failed(endpoint_id=endpoint.pk, since=hours[1], by=BY, now=NOW) == 2
    serve()
    assert [each["id"] for each in got(double)] == [failed.event_id, missed.event_id]
    assert other.postings.count() == 0
    assert operations.replay_failed(endpoint_id=endpoint.pk, since=hours[1], by=BY, now=NOW) == 0


def test_nothing_is_sent_by_hand_to_one_that_is_off(double, endpoint):
    (posting,) = addressed(endpoint)
    operations.switch_off(endpoint_id=endpoint.pk, by=BY, now=NOW)
    for act in (
        lambda: operations.test(endpoint_id=endpoint.pk, now=NOW),
        lambda: operations.replay(posting_id=posting.pk, endpoint_id=endpoint.pk, by=BY, now=NOW),
        lambda: operations.replay_failed(endpoint_id=endpoint.pk, since=NOW, by=BY, now=NOW),
    ):
        with pytest.raises(operations.EndpointIsOff):
            act()
    assert serve() == 0


def test_address_and_secret_are_kept_encrypted_and_stand_in_no_audit_event(double, endpoint):
    operations.update(endpoint_id=endpoint.pk, changes={"url": f"{double.url}/other?key=s3cret"}, by=BY, now=NOW)
    operations.delete(endpoint_id=endpoint.pk, by=BY, now=NOW)
    kept = json.dumps(list(AuditEvent.objects.values_list("payload_diff", flat=True)))
    assert AuditEvent.objects.count() == 3
    for secret in ("s3cret", "127.0.0.1", endpoint.secret):
        assert secret not in kept


def test_the_queue_of_the_calls_is_watched_and_the_calls_are_counted(double, endpoint):
    assert heartbeats.EVENTS in health.read(now=NOW).queues
    addressed(endpoint)
    serve()
    key = counts.Key(counts.ENDPOINT_CALLS, label="delivered")
    assert counts.read()[key] == 1

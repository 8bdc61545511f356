"""``GET /api/v1/me/inbox/stream`` over real HTTP: who is let in, what is told, and how it ends."""

import http.client
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from oauth2_provider.models import AccessToken

from delivery import counters, inbox, wakeups
from delivery.arrivals import Arrived, Cursor
from delivery.models import InboxMessage
from frontend.api.inbox import shown
from frontend.api.inbox_stream import Admission
from frontend.streams import hub, server
from frontend.streams.places import Places
from frontend.streams.stream import _WAITING, End, Stream
from schedules.permissions import Role, Scope
from tests.accounts import account
from tests.api import READ_WRITE, Api, token
from tests.factories import NOW, RecipientFactory, ScheduleFactory
from tests.streams import BY_WORD, PATH, PATIENCE_S, Event, Reader, streams

pytestmark = pytest.mark.django_db(transaction=True)
PROJECT = Path(__file__).resolve().parents[2]
SHOP = "https://shop.example"


@pytest.fixture
def eva(service):
    return RecipientFactory(external_id="eva")


def hers(eva, **options) -> str:
    user = User.objects.filter(username=eva.external_id).first() or account(None, name=eva.external_id)
    return token(scopes=str(Scope.INBOX), user=user, **options)


def lay(person, number) -> InboxMessage:
    """A message of which nobody says a word."""
    return InboxMessage.objects.create(
        recipient=person, occurrence_id=number, title=f"Title {number}", body="Body", created_at=NOW
    )


def test_a_message_of_the_service_is_told_at_once_with_the_count(eva, service):
    with streams(BY_WORD) as running, closing(Reader(running, hers(eva))) as reader:
        assert (reader.status, reader.headers["Content-Type"]) == (200, "text/event-stream")
        assert reader.headers["Cache-Control"] == "no-store"
        assert (first := reader.next()) == Event("unread", {"unread": 0}, first.id)
        assert first.id
        listening(running)
        ScheduleFactory(channel="in_app")
        service.step()
        message, unread = reader.next(), reader.next()
        kept = InboxMessage.objects.get(recipient=eva)
        assert (message.name, message.data) == ("message", shown(kept))
        assert (unread.name, unread.data) == ("unread", {"unread": 1})
        # What the person does elsewhere is counted here.
        inbox.read(recipient_id=eva.pk, message_id=kept.pk, now=NOW)
        assert reader.next().data == {"unread": 0}


def listening(running, says: str = "1.0") -> None:
    """Until the server hears what is published, or with ``0.0`` hears nothing."""
    deadline = time.monotonic() + PATIENCE_S
    while f"inbox_streams_listening {says}" not in get(running.port, "/metrics").body.decode():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def get(port, path, method="GET", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    answer.body = answer.read()
    connection.close()
    return answer


def test_without_any_word_messages_come_a_little_later(eva, monkeypatch):
    def silent(*_):
        raise counters.CountersAway("silent")

    monkeypatch.setattr(counters.Listener, "next", lambda *_, **__: silent())
    with streams() as running, closing(Reader(running, hers(eva))) as reader:
        reader.next()
        kept = lay(eva, 1)
        message, unread = reader.next(), reader.next()
        assert (message.data["id"], unread.data) == (kept.pk, {"unread": 1})
        assert b"inbox_streams_listening 0.0" in get(running.port, "/metrics").body


def test_a_redis_that_was_away_is_heard_again(eva, own_counters):
    with streams(BY_WORD) as running, closing(Reader(running, hers(eva))) as reader:
        reader.next()
        listening(running)
        own_counters.kill()
        listening(running, "0.0")
        own_counters.start()
        listening(running)
        kept = lay(eva, 1)
        time.sleep(counters.rest())
        wakeups.tell([eva.pk])
        assert reader.next().data["id"] == kept.pk


def test_word_is_heard_on_one_server_and_on_a_cluster(servers):
    ear = wakeups.Ear()
    try:
        deadline, heard = time.monotonic() + PATIENCE_S, []
        while not heard:  # the first word may come before the ear listens
            assert time.monotonic() < deadline
            wakeups.tell([7, 8])
            heard = ear.next(seconds=0.1)
    finally:
        ear.close()
    assert heard == [7, 8]


def test_word_that_gets_lost_harms_nobody_who_writes(eva, monkeypatch):
    def away(*_):
        raise counters.CountersAway("away")

    monkeypatch.setattr(counters, "publish", away)
    wakeups.tell([eva.pk])
    kept = lay(eva, 1)
    assert inbox.read(recipient_id=eva.pk, message_id=kept.pk, now=NOW).read_at == NOW


def test_who_comes_again_is_told_what_was_missed_and_no_more(eva):
    with streams() as running:
        with closing(Reader(running, hers(eva))) as reader:
            reader.next()
            lay(eva, 1)
            reader.until("unread")
            last = reader.last
        missed = [lay(eva, number).pk for number in (2, 3)]
        with closing(Reader(running, hers(eva), last=last)) as reader:
            events = reader.until("unread")
            assert [each.data["id"] for each in events[:-1]] == missed
            assert events[-1].data == {"unread": 3}
        # Broken off after the first of them.
        with closing(Reader(running, hers(eva), last=events[0].id)) as reader:
            assert [each.data.get("id") for each in reader.until("unread")] == [missed[1], None]
        with closing(Reader(running, hers(eva), last="of another service")) as reader:
            assert [each.name for each in reader.until("unread")] == ["reset", "unread"]


def test_everybody_is_told_their_own_and_all_pages_of_one_the_same(eva):
    max_ = RecipientFactory(external_id="max")
    with streams() as running:
        readers = [Reader(running, hers(each)) for each in (eva, eva, max_)]
        for reader in readers:
            reader.next()
        first, other = lay(eva, 1), lay(max_, 1)
        told = [reader.until("unread")[0].data["id"] for reader in readers]
        assert told == [first.pk, first.pk, other.pk]
        for reader in readers:
            reader.close()


def test_an_idle_stream_shows_that_somebody_is_there(eva):
    with streams(BY_WORD) as running, closing(Reader(running, hers(eva))) as reader:
        reader.next()
        assert [reader.next(heartbeats=True).name for _ in range(2)] == ["heartbeat"] * 2


def test_it_ends_when_the_token_does_and_says_so(eva, monkeypatch):
    asked = []

    def soon(instant):
        asked.append(instant)
        return time.monotonic() + 0.1

    monkeypatch.setattr(server, "_monotonic", soon)
    with streams(BY_WORD) as running, closing(Reader(running, hers(eva))) as reader:
        assert reader.until("end")[-1].data == {"reason": "token_expired"}
        with pytest.raises(EOFError):
            reader.next()
    assert asked == [AccessToken.objects.get().expires]


def test_it_ends_soon_after_the_token_was_taken_back(eva):
    with streams() as running:
        with closing(Reader(running, hers(eva))) as reader:
            reader.next()
            AccessToken.objects.get().revoke()
            assert reader.until("end")[-1].data == {"reason": "token_revoked"}
        for change in ({"is_active": False}, {"username": "somebody else"}):
            with closing(Reader(running, hers(eva))) as reader:
                reader.next()
                User.objects.filter(username="eva").update(**change)
                assert reader.until("end")[-1].data == {"reason": "token_revoked"}
            User.objects.update(username="eva", is_active=True)


def test_a_server_that_stops_says_good_bye_to_all(eva):
    with streams() as running:
        readers = [Reader(running, hers(eva)) for _ in range(3)]
        for reader in readers:
            reader.next()
        begun = time.monotonic()
        running.stop()
        assert [reader.until("end")[-1].data for reader in readers] == [{"reason": "restart"}] * 3
        assert time.monotonic() - begun < PATIENCE_S / 2
        for reader in readers:
            reader.close()


def test_places_are_limited_and_free_again_when_somebody_leaves(eva):
    max_ = RecipientFactory(external_id="max")
    with streams(most=3, most_of_person=2) as running:
        kept = [Reader(running, hers(eva)) for _ in range(2)]
        for reader in kept:
            reader.next()
        with closing(Reader(running, hers(eva))) as refused:
            assert (refused.status, refused.headers["Content-Type"]) == (429, "application/problem+json")
            assert int(refused.headers["Retry-After"]) > 0
            assert refused.problem["type"].endswith("#too-many-requests")
        kept.append(Reader(running, hers(max_)))
        kept[-1].next()
        anna = RecipientFactory(external_id="anna")
        with closing(Reader(running, hers(anna))) as refused:
            assert (refused.status, int(refused.headers["Retry-After"]) > 0) == (503, True)
            assert "places" in refused.problem["detail"]
        assert b'inbox_streams_refused_total{status="429"} 1.0' in get(running.port, "/metrics").body
        kept[0].close()
        deadline = time.monotonic() + PATIENCE_S
        while (again := Reader(running, hers(anna))).status != 200:
            again.close()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for reader in (*kept, again):
            reader.close()


def test_it_is_refused_as_the_api_refuses(eva):
    admin = account(Role.ADMIN, name="admin")
    with streams() as running:
        for bearer, status, kind in [
            (None, 401, "unauthenticated"),
            ("x" * 32, 401, "unauthenticated"),
            (hers(eva, lives_s=-1), 401, "unauthenticated"),
            (token(scopes=f"{READ_WRITE} {Scope.INBOX}"), 403, "forbidden"),
            (token(scopes=READ_WRITE, user=admin), 403, "forbidden"),
            (token(scopes=str(Scope.INBOX), user=admin), 404, "not-found"),
        ]:
            with closing(Reader(running, bearer)) as refused:
                assert refused.status == status
                assert refused.headers["Content-Type"] == "application/problem+json"
                said = refused.problem
                assert said["type"].endswith(f"#{kind}")
                assert said["requestId"] == refused.headers["X-Request-ID"]
        assert get(running.port, PATH, "POST").status == 405
        assert get(running.port, "/api/v1/nowhere").status == 404
        # Asked for its head alone it takes no place.
        head = get(running.port, PATH, "HEAD", {"Authorization": f"Bearer {hers(eva)}"})
        assert (head.status, b"inbox_streams_open 0.0" in get(running.port, "/metrics").body) == (421, True)
        assert (get(running.port, "/healthz").status, get(running.port, "/healthz").body) == (200, b"ok\n")


def test_a_web_server_says_who_streams(eva):
    answer = Api(hers(eva)).get("me/inbox/stream")
    assert (answer.status_code, answer.json()["type"].rpartition("#")[2]) == (421, "misdirected")


def test_pages_of_named_origins_alone_may_read_and_only_the_inbox(eva, settings):
    settings.CORS_ALLOWED_ORIGINS = [SHOP]
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    bearer = hers(eva)
    api = Api(bearer)
    for path in ("inbox", "inbox/unread-count", "inbox:read-all", "me/inbox/stream"):
        asks = api.call("OPTIONS", path, headers={"Origin": SHOP, **asked})
        assert asks.status_code == 200
        assert asks["Access-Control-Allow-Origin"] == SHOP
        assert "authorization" in asks["Access-Control-Allow-Headers"]
        assert "Access-Control-Allow-Credentials" not in asks
        strange = api.call("OPTIONS", path, headers={"Origin": "https://evil.example", **asked})
        assert "Access-Control-Allow-Origin" not in strange
    assert api.get("inbox", headers={"Origin": SHOP})["Access-Control-Allow-Origin"] == SHOP
    for path in ("schedules", "me/devices", "recipients"):
        assert "Access-Control-Allow-Origin" not in api.get(path, headers={"Origin": SHOP})
    with streams() as running, closing(Reader(running, bearer, headers={"Origin": SHOP})) as reader:
        assert (reader.status, reader.headers["Access-Control-Allow-Origin"]) == (200, SHOP)


def test_who_reads_too_slowly_is_let_go():
    stream = Stream(Admission(1, 1, NOW, ""))
    for unread in range(_WAITING + 1):
        stream.told(Arrived(Cursor("1:1:"), unread, [], is_cut=False))
    assert stream.ended == End.SLOW


def test_the_process_serves_until_it_is_told_to_stop():
    command = [sys.executable, "manage.py", "serve_streams", "--port", "0"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            said = process.stdout.readline()
            port = int(said.rpartition(":")[2])
            assert get(port, "/healthz").status == 200
            assert get(port, PATH).status == 401
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


def test_one_inbox_that_can_t_be_told_ends_alone(eva, monkeypatch):
    max_ = RecipientFactory(external_id="max")
    told = Stream.told

    def broken(self, arrived):
        if self.recipient_id == max_.pk:
            raise ValueError("of this one")
        return told(self, arrived)

    monkeypatch.setattr(Stream, "told", broken)
    with streams() as running, closing(Reader(running, hers(eva))) as reader:
        reader.next()
        with closing(Reader(running, hers(max_))) as other:
            assert other.until("end")[-1].data == {"reason": "failed"}
        lay(eva, 1)
        assert reader.next().name == "message"


def test_a_database_that_is_away_for_a_moment_ends_nothing(eva, monkeypatch):
    looks = [hub.look]

    def look(watched):
        if len(looks) > 1:
            looks.pop()
            raise OperationalError("away")
        return looks[0](watched)

    monkeypatch.setattr(hub, "look", look)
    with streams() as running, closing(Reader(running, hers(eva))) as reader:
        reader.next()
        looks.append(looks[0])
        kept = lay(eva, 1)
        assert reader.next().data["id"] == kept.pk
        assert len(looks) == 1


def test_a_place_that_is_left_is_nobody_s():
    places = Places(most=1, most_of_person=1)
    for _ in range(3):
        places.take(7)
        places.leave(7)

"""The pool against a server of the test's own."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from delivery.providers.base import Permit, ProviderError, Verdict
from delivery.providers.pool import Pool, _Workers
from tests import http_double
from tests.http_double import PATIENCE_S, HttpDouble, Reply


@pytest.fixture
def server():
    with HttpDouble(lambda request: Reply(body=b"got " + request.body)) as double:
        yield double


def pool(**options):
    return Pool(**{"connections": 4, "connect_timeout": 5, "read_timeout": 10, **options})


def post(server, *bodies, permit=None, url=None, through=None):
    made = through or pool()
    return made.post_all(
        url or server.url, headers={"x-test": "yes"}, bodies=bodies, permit=permit or Permit.lasting(60)
    )


def short(outcomes):
    return [
        (outcome.verdict, outcome.reason) if isinstance(outcome, ProviderError) else outcome.body
        for outcome in outcomes
    ]


UNKNOWN = (Verdict.UNKNOWN, "no_answer")
NOT_STARTED = (Verdict.NOT_STARTED, "permit_expired")
UNREACHABLE = (Verdict.TRANSIENT, "unreachable")


def test_every_request_gets_its_own_reply_in_order(server):
    bodies = [str(n).encode() for n in range(50)]
    assert short(post(server, *bodies)) == [b"got " + body for body in bodies]
    assert {request.headers["x-test"] for request in server.requests} == {"yes"}


def test_no_more_requests_run_at_once_than_there_are_connections_and_these_are_kept(server):
    server.delay = 0.01
    made = pool()
    post(server, *[b"x"] * 30, through=made)
    post(server, *[b"x"] * 30, through=made)
    assert (server.at_once, server.connections) == (4, 4)


def test_nothing_to_send_is_nothing_to_wait_for(server):
    assert post(server) == []


def test_an_expired_permit_lets_no_byte_out(server):
    assert short(post(server, b"a", b"b", permit=Permit(0))) == [NOT_STARTED] * 2
    assert (server.connections, server.bytes_read) == (0, 0)


def test_a_permit_that_runs_out_while_the_connection_is_made_lets_no_byte_out(server):
    class OnlyAtFirst(Permit):
        looks = 0

        def is_valid(self):
            self.looks += 1
            return self.looks == 1

    assert short(post(server, b"a", permit=OnlyAtFirst(0))) == [NOT_STARTED]
    give_up = time.monotonic() + 60
    while not server.connections and time.monotonic() < give_up:  # it notices when it gets to it
        time.sleep(0.01)
    assert (server.connections, server.bytes_read) == (1, 0)


def test_requests_behind_slow_ones_are_handed_back_when_their_permit_runs_out(server):
    ran_out = threading.Event()
    all_connections = threading.Barrier(4, action=ran_out.set)

    class UntilAllAreTaken(Permit):
        def is_valid(self):
            return not ran_out.is_set()

    def answer(request):
        all_connections.wait(30)
        return Reply(body=b"got " + request.body)

    server.answer = answer
    outcomes = post(server, *[b"x"] * 12, permit=UntilAllAreTaken(0), through=pool(read_timeout=30))
    assert short(outcomes) == [b"got x"] * 4 + [NOT_STARTED] * 8
    assert len(server.requests) == 4


@pytest.mark.parametrize("failure", [http_double.half, http_double.garbage, http_double.reset])
def test_a_connection_that_breaks_after_the_request_leaves_it_unknown_and_is_not_tried_again(server, failure):
    server.failure = failure
    assert short(post(server, b"a")) == [UNKNOWN]
    assert len(server.requests) == 1


def test_a_silent_server_sees_one_request_and_is_given_up_after_the_timeout(server):
    server.failure = http_double.silence
    started = time.monotonic()
    assert short(post(server, b"a", through=pool(connect_timeout=0.2, read_timeout=0.3))) == [UNKNOWN]
    assert 0.4 < time.monotonic() - started < PATIENCE_S
    assert len(server.requests) == 1


@pytest.mark.parametrize("said", [b"", http_double.HEAD])
def test_an_answer_that_comes_by_drops_is_given_up_after_the_timeout(server, said):
    server.failure = http_double.drip(said)
    started = time.monotonic()
    assert short(post(server, b"a", through=pool(connect_timeout=0.2, read_timeout=0.5))) == [UNKNOWN]
    assert time.monotonic() - started < PATIENCE_S


def test_one_requests_silence_does_not_hold_the_others_back(server):
    server.answer = lambda request: time.sleep(4) if request.body == b"slow" else Reply(body=request.body)
    outcomes = post(server, b"slow", b"a", b"b", through=pool(read_timeout=2))
    assert short(outcomes) == [UNKNOWN, b"a", b"b"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://nowhere.invalid/"])
def test_a_server_that_cannot_be_reached_has_seen_nothing(server, url):
    assert short(post(server, b"a", url=url)) == [UNREACHABLE]


def test_a_handshake_that_does_not_end_is_given_up_before_anything_is_written(server):
    started = time.monotonic()
    outcomes = post(server, b"a", url=server.url.replace("http", "https"), through=pool(connect_timeout=0.3))
    assert short(outcomes) == [UNREACHABLE]
    assert time.monotonic() - started < PATIENCE_S
    assert server.requests == []


def test_a_redirect_is_an_answer_and_not_followed(server):
    server.answer = lambda _: Reply(307, b"elsewhere", {"Location": f"{server.url}/again"})
    (reply,) = post(server, b"a")
    assert (reply.status, reply.headers["location"]) == (307, f"{server.url}/again")
    assert len(server.requests) == 1


def test_threads_share_it(server):
    made = pool()
    results = {}

    def run(name):
        results[name] = [short(post(server, name, name, through=made)) for _ in range(10)]

    threads = [threading.Thread(target=run, args=(str(n).encode(),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {str(n).encode(): [[b"got %d" % n] * 2] * 10 for n in range(6)}


def test_nobody_waits_for_ever_for_a_loop_that_has_died(server, monkeypatch):
    async def ended(_):
        time.sleep(0.1)

    monkeypatch.setattr(_Workers, "_serve", ended)
    made = pool()
    made._patience = 0.1
    assert short(post(server, b"a", through=made, permit=Permit.lasting(0.1))) == [UNKNOWN]


def test_a_loop_that_has_died_is_followed_by_another_at_the_next_call(server, monkeypatch):
    async def ended(_):
        return None

    made = pool()
    with monkeypatch.context() as patched:
        patched.setattr(_Workers, "_serve", ended)
        made._running()._thread.join(60)
    assert short(post(server, b"a", through=made)) == [b"got a"]


def test_it_runs_in_no_thread_before_its_first_call(server):
    before = threading.active_count()
    made = pool()
    assert threading.active_count() == before
    post(server, b"a", through=made)
    assert threading.active_count() > before


def test_a_process_that_used_it_ends_quickly_and_quietly(server):
    program = f"""
from delivery.providers.base import Permit
from delivery.providers.pool import Pool
pool = Pool(connections=4, connect_timeout=1, read_timeout=5)
print(pool.post_all("{server.url}", headers={{}}, bodies=[b"a"], permit=Permit.lasting(9))[0].status)
"""
    root = Path(__file__).resolve().parents[2]
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "200\n", "")
    assert time.monotonic() - started < 25

"""The SES provider against the stub, over real HTTP: what each thing that can go wrong is for the ledger."""

import json
import socket
import threading
import time

import pytest

from delivery.providers import wire
from delivery.providers.base import Message, Permit, Verdict
from delivery.providers.ses import STATUSES, SesProvider
from stubs.testing import running_ses


@pytest.fixture(autouse=True)
def _credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("ses") / "sent.ndjson"


@pytest.fixture(scope="module")
def running(log):
    with running_ses(log=log, bodies=True) as stub:
        yield stub


@pytest.fixture
def stub(running):
    running.fault()
    return running


def provider(url, **options):
    times = {"connect_timeout": 0.5, "read_timeout": 0.5, **options}
    return SesProvider(sender="Shop <shop@example.com>", region="eu-central-1", endpoint_url=url, **times)


def messages(number, name="ann", **fields):
    given = {"subject": "Hi", "text": "Hello", "html": "<p>Hello</p>", **fields}
    return [Message(f"20261121-17-{n}", n, f"{name}{n}@example.com", **given) for n in range(number)]


def send(url, given, permit=None, **options):
    return provider(url, **options).send(given, permit=permit or Permit.lasting(60))


def requests(stub):
    return stub.stats()["requests"]


def short(answers):
    return {(a.verdict, a.reason) for a in answers}


def test_what_was_rendered_arrives_unchanged_under_the_deliverys_key(stub, log):
    text, html = 'a & b "c" {{x}} ü 🎉\n', '<p class="x">a &amp; b {{subject}} {{/if}} ü 🎉</p>'
    answers = send(stub.url, messages(50, "exact", subject="Grüße & {{html}}", text=text, html=html))
    assert {a.verdict for a in answers} == {Verdict.SENT}
    accepted = [line for line in map(json.loads, log.read_text().splitlines()) if "exact" in line["to"]]
    assert [line["delivery"] for line in accepted] == [a.key for a in answers]
    assert [line["message_id"] for line in accepted] == [a.provider_id for a in answers]
    for line in accepted:
        assert (line["subject"], line["text"], line["html"]) == ("Grüße & {{html}}", text, html)


def test_the_address_of_the_service_comes_from_the_environment(stub, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_SESV2", stub.url)
    assert short(send(None, messages(1, "environment"))) == {(Verdict.SENT, "")}
    assert len(stub.messages(to="environment")) == 1


@pytest.mark.parametrize("code", sorted(set(STATUSES) - {"SUCCESS"}))
def test_an_entry_that_ses_refuses_gets_its_own_answer(stub, code):
    stub.fault({"kind": "bulk_entry_status", "code": code, "match": {"to": f"{code}1@*"}})
    answers = send(stub.url, messages(3, code))
    assert [(a.verdict, a.reason) for a in answers] == [
        (Verdict.SENT, ""),
        STATUSES[code],
        (Verdict.SENT, ""),
    ]
    assert len(stub.messages(to=code)) == 2


@pytest.mark.parametrize(
    ("rule", "verdict", "reason", "accepted"),
    [
        ({"kind": "silence"}, Verdict.UNKNOWN, "no_answer", 2),
        ({"kind": "silence", "accept": False}, Verdict.UNKNOWN, "no_answer", 0),
        ({"kind": "reset"}, Verdict.UNKNOWN, "no_answer", 2),
        ({"kind": "half"}, Verdict.UNKNOWN, "unreadable_answer", 2),
        ({"kind": "garbage"}, Verdict.UNKNOWN, "unreadable_answer", 2),
        ({"kind": "latency", "seconds": 2}, Verdict.UNKNOWN, "no_answer", 0),
        ({"kind": "latency", "seconds": 0.1}, Verdict.SENT, "", 2),
        ({"kind": "status", "status": 503}, Verdict.TRANSIENT, "provider_error", 0),
        ({"kind": "status", "status": 429, "error": "TooMany"}, Verdict.THROTTLED, "throttled", 0),
        (
            {"kind": "status", "status": 400, "error": "SendingPausedException"},
            Verdict.MISCONFIGURED,
            "sending_paused",
            0,
        ),
    ],
)
def test_a_fault_becomes_its_verdict_after_a_single_request(stub, request, rule, verdict, reason, accepted):
    name = f"fault{request.node.callspec.indices['rule']}-"
    stub.fault(rule)
    before = requests(stub)
    assert short(send(stub.url, messages(2, name))) == {(verdict, reason)}
    assert requests(stub) == before + 1
    assert len(stub.messages(to=name)) == accepted


def test_messages_that_a_short_answer_leaves_out_are_unknown(stub):
    stub.fault({"kind": "short"})
    answers = send(stub.url, messages(4, "shortened"))
    assert [a.verdict for a in answers] == [Verdict.SENT] * 2 + [Verdict.UNKNOWN] * 2


def test_the_wait_that_the_service_asks_for_is_passed_on(stub):
    stub.fault({"kind": "status", "status": 429, "error": "TooManyRequestsException", "retry_after": 3})
    assert [a.retry_after for a in send(stub.url, messages(2, "wait"))] == [3, 3]


def test_an_expired_permit_makes_no_request(stub):
    before = requests(stub)
    answers = send(stub.url, messages(2), permit=Permit.lasting(-1))
    assert short(answers) == {(Verdict.NOT_STARTED, "permit_expired")}
    assert requests(stub) == before


def test_a_permit_that_expires_while_connecting_makes_no_request(stub, monkeypatch):
    connect = wire._Connection.connect

    def slowly(connection):
        connect(connection)
        time.sleep(0.3)

    monkeypatch.setattr(wire._Connection, "connect", slowly)
    before = requests(stub)
    answers = send(stub.url, messages(2), permit=Permit.lasting(0.2))
    assert short(answers) == {(Verdict.NOT_STARTED, "permit_expired")}
    assert requests(stub) == before


def test_a_permit_is_asked_again_on_a_connection_that_is_already_open(stub, monkeypatch):
    ses = provider(stub.url)
    ses.send(messages(1), permit=Permit.lasting(60))
    before = requests(stub)
    late = Permit.lasting(60)
    monkeypatch.setattr(late.__class__, "check", lambda _: None)
    late.deadline = time.monotonic() - 1
    assert short(ses.send(messages(1), permit=late)) == {(Verdict.NOT_STARTED, "permit_expired")}
    assert requests(stub) == before


def test_a_refused_connection_is_transient():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    answers = send(f"http://127.0.0.1:{port}", messages(2))
    assert short(answers) == {(Verdict.TRANSIENT, "unreachable")}
    assert answers[0].detail == "EndpointConnectionError"


def test_a_connection_that_cannot_be_made_in_time_is_transient():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = []
        for _ in range(4):  # the kernel drops what is beyond its queue, so the next one hangs
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(full.getsockname())
        answers = send(f"http://127.0.0.1:{full.getsockname()[1]}", messages(2))
        for connection in waiting:
            connection.close()
    assert short(answers) == {(Verdict.TRANSIENT, "unreachable")}
    assert answers[0].detail == "ConnectTimeoutError"


def test_a_name_that_does_not_resolve_is_transient():
    assert short(send("http://ses.invalid", messages(1))) == {(Verdict.TRANSIENT, "unreachable")}


def test_a_server_that_hangs_up_on_the_request_leaves_the_outcome_unknown():
    def hang_up(server):
        connection, _ = server.accept()
        connection.recv(100)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang_up, args=[server])
        thread.start()
        answers = send(f"http://127.0.0.1:{server.getsockname()[1]}", messages(2))
        thread.join()
    assert short(answers) == {(Verdict.UNKNOWN, "no_answer")}


def test_threads_share_a_provider_and_each_message_goes_once(stub):
    ses, answers = provider(stub.url, read_timeout=10), []

    def work(name):
        for call in range(5):
            answers.extend(ses.send(messages(50, f"{name}-{call}-"), permit=Permit.lasting(60)))

    before = requests(stub)
    threads = [threading.Thread(target=work, args=[f"thread{n}"]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.verdict for a in answers] == [Verdict.SENT] * 2000
    assert len({a.provider_id for a in answers}) == 2000
    assert requests(stub) == before + 40


def test_a_megabyte_of_messages_goes_in_calls_that_the_service_takes(stub):
    waiting = messages(50, "fat", html="<p>" + "x" * 60_000)
    calls = 0
    while waiting:
        answers = send(stub.url, waiting, read_timeout=10)
        assert {a.verdict for a in answers} <= {Verdict.SENT, Verdict.NOT_STARTED}
        waiting = [m for m, a in zip(waiting, answers, strict=True) if a.verdict is Verdict.NOT_STARTED]
        calls += 1
    assert calls == 4
    assert len(stub.messages(to="fat")) == 50

"""Calls to addresses that somebody set, to servers of the test's own: where they go, and how they end."""

import gzip
import socket
import threading
import time
from ipaddress import ip_network

import pytest

from schedules import outgoing
from schedules.outgoing import names
from tests import http_double, tls
from tests.corpora import corpus
from tests.http_double import PATIENCE_S, HttpDouble, Reply

NAME = "hooks.example.com"
really = socket.getaddrinfo


@pytest.fixture
def double(settings):
    settings.OUTGOING_ALLOWED_NETWORKS = [ip_network("127.0.0.1/32")]
    with HttpDouble() as double:
        yield double


@pytest.fixture
def leads(monkeypatch):
    """Where NAME leads: an answer for each time that it is asked for, the last one for ever after. Then who was asked
    for."""
    answers: list[list[str]] = []
    asked: list[str] = []

    def resolve(host, port, *rest, **options):
        if host.replace(".", "").isdigit() or ":" in host:  # no name: nothing to be asked
            return really(host, port, *rest, **options)
        asked.append(host)
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, port)) for number in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    def set_to(*given: str | list[str]) -> list[str]:
        answers[:] = [[each] if isinstance(each, str) else each for each in given]
        return asked

    return set_to


def failure(url, **options) -> outgoing.OutgoingError:
    with pytest.raises(outgoing.OutgoingError) as raised:
        outgoing.fetch(url, **{"timeout_s": 5, **options})
    assert NAME not in str(raised.value)
    assert "127.0.0" not in str(raised.value)
    return raised.value


def port_of(double) -> int:
    return int(double.url.rpartition(":")[2])


def test_what_was_asked_and_answered(double, leads):
    leads("127.0.0.1")
    double.answer = lambda request: Reply(207, b"told " + request.body, {"X-More": "yes"})
    url = f"http://{NAME}:{port_of(double)}/in?to=%20x"
    answer = outgoing.fetch(url, method="POST", body=b"this", headers={"X-Key": "k"})
    assert (answer.status, answer.body, answer.headers["x-more"]) == (207, b"told this", "yes")
    (request,) = double.requests
    assert request.line == "POST /in?to=%20x HTTP/1.1"
    assert request.headers["host"] == f"{NAME}:{port_of(double)}"
    assert (request.headers["x-key"], request.headers["content-length"]) == ("k", "4")


# Where it goes


def test_a_name_that_leads_elsewhere_at_the_second_question_is_asked_once_and_not_called(double, leads):
    with HttpDouble(at=("127.0.0.2", port_of(double))) as inside:
        asked = leads("127.0.0.1", "127.0.0.2")
        url = f"http://{NAME}:{port_of(double)}/"
        assert outgoing.fetch(url).status == 200
        assert asked == [NAME]
        assert failure(url).code == "not_public"
        assert (len(double.requests), inside.connections) == (1, 0)


def test_a_name_that_was_good_when_the_form_was_sent_is_judged_again_at_the_call(double, leads):
    with HttpDouble(at=("127.0.0.2", port_of(double))) as inside:
        leads("127.0.0.1", "127.0.0.2")
        url = f"http://{NAME}:{port_of(double)}/"
        assert outgoing.check(url).host == NAME
        assert failure(url).code == "not_public"
        assert (double.connections, inside.connections) == (0, 0)


def test_one_number_inside_is_enough_to_call_none(double, leads):
    with HttpDouble(at=("127.0.0.2", port_of(double))) as inside:
        leads(["127.0.0.1", "127.0.0.2"])
        assert failure(f"http://{NAME}:{port_of(double)}/").code == "not_public"
        assert (double.connections, inside.connections) == (0, 0)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_no_redirect_is_followed(double, leads, status):
    with HttpDouble(at=("127.0.0.2", 0)) as inside:
        leads("127.0.0.1")
        said = {"Location": f"{inside.url}/secret", "Refresh": f"0; url={inside.url}"}
        double.answer = lambda request: Reply(status, b"", said)
        answer = outgoing.fetch(f"http://{NAME}:{port_of(double)}/")
        assert (answer.status, answer.headers["location"]) == (status, said["Location"])
        assert (len(double.requests), inside.connections) == (1, 0)


def test_wherever_a_redirect_points_one_request_is_made(double, leads):
    leads("127.0.0.1")
    url = f"http://{NAME}:{port_of(double)}/"
    targets = [line["url"] for line in corpus("addresses") if line["url"].isascii() and line["url"].isprintable()]
    for number, target in enumerate(targets, start=1):
        double.answer = lambda request, target=target: Reply(302, b"", {"Location": target})
        assert outgoing.fetch(url).status == 302
        assert len(double.requests) == number
    assert len(targets) > 200


def test_no_proxy_of_the_environment_is_used(double, leads, monkeypatch):
    leads("127.0.0.1")
    with HttpDouble() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert outgoing.fetch(f"http://{NAME}:{port_of(double)}/").status == 200
        assert proxy.connections == 0


def test_where_nobody_listens_the_next_number_is_tried_and_what_was_sent_once_is_not_sent_again(
    double, leads, settings
):
    settings.OUTGOING_ALLOWED_NETWORKS = [ip_network("127.0.0.0/8")]
    leads(["127.0.0.3", "127.0.0.1"])
    url = f"http://{NAME}:{port_of(double)}/"
    assert outgoing.fetch(url).status == 200
    with HttpDouble(at=("127.0.0.3", port_of(double))) as first:
        first.failure = http_double.reset
        assert failure(url).code == "cut_off"
        assert (len(first.requests), len(double.requests)) == (1, 1)


# TLS


@pytest.fixture
def paper(tmp_path, monkeypatch):
    drawn = tls.drawn(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(drawn.authority))
    return drawn


def test_the_name_is_asked_for_and_its_certificate_checked_whatever_number_is_called(double, leads, paper):
    leads("127.0.0.1")
    said = []
    with tls.front(paper, to=port_of(double), on_name=said.append) as port:
        assert outgoing.fetch(f"https://localhost:{port}/").status == 200
        assert said == ["localhost"]
        assert double.requests[0].headers["host"] == f"localhost:{port}"


@pytest.mark.parametrize("host", [NAME, "127.0.0.1"])
def test_a_certificate_of_another_name_is_not_taken(double, leads, paper, host):
    leads("127.0.0.1")
    with tls.front(paper, to=port_of(double)) as port:
        error = failure(f"https://{host}:{port}/")
        assert (error.code, error.permanent) == ("certificate", True)
    assert double.requests == []


def test_a_certificate_of_another_authority_is_not_taken(double, leads, paper, monkeypatch):
    leads("127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(paper.stranger))
    with tls.front(paper, to=port_of(double)) as port:
        assert failure(f"https://localhost:{port}/").code == "certificate"
    assert double.requests == []


# How it ends


@pytest.mark.parametrize("how", [http_double.half, http_double.reset, http_double.garbage, lambda door: None])
def test_a_connection_that_ends_or_speaks_something_else_may_be_tried_again(double, how):
    double.failure = how
    error = failure(double.url)
    assert (error.code, error.permanent) == ("cut_off", False)


@pytest.mark.parametrize("said", [None, b"", b"HTTP/1.1 200 OK\r\nX: ", http_double.HEAD])
def test_an_answer_has_a_time_in_all(double, said):
    double.failure = http_double.silence if said is None else http_double.drip(said)
    began = time.monotonic()
    assert failure(double.url, timeout_s=1).code == "timeout"
    assert time.monotonic() - began < PATIENCE_S


@pytest.mark.parametrize("body", [b"x" * 5_000, gzip.compress(b"\0" * 10_000_000)], ids=["plain", "packed"])
def test_an_answer_has_a_size_and_is_not_unpacked(double, body):
    double.answer = lambda request: Reply(200, body, {"Content-Encoding": "gzip"} if body[:1] != b"x" else {})
    assert outgoing.fetch(double.url, max_bytes=len(body)).body == body
    assert failure(double.url, max_bytes=len(body) - 1).code == "too_large"
    assert double.requests[0].headers["accept-encoding"] == "identity"


def test_a_body_without_end_is_left(double):
    def endless(door) -> None:
        door.request.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            door.request.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")

    double.failure = endless
    assert failure(double.url, max_bytes=200_000).code == "too_large"


def test_a_resolver_that_does_not_answer_is_left_and_not_asked_without_end(settings, monkeypatch):
    hold, asked = threading.Event(), []

    def hang(host, *_, **__):
        asked.append(host)
        hold.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setattr(names, "_free", threading.BoundedSemaphore(2))
    began = time.monotonic()
    try:
        for _ in range(4):
            assert failure(f"https://{NAME}/", timeout_s=0.2).code == "unresolved"
        assert time.monotonic() - began < PATIENCE_S
        assert asked == [NAME] * 2
    finally:
        hold.set()


def test_no_line_of_a_log_tells_of_the_address_or_the_answer(double, leads, caplog):
    caplog.set_level("DEBUG")
    leads("127.0.0.1")
    double.failure = lambda door: door.request.sendall(b"HTTP/1.1 zebulon\r\nzebulon\r\n : zebulon\r\n\r\nzebulon")
    failed = failure(f"http://{NAME}:{port_of(double)}/zebulon?token=zebulon")
    assert "zebulon" not in str(failed)
    assert failed.__context__ is None
    assert "zebulon" not in caplog.text

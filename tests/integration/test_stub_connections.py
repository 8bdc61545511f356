"""The stubs' HTTP server: requests as they really arrive, and connections that it refuses for a while."""

import json
import signal
import socket
import time

import pytest

from stubs.testing import running_ses

GET_STATS = b"GET /stats HTTP/1.1\r\nHost: stub\r\n\r\n"


@pytest.fixture(scope="module")
def running():
    with running_ses() as stub:
        yield stub


@pytest.fixture
def stub(running):
    running.fault()
    return running


def test_connections_are_refused_for_a_while_and_then_taken_on_the_same_port():
    with running_ses() as stub, connected(stub) as kept:
        kept.sendall(GET_STATS)
        assert kept.recv(9999).startswith(b"HTTP/1.1 200 OK")
        stub.fault({"kind": "refuse", "seconds": 1})
        begun = time.monotonic()
        assert kept.recv(9999) == b""  # an open connection is closed, or a pool would never notice
        with pytest.raises(ConnectionRefusedError):
            connected(stub).close()
        with connected_at_last(stub, seconds=60) as again:
            again.sendall(as_request())
            assert again.recv(9999).startswith(b"HTTP/1.1 200 OK")
        assert time.monotonic() - begun > 0.5
        assert stub.stats()["faults"] == {"refuse": 1}


def test_a_call_in_progress_is_answered_before_its_connection_is_refused():
    with running_ses() as stub, connected(stub) as caller:
        stub.fault({"kind": "latency", "seconds": 2})
        caller.sendall(as_request())
        time.sleep(0.5)
        stub.fault({"kind": "refuse", "seconds": 60})
        answer = read_to_the_end(caller)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"Connection: close" in answer
        stub.process.send_signal(signal.SIGTERM)
        assert stub.process.wait(60) == 0


def test_a_port_of_another_server_is_not_taken(stub):
    port = int(stub.url.rpartition(":")[2])
    with pytest.raises(RuntimeError, match="ended at its start"), running_ses(port=port):
        pass


def test_requests_may_come_in_pieces_and_several_at_once(stub):
    whole = as_request("pieces@example.com")
    with connected(stub) as caller:
        for piece in (whole[:10], whole[10:200], whole[200:-1], whole[-1:] + whole + whole[:50]):
            caller.sendall(piece)
            time.sleep(0.02)
        caller.sendall(whole[50:])
        answers = b""
        while answers.count(b"MessageId") < 3:
            answers += caller.recv(9999)
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert len(stub.messages(to="pieces@")) == 3


def test_answers_come_in_the_order_of_the_requests_on_a_connection(stub):
    stub.fault({"kind": "latency", "seconds": 0.2, "count": 1})
    with connected(stub) as caller:
        caller.sendall(as_request() + GET_STATS.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answers = read_to_the_end(caller)
    assert 0 < answers.index(b"MessageId") < answers.index(b'"requests"')


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000,
    ],
    ids=["nonsense", "chunked", "no number", "negative", "long"],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(stub, sent):
    with connected(stub) as caller:
        caller.sendall(sent)
        assert read_to_the_end(caller).startswith(b"HTTP/1.1 400 Bad Request")


@pytest.mark.parametrize("path", ["/nowhere", "/v2/email/outbound-emails"])
def test_what_is_not_there_is_not_found(stub, path):
    with connected(stub) as caller:
        caller.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        assert read_to_the_end(caller).startswith(b"HTTP/1.1 404 Not Found")


def connected(stub):
    host, _, port = stub.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def as_request(to="ann@example.com"):
    content = {"Template": {"TemplateContent": {"Subject": "Hi", "Text": "Hello"}}}
    entries = [{"Destination": {"ToAddresses": [to]}}]
    body = {"FromEmailAddress": "shop@example.com", "DefaultContent": content, "BulkEmailEntries": entries}
    data = json.dumps(body).encode()
    signed = "authorization: AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=0"
    head = f"POST /v2/email/outbound-bulk-emails HTTP/1.1\r\n{signed}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def read_to_the_end(connection):
    found = b""
    while piece := connection.recv(9999):
        found += piece
    return found


def connected_at_last(stub, *, seconds):
    deadline = time.monotonic() + seconds
    while True:
        try:
            return connected(stub)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)

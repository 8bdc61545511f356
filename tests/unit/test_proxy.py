"""What the proxy asks of the other server when one dies over a request: only what may be asked twice."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3

from scheduler_project.local.haproxy import Haproxy
from scheduler_project.local.ports import LOOPBACK, free_port
from scheduler_project.local.supervisor import Supervisor
from tests.pooler import needed

PATIENCE_S = 60.0


class _Server(BaseHTTPRequestHandler):
    """May be used, by what it says; the one at the port ``dying`` dies over everything else."""

    dying = deaths = 0

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path not in ("/readyz", "/healthz") and self.server.server_port == _Server.dying:
            _Server.deaths += 1
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    needed("haproxy")
    servers = [ThreadingHTTPServer((LOOPBACK, 0), _Server) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    _Server.dying = servers[0].server_port
    ports = {zone: server.server_port for zone, server in zip("ab", servers, strict=True)}
    proxy = Haproxy(free_port(), free_port(), free_port(), web=ports, streams=ports)
    logs: Path = tmp_path_factory.mktemp("logs")
    with Supervisor([proxy.process()], logs=logs) as supervisor:
        supervisor.wait_ready(seconds=PATIENCE_S)
        deadline = time.monotonic() + PATIENCE_S
        while not _is_led(proxy):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield proxy.address
    for server in servers:
        server.shutdown()


def _is_led(proxy: Haproxy) -> bool:
    with suppress(OSError):
        states = proxy.states()
        return all(states[f"web/web-{zone}"].startswith("UP") for zone in "ab")
    return False


def unanswered(method: str, url: str, *, body: str = "", key: str = "") -> tuple[int, int]:
    """How many requests were not answered as they should be, until a server has died over two; and over how many."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"} | ({"Idempotency-Key": key} if key else {})
    failed, before = 0, _Server.deaths
    deadline = time.monotonic() + PATIENCE_S
    with urllib3.PoolManager(retries=False, timeout=PATIENCE_S) as pool:
        while _Server.deaths < before + 2:
            assert time.monotonic() < deadline
            try:
                failed += pool.request(method, url, body=body.encode(), headers=headers).status != 200
            except urllib3.exceptions.ProtocolError:  # the proxy closes likewise
                failed += 1
    return failed, _Server.deaths - before


@pytest.mark.parametrize(
    ("method", "path", "body", "key"),
    [
        ("GET", "/api/v1/schedules", "", ""),
        ("POST", "/api/v1/schedules", "{}", "a-key"),
        ("POST", "/oauth/token", "grant_type=client_credentials&scope=notification:read", ""),
    ],
)
def test_what_may_be_asked_twice_is_answered_by_the_other(address: str, method: str, path: str, body: str, key: str):
    failed, deaths = unanswered(method, address + path, body=body, key=key)
    assert (failed, deaths) == (0, 2)


@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/v1/schedules", "{}"), ("/oauth/token", "grant_type=authorization_code&code=once")],
)
def test_what_must_be_asked_once_is_not_repeated(address: str, path: str, body: str):
    failed, deaths = unanswered("POST", address + path, body=body)
    assert (failed, deaths) == (2, 2)

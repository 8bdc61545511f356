"""TLS as it really is: servers refuse 1.0 and 1.1 by their own alert, and our connections take no strange certificate.

OpenSSL 3 refuses old versions in the client already, which would say nothing of the server: ``tests.tls.client`` lowers
its own bar, and ``test_the_client_would_speak_old_versions`` shows that it then gets through to whoever lets it.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import dj_database_url
import psycopg
import pytest
from django.conf import settings
from django.db import OperationalError
from django.db.utils import ConnectionHandler

from scheduler_project import checks
from scheduler_project.local import postgres, postgres_launcher, redis
from scheduler_project.local.ports import LOOPBACK, free_port
from tests.tls import Paper, drawn, front, spoken

pytestmark = pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")

PROJECT = Path(__file__).resolve().parents[2]
OLD = [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1]
NEW = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
# OpenSSL's name of the alert 70 (RFC 8446, 6.2) when the other side has sent it.
THEIR_ALERT = "TLSV1_ALERT_PROTOCOL_VERSION"
_SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)  # PostgreSQL's protocol, "SSL Session Encryption"
_NO_TLS_IN_POSTGRES = b"SSL is not supported by this build"


# --- The client -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Paper:
    return drawn(tmp_path_factory.mktemp("paper"))


def _is_refused(port: int, version: ssl.TLSVersion, *, first: bytes = b"") -> None:
    with pytest.raises(ssl.SSLError) as refusal:
        spoken(port, version, first=first)
    assert refusal.value.reason == THEIR_ALERT


@pytest.mark.parametrize("version", OLD)
def test_the_client_would_speak_old_versions(paper, version):
    with front(paper, lax=True) as port:
        assert spoken(port, version) == {OLD[0]: "TLSv1", OLD[1]: "TLSv1.1"}[version]


# --- Browsers and programs --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def web(paper: Paper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Gunicorn as README has it run with certificates, but with another application, which starts at once."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "wsgiref.simple_server:demo_app", "--bind", f"{LOOPBACK}:{port}"]
    command += ["--certfile", str(paper.certificate), "--keyfile", str(paper.key), "--no-control-socket"]
    log = tmp_path_factory.mktemp("web") / "log"
    with log.open("wb") as file, subprocess.Popen(command, cwd=PROJECT, stdout=file, stderr=file) as process:
        try:
            _await(port)
            yield port
        finally:
            process.terminate()


def _await(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection((LOOPBACK, port), timeout=60).close()
        except OSError:
            assert time.monotonic() < deadline, f"nobody listens on {port}"
            time.sleep(0.05)
        else:
            return


@pytest.mark.parametrize("version", OLD)
def test_the_web_server_refuses_old_versions(web, version):
    _is_refused(web, version)


@pytest.mark.parametrize("version", NEW)
def test_the_web_server_speaks_new_versions(web, version):
    assert spoken(web, version) == {NEW[0]: "TLSv1.2", NEW[1]: "TLSv1.3"}[version]


# --- PostgreSQL -------------------------------------------------------------------------------------------------------
class Cluster(NamedTuple):
    port: int
    password: str

    def url(self, *, host: str, authority: Path) -> str:
        who = f"{postgres.USER_NAME}:{self.password}"
        return (
            f"postgresql://{who}@{host}:{self.port}/{postgres.DATABASE_NAME}"
            f"?sslmode=verify-full&sslrootcert={authority}"
        )


def _launcher_with_tls() -> postgres_launcher.Launcher:
    """Of an installed PostgreSQL: the wheel's is built without TLS."""
    for folder in postgres_launcher._folders():
        if _NO_TLS_IN_POSTGRES in (folder / "postgres").read_bytes():
            continue
        for prefix, user in postgres_launcher._identities():
            candidate = postgres_launcher.Launcher(folder, 0, prefix, user)
            if major := postgres_launcher._major(candidate):
                return postgres_launcher.Launcher(folder, major, prefix, user)
    pytest.skip("NOT TESTED: no PostgreSQL with TLS here. Install the system's package: apt-get install postgresql")


@pytest.fixture(scope="module")
def cluster(paper: Paper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    launcher = _launcher_with_tls()
    folder = tmp_path_factory.mktemp("postgres")
    server = postgres.Postgres("postgres", folder / "data", folder / "log", "for-tests-only")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "find_launcher", lambda: launcher)
        patch.setenv("LOCAL_PG_FSYNC", "off")
        server.prepare()
        for path in (paper.certificate, paper.key):
            shutil.copy(path, server.home / path.name)
        (server.home / paper.key.name).chmod(0o600)
        lines = [
            "ssl = on",
            f"ssl_cert_file = '{paper.certificate.name}'",
            f"ssl_key_file = '{paper.key.name}'",
            "ssl_min_protocol_version = 'TLSv1.2'",
        ]
        (server.home / "local.conf").write_text("\n".join([*lines, ""]))
        launcher.own(server.home)
        port = free_port()
        process = server.launch(port=port)
        try:
            deadline = time.monotonic() + 120
            while not server.ready(port=port):
                assert process.poll() is None, server.log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield Cluster(port, server.password)
        finally:
            server.stop(process)


@pytest.fixture
def _unblocked(django_db_blocker) -> Iterator[None]:
    """Pytest-django lets nobody connect to a database; this one isn't Django's."""
    with django_db_blocker.unblock():
        yield


def _by_our_settings(url: str) -> str:
    """The version of TLS in which Django speaks with that server."""
    given = dj_database_url.parse(url)
    connection = ConnectionHandler({"default": given})["default"]
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            return str(cursor.fetchone()[0])
    finally:
        connection.close()


@pytest.mark.parametrize("version", OLD)
def test_postgres_refuses_old_versions(cluster, version):
    _is_refused(cluster.port, version, first=_SSL_REQUEST)


def test_postgres_would_speak_old_versions_if_it_were_let(cluster, paper):
    """So it is the setting that refuses, and neither this client nor OpenSSL."""
    url = cluster.url(host="localhost", authority=paper.authority)
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET ssl_min_protocol_version = 'TLSv1'")
        admin.execute("ALTER SYSTEM SET ssl_ciphers = 'DEFAULT@SECLEVEL=0'")
        admin.execute("SELECT pg_reload_conf()")
        try:
            assert _soon(lambda: spoken(cluster.port, OLD[1], first=_SSL_REQUEST) == "TLSv1.1")
        finally:
            admin.execute("ALTER SYSTEM RESET ALL")
            admin.execute("SELECT pg_reload_conf()")
        assert _soon(lambda: _is_refused(cluster.port, OLD[1], first=_SSL_REQUEST) is None)


def _soon(question: Callable[[], bool]) -> bool:
    """A server that reads its settings anew needs a moment."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return question()
        except (ssl.SSLError, pytest.fail.Exception):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.mark.usefixtures("_unblocked")
def test_postgres_is_spoken_to_in_tls_when_its_certificate_is_right(cluster, paper, monkeypatch):
    url = cluster.url(host="localhost", authority=paper.authority)
    monkeypatch.setitem(settings.DATABASES, "default", dj_database_url.parse(url))
    assert list(checks.database_is_verified()) == []
    assert _by_our_settings(url) in ("TLSv1.2", "TLSv1.3")


@pytest.mark.usefixtures("_unblocked")
def test_a_postgres_with_a_strange_authority_or_another_name_is_not_spoken_to(cluster, paper):
    with pytest.raises(OperationalError, match="certificate verify failed"):
        _by_our_settings(cluster.url(host="localhost", authority=paper.stranger))
    with pytest.raises(OperationalError, match="does not match host name"):
        _by_our_settings(cluster.url(host=LOOPBACK, authority=paper.authority))


# --- Redis ------------------------------------------------------------------------------------------------------------
class TLSRedis(NamedTuple):
    """``is_its_own``: the server speaks TLS itself; else something in front of it does."""

    port: int
    password: str
    is_its_own: bool

    def url(self, *, host: str, authority: Path | None) -> str:
        asked = f"?ssl_ca_certs={authority}" if authority else ""
        return f"rediss://:{self.password}@{host}:{self.port}/0{asked}"


def _redis_with_tls(folder: Path) -> Path | None:
    """``REDIS_WITH_TLS`` or one on the PATH: the wheel's is built without.

    Debian's redis-tools has the server too, which starts none by itself: as ``redis-check-rdb``, for Redis is one
    program that goes by its name.
    """
    for name in (os.environ.get("REDIS_WITH_TLS", ""), "redis-server", "valkey-server", "redis-check-rdb"):
        found = shutil.which(name) if name else None
        if found and b"tls-protocols" in Path(found).read_bytes():
            named = folder / "redis-server"
            named.symlink_to(found)
            return named
    return None


@pytest.fixture(scope="module")
def tls_redis(paper: Paper, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TLSRedis]:
    root, port = tmp_path_factory.mktemp("redis"), free_port()
    program = _redis_with_tls(root)
    more: tuple[str, ...] = ()
    with pytest.MonkeyPatch.context() as patch:
        if program:
            patch.setattr(redis, "_server", lambda: program)
            more = (
                f"tls-port {port}",
                f"tls-cert-file {paper.certificate}",
                f"tls-key-file {paper.key}",
                f"tls-ca-cert-file {paper.authority}",
                "tls-auth-clients no",
                'tls-protocols "TLSv1.2 TLSv1.3"',
            )
        server = redis.Redis("redis", root / "redis", root / "redis.log", "for-tests-only", more)
        server.prepare()
        running = redis.started(server, ports=free_port)
        try:
            if program:
                yield TLSRedis(port, server.password, True)
            else:
                with front(paper, to=running.port) as in_front:
                    yield TLSRedis(in_front, server.password, False)
        finally:
            running.kill()


# What a worker does with BROKER_URL and COUNTERS_URL, by the settings and the code that it has.
_ASK = """
import json
from scheduler_project.celery import app
from delivery import counters
said = {}
try:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=60)
        connection.default_channel.client.ping()
    said["broker"] = "reached"
except Exception as error:
    said["broker"] = f"{type(error).__name__}: {error}"
try:
    said["counters"] = "reached" if counters.is_cluster() is False else "a cluster"
except counters.CountersAway as error:
    said["counters"] = str(error)
print(json.dumps(said))
"""


def _asked(url: str) -> dict[str, str]:
    env = {
        **os.environ,
        **dict.fromkeys(("BROKER_URL", "COUNTERS_URL"), url),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "SECRET_KEY": "for-tests-only",
        "DJANGO_SETTINGS_MODULE": "scheduler_project.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", _ASK], cwd=PROJECT, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("version", OLD)
def test_redis_refuses_old_versions(tls_redis, version):
    if not tls_redis.is_its_own:
        pytest.skip(
            "NOT TESTED: no redis-server with TLS here. Name one by REDIS_WITH_TLS or install the system's package: "
            "apt-get install redis-tools"
        )
    _is_refused(tls_redis.port, version)
    assert spoken(tls_redis.port, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"


def test_broker_and_counters_are_reached_when_the_certificate_is_right(tls_redis, paper, monkeypatch):
    url = tls_redis.url(host="localhost", authority=paper.authority)
    monkeypatch.setattr(settings, "BROKER_URL", url)
    monkeypatch.setattr(settings, "COUNTERS_URL", url)
    assert list(checks.redis_is_verified()) == []
    assert _asked(url) == {"broker": "reached", "counters": "reached"}


@pytest.mark.parametrize(
    ("host", "signed_by", "why"),
    [
        ("localhost", "stranger", "certificate verify failed"),
        ("localhost", None, "certificate verify failed"),  # only the system's authorities are trusted
        (LOOPBACK, "authority", "certificate verify failed: IP address mismatch"),
    ],
)
def test_a_redis_with_a_strange_authority_or_another_name_is_not_spoken_to(tls_redis, paper, host, signed_by, why):
    said = _asked(tls_redis.url(host=host, authority=getattr(paper, signed_by) if signed_by else None))
    assert why in said["broker"], said
    assert why in said["counters"], said

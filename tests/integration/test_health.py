"""``/healthz`` and ``/readyz``: what refuses, what is only told of, and that a silent server delays neither."""

import socket
import threading
import time

import pytest
from django.db import connection, connections
from django.test import Client

from delivery import counters
from scheduler_project import health

pytestmark = pytest.mark.django_db

WELL = {"ready": True, "database": "ok", "migrations": "ok", "counters": "ok", "broker": "ok"}
# Far less than what is silent lasts, and enough for the slowest machine.
SOON_S = 30.0


@pytest.fixture(autouse=True)
def afresh(monkeypatch):
    """As a process that has just begun."""
    monkeypatch.setattr(health, "PATIENCE_S", 10.0)
    monkeypatch.setattr(health._Migrated, "known", False)
    monkeypatch.setattr(
        health,
        "_LOOKS",
        {
            "database": health.Look(health.database),
            "counters": health.Look(health.redis_of_counters),
            "broker": health.Look(health.broker),
        },
    )


@pytest.fixture
def silent():
    """Host and port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()


@pytest.fixture
def without_counters():
    counters._client.cache_clear()
    yield
    counters._client.cache_clear()
    counters._pause.until = 0.0


def ready(path="/readyz", **headers):
    answer = Client().get(path, **headers)
    return answer.status_code, answer.json()


def test_all_is_well():
    assert ready() == (200, WELL)
    assert ready("/readyz?all") == (200, WELL)


def test_probes_come_by_address_and_by_http(settings):
    settings.SECURE_SSL_REDIRECT = True
    settings.ALLOWED_HOSTS = ["notify.example.com"]

    assert ready(headers={"host": "10.1.2.3:8000"})[0] == 200
    answer = Client().get("/healthz", headers={"host": "10.1.2.3:8000"})
    assert (answer.status_code, answer.content, answer["Cache-Control"]) == (200, b"ok\n", "no-store")
    assert Client().get("/readyz/", headers={"host": "10.1.2.3:8000"}).status_code == 400


def test_life_asks_nobody(django_assert_num_queries, monkeypatch):
    monkeypatch.setattr(health, "_LOOKS", {})
    with django_assert_num_queries(0):
        assert Client().get("/healthz").status_code == 200


def test_migrations_that_lack_are_named_and_asked_for_until_they_are_there(monkeypatch):
    plans = [["one"], [], ["never asked again"]]
    monkeypatch.setattr(health.MigrationExecutor, "migration_plan", lambda *_: plans.pop(0))

    assert ready() == (503, {**WELL, "ready": False, "migrations": "missing"})
    assert ready() == (200, WELL)
    assert ready() == (200, WELL)


@pytest.mark.django_db(transaction=True)
def test_migrations_of_newer_code_are_no_fault():
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('delivery', '9999_of_tomorrow', now())"
        )
    try:
        assert ready() == (200, WELL)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM django_migrations WHERE name = '9999_of_tomorrow'")


def test_a_broker_that_refuses_is_told_of_and_pages_are_still_given_out(settings):
    settings.BROKER_URL = "redis://127.0.0.1:1/0"

    assert ready() == (200, {**WELL, "broker": "away"})
    assert ready("/readyz?all") == (503, {**WELL, "ready": False, "broker": "away"})


def test_redis_connected_and_silent(settings, silent, without_counters):
    settings.BROKER_URL = settings.COUNTERS_URL = f"redis://{silent[0]}:{silent[1]}/0"

    begun = time.monotonic()
    assert ready() == (200, {**WELL, "broker": "away", "counters": "away"})
    assert time.monotonic() - begun < SOON_S


@pytest.fixture
def database_at(monkeypatch):
    """For connections that begin now: that of the test is open."""

    def move(host, port):
        monkeypatch.setitem(connections.settings["default"], "HOST", host)
        monkeypatch.setitem(connections.settings["default"], "PORT", port)

    return move


@pytest.mark.parametrize("is_silent", [True, False], ids=["silent", "refusing"])
def test_postgresql_is_away(silent, database_at, is_silent):
    database_at(*(silent if is_silent else ("127.0.0.1", 1)))

    begun = time.monotonic()
    assert ready() == (503, {**WELL, "ready": False, "database": "away", "migrations": "away"})
    assert time.monotonic() - begun < SOON_S


def test_a_question_that_hangs_is_not_asked_again():
    """A connection that was open when the server fell silent hangs until TCP gives up: minutes, and one thread."""
    go_on, asked = threading.Event(), []

    def hang():
        asked.append(1)
        go_on.wait(300)
        return health.OK

    look = health.Look(hang)
    looks = {"database": look, "counters": health.Look(lambda: health.OK)}

    for _ in range(3):
        assert health.state(looks, seconds=0.2)["database"] == "away"
    assert asked == [1]
    go_on.set()
    look.begin().join()
    assert health.state(looks, seconds=SOON_S)["database"] == "ok"
    assert asked == [1, 1]

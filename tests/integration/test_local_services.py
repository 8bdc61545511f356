"""Real servers in folders of their own, with owners that are real processes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
import redis

from scheduler_project.local.layout import Layout
from scheduler_project.local.locks import is_locked
from scheduler_project.local.ports import answers
from scheduler_project.local.services import ServiceURLs, ensure

PROJECT = Path(__file__).resolve().parents[2]
OWNER = """
import json, sys
from pathlib import Path
from scheduler_project.local.services import ensure
urls = ensure(root=Path(sys.argv[1]), need=frozenset(sys.argv[2].split(",")))
print(json.dumps(vars(urls)), flush=True)
sys.stdin.read()
"""
GIVEN = {
    "DATABASE_URL": "postgresql://someone@db.invalid:5432/theirs",
    "BROKER_URL": "redis://broker.invalid:6379/0",
    "COUNTERS_URL": "redis://counters.invalid:6379/0",
}


@dataclass
class Owner:
    """A process that has called `ensure` and lives on."""

    process: subprocess.Popen[str]

    def urls(self) -> ServiceURLs:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, self.process.stderr and self.process.stderr.read()
        return ServiceURLs(**json.loads(line))

    def error(self) -> str:
        _, error = self.process.communicate(timeout=120)
        assert self.process.returncode
        return error

    def leave(self) -> None:
        self.process.communicate(timeout=120)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=120)


@dataclass
class Place:
    """A root for embedded services, and all owners that were started there."""

    layout: Layout
    owners: list[Owner] = field(default_factory=list)

    def owner(self, need: str = "database,broker,counters", **env: str) -> Owner:
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(self.layout.root), need],
            cwd=PROJECT,
            env={**os.environ, "LOCAL_PG_FSYNC": "off", **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.owners.append(Owner(process))
        return self.owners[-1]

    def keeper(self) -> int:
        pid: int = json.loads(self.layout.state.read_text())["keeper"]
        return pid

    def ports(self) -> dict[str, int]:
        ports: dict[str, int] = json.loads(self.layout.ports.read_text())
        return ports

    def is_still(self) -> bool:
        return not is_locked(self.layout.keeper_lock) and not any(map(answers, self.ports().values()))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    # Longer than the 107 bytes a socket's path may have, and with blanks.
    root = tmp_path / ("a folder with a long name " * 5).strip() / ".local"
    place = Place(Layout(root))
    yield place
    for owner in place.owners:
        if owner.process.poll() is None:
            owner.kill()
    if place.layout.state.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(place.keeper(), signal.SIGTERM)  # it would linger
    if root.exists():
        eventually(lambda: not is_locked(place.layout.keeper_lock))


def eventually(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def query(urls: ServiceURLs, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(urls.database, autocommit=True) as connection:
        cursor = connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def test_all_three_run_in_private_until_their_owner_leaves(place: Place) -> None:
    owner = place.owner()
    urls = owner.urls()

    [(version, listens, encoding, fsync)] = query(
        urls,
        "SELECT current_setting('server_version_num')::int / 10000, current_setting('listen_addresses'), "
        "current_setting('server_encoding'), current_setting('fsync')",
    )
    assert (version, listens, encoding, fsync) == (18, "127.0.0.1", "UTF8", "off")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(urls.database, password="wrong")
    broker, counters = client(urls.broker), client(urls.counters)
    assert broker.info()["run_id"] != counters.info()["run_id"]
    for server in (broker, counters):
        assert server.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    with pytest.raises(redis.AuthenticationError):
        client(f"redis://127.0.0.1:{place.ports()['broker']}/0").ping()
    assert place.layout.password.stat().st_mode & 0o077 == 0
    assert place.layout.state.stat().st_mode & 0o077 == 0

    owner.leave()
    eventually(place.is_still)


def test_a_second_process_attaches_and_keeps_them_running(place: Place) -> None:
    first = place.owner()
    urls = first.urls()
    second = place.owner()
    assert second.urls() == urls
    first.leave()
    time.sleep(2.0)  # more than the keeper lingers
    assert query(urls, "SELECT 1") == [(1,)]
    second.leave()
    eventually(place.is_still)


def test_they_stop_when_their_owner_is_killed(place: Place) -> None:
    owner = place.owner()
    owner.urls()
    owner.kill()
    eventually(place.is_still)


def test_after_the_keeper_was_killed_the_next_start_takes_over_with_the_data(place: Place) -> None:
    survivor = place.owner()
    urls = survivor.urls()
    query(urls, "CREATE TABLE kept AS SELECT 7 AS n")
    os.kill(place.keeper(), signal.SIGKILL)
    again = place.owner().urls()
    assert again == urls  # so that the survivor's connections can be made anew
    assert query(again, "SELECT n FROM kept") == [(7,)]
    assert client(again.broker).ping()


def test_after_everything_was_killed_the_next_start_recovers(place: Place) -> None:
    owner = place.owner()
    urls = owner.urls()
    query(urls, "CREATE TABLE kept AS SELECT 7 AS n")
    pids = [client(url).info()["process_id"] for url in (urls.broker, urls.counters)]
    postmaster = int((place.layout.home("database") / "postmaster.pid").read_text().split()[0])
    for pid in (postmaster, *pids, place.keeper()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    owner.kill()
    assert (place.layout.home("database") / "postmaster.pid").exists()
    assert query(place.owner().urls(), "SELECT n FROM kept") == [(7,)]


def test_a_stale_pid_file_never_gets_a_stranger_killed(place: Place) -> None:
    owner = place.owner("database,broker")
    owner.urls()
    owner.leave()
    eventually(place.is_still)
    with subprocess.Popen(["sleep", "60"], cwd=place.layout.home("database")) as stranger:
        stale = f"{stranger.pid}\n{place.layout.home('database')}\n0\n1\n\n127.0.0.1\n0 0\nready\n"
        (place.layout.home("database") / "postmaster.pid").write_text(stale)
        (place.layout.home("broker") / "redis.pid").write_text(str(stranger.pid))
        urls = place.owner("database,broker").urls()
        assert query(urls, "SELECT 1") == [(1,)]
        assert stranger.poll() is None
        stranger.kill()


def test_five_first_starts_at_once_share_one_keeper(place: Place) -> None:
    owners = [place.owner() for _ in range(5)]
    assert len({owner.urls() for owner in owners}) == 1
    started = place.layout.log("keeper").read_text().count("database listens")
    assert started == 1


def test_who_comes_while_they_stop_gets_new_ones(place: Place) -> None:
    owner = place.owner("broker")
    urls = owner.urls()
    first = client(urls.broker).info()["run_id"]
    owner.leave()
    eventually(lambda: not place.layout.state.exists())  # the keeper has decided
    again = place.owner("broker").urls()
    assert client(again.broker).info()["run_id"] != first


def test_a_taken_port_is_replaced_by_a_free_one(place: Place) -> None:
    owner = place.owner()
    query(owner.urls(), "CREATE TABLE kept AS SELECT 7 AS n")
    owner.leave()
    eventually(place.is_still)
    taken = place.ports()
    with contextlib.ExitStack() as stack:
        for port in taken.values():
            neighbour = stack.enter_context(socket.socket())
            neighbour.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            neighbour.bind(("127.0.0.1", port))
            neighbour.listen()
        urls = place.owner().urls()
        assert not set(taken.values()) & set(place.ports().values())
        assert query(urls, "SELECT n FROM kept") == [(7,)]
        assert client(urls.counters).ping()


def test_only_what_is_needed_is_started_and_more_can_join(place: Place) -> None:
    urls = place.owner("counters").urls()
    assert (urls.database, urls.broker) == ("", "")
    assert set(place.ports()) == {"counters"}
    both = place.owner("counters,broker").urls()
    assert both.counters == urls.counters
    assert client(both.broker).ping()
    assert not place.layout.home("database").exists()


def test_a_server_that_ends_by_itself_comes_back_at_its_url(place: Place) -> None:
    urls = place.owner("counters").urls()
    before = client(urls.counters).info()
    os.kill(before["process_id"], signal.SIGKILL)
    again = place.owner("counters").urls()
    assert again == urls
    assert client(urls.counters).info()["run_id"] != before["run_id"]


def test_a_half_made_cluster_is_cleared_away(place: Place) -> None:
    half = place.layout.home("database.0123abcd.new")
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    assert query(place.owner("database").urls(), "SELECT 1") == [(1,)]
    assert not half.exists()


def test_data_of_another_major_version_is_refused_with_a_remedy(place: Place) -> None:
    home = place.layout.home("database")
    home.mkdir(parents=True)
    (home / "PG_VERSION").write_text("9\n")
    error = place.owner().error()
    assert f"{home} was made by PostgreSQL 9" in error
    assert "dump it with version 9" in error
    assert (home / "PG_VERSION").read_text() == "9\n"


def test_a_mistake_can_be_corrected_while_others_stay(place: Place) -> None:
    place.owner("broker").urls()
    home = place.layout.home("database")
    home.mkdir()
    assert "PG_VERSION is missing" in place.owner("database").error()
    home.rmdir()
    assert query(place.owner("database").urls(), "SELECT 1") == [(1,)]


def test_an_unknown_fsync_setting_is_refused(place: Place) -> None:
    assert "set it to on or off" in place.owner("database", LOCAL_PG_FSYNC="perhaps").error()


def test_a_folder_that_cant_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=PROJECT,
        env={**_environment_without_urls(), "LOCAL_DIR": str(tmp_path / "file" / ".local")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("manage.py: ")
    assert f"{tmp_path / 'file' / '.local'} can't be written (Not a directory)" in done.stderr
    assert "LOCAL_DIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need: no such service mail"):
        ensure(root=tmp_path, need=frozenset({"mail"}))


def test_given_urls_are_used_and_nothing_is_started(place: Place) -> None:
    assert _settings_urls(place, GIVEN) == list(GIVEN.values())
    assert not place.layout.root.exists()


def test_with_one_url_missing_only_that_server_is_started(place: Place) -> None:
    given = {name: url for name, url in GIVEN.items() if name != "COUNTERS_URL"}
    database, broker, counters = _settings_urls(place, given)
    assert [database, broker] == list(given.values())
    assert counters.startswith("redis://:")
    assert set(place.ports()) == {"counters"}


def _settings_urls(place: Place, given: dict[str, str]) -> list[str]:
    show = "import json; from scheduler_project import settings as s;"
    show += "print(json.dumps([s.DATABASE_URL, s.BROKER_URL, s.COUNTERS_URL]))"
    done = subprocess.run(
        [sys.executable, "-c", show],
        cwd=PROJECT,
        env={
            **_environment_without_urls(),
            **given,
            "SECRET_KEY": "x" * 60,
            "LOCAL_DIR": str(place.layout.root),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    urls: list[str] = json.loads(done.stdout)
    return urls


def _environment_without_urls() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in GIVEN}

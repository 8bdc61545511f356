import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scheduler_project.local import postgres_settings
from scheduler_project.local.children import end_leftovers, leftovers
from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.layout import read_json, read_secret, write_private
from scheduler_project.local.locks import is_locked, lock_within, open_lock, try_lock
from scheduler_project.local.ports import answers, free_port, is_free
from scheduler_project.local.postgres_settings import fsync_wanted, settings_text
from scheduler_project.local.services import secret

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program called `server` in the folder `tmp_path / "home"`."""
    home = tmp_path / "home"
    home.mkdir()
    program = tmp_path / "server"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"], cwd=home) as process:
        yield process
        process.kill()


def test_a_leftover_is_found_by_its_program_and_folder_and_ended(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    home, pidfile = tmp_path / "home", tmp_path / "pid"
    pidfile.write_text(str(sleeper.pid))
    reaper = threading.Thread(target=sleeper.wait)  # as init does with what lost its parent
    reaper.start()
    found = end_leftovers(home=home, program="server", pidfile=pidfile, signals=[(signal.SIGTERM, 5.0)])
    reaper.join()
    assert found == [sleeper.pid]
    assert sleeper.returncode == -signal.SIGTERM


def test_another_program_or_folder_is_no_leftover(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    pidfile = tmp_path / "pid"
    pidfile.write_text(str(sleeper.pid))
    assert leftovers(home=tmp_path / "home", program="postgres", pidfile=pidfile) == []
    pidfile.write_text("")
    assert leftovers(home=tmp_path, program="server", pidfile=pidfile) == []


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold = (
        "import sys, pathlib; from scheduler_project.local.locks import *; "
        "print(try_lock(open_lock(pathlib.Path(sys.argv[1]))), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"True\n"
        assert is_locked(path)
        mine = open_lock(path)
        with pytest.raises(LocalServicesError, match="stayed locked for 0 s"):
            lock_within(mine, seconds=0.1, what=path)
        holder.kill()
        lock_within(mine, seconds=60, what=path)
        os.close(mine)


def test_a_shared_lock_keeps_an_exclusive_one_out(tmp_path: Path) -> None:
    first, second, third = (open_lock(tmp_path / "lock") for _ in range(3))
    assert try_lock(first, shared=True)
    assert try_lock(second, shared=True)
    assert not try_lock(third)
    for descriptor in (first, second, third):
        os.close(descriptor)


def test_a_listening_port_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert answers(port)
    assert is_free(port)
    assert not answers(port)
    assert is_free(free_port())


def test_a_secret_is_the_same_for_all_who_ask_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        values = set(pool.map(lambda _: read_secret(tmp_path / "key"), range(8)))
    assert len(values) == 1
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_secrets_of_two_names_differ_and_last(tmp_path: Path) -> None:
    first = secret(root=tmp_path / ".local", name="one")
    assert len(first) == 64
    assert secret(root=tmp_path / ".local", name="two") != first
    assert secret(root=tmp_path / ".local", name="one") == first
    assert (tmp_path / ".local" / "one").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".local" / "logs").stat().st_mode & 0o777 == 0o700  # PostgreSQL's quote what it was given


def test_a_broken_state_file_reads_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert read_json(path) == {}
    for text in ("", "{", "[]"):
        write_private(path, text)
        assert read_json(path) == {}


@pytest.mark.parametrize(("memory_mb", "expected"), [(64, 32), (1024, 128), (65536, 512)])
def test_shared_buffers_fit_the_memory(memory_mb: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_settings, "_memory_bytes", lambda: memory_mb * 1024 * 1024)
    assert f"shared_buffers = {expected}MB" in settings_text(port=1)


def test_fsync_is_on_unless_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_PG_FSYNC", raising=False)
    assert fsync_wanted()
    monkeypatch.setenv("LOCAL_PG_FSYNC", "off")
    assert not fsync_wanted()
    monkeypatch.setenv("LOCAL_PG_FSYNC", "no")
    with pytest.raises(LocalServicesError, match="LOCAL_PG_FSYNC is 'no'; set it to on or off"):
        fsync_wanted()


def test_the_keeper_needs_neither_django_nor_celery() -> None:
    show = "import sys; import scheduler_project.local.keeper; print({'django', 'celery'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", show], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

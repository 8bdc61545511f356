import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler_project.local import postgres_launcher
from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.postgres_launcher import Launcher, find_launcher


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine whose only PostgreSQL is what a test puts into the returned folder; we are not root there."""
    monkeypatch.setattr(postgres_launcher, "_folders", lambda: sorted(tmp_path.glob("*/")))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    find_launcher.cache_clear()
    yield tmp_path
    find_launcher.cache_clear()


def install(system: Path, name: str, version: str) -> Path:
    folder = system / name
    folder.mkdir(mode=0o755)
    for program in ("initdb", "postgres"):
        write_script(folder / program, f"echo 'postgres (PostgreSQL) {version}'")
    return folder


def write_script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def test_the_first_folder_that_runs_wins(system: Path) -> None:
    broken = install(system, "a", "18.6")
    write_script(broken / "postgres", "exit 1")
    good = install(system, "b", "17.2 (Debian 17.2-1)")
    install(system, "c", "16.1")
    launcher = find_launcher()
    assert (launcher.folder, launcher.major) == (good, 17)


def test_versions_too_old_are_passed_over(system: Path) -> None:
    install(system, "a", "14.9")
    with pytest.raises(LocalServicesError, match=r"no PostgreSQL 15 or newer.*extra `local`.*DATABASE_URL"):
        find_launcher()


def test_root_takes_a_user_namespace_where_it_may(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(system, "a", "18.6")
    write_script(system / "unshare", 'shift; exec "$@"')
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    launcher = find_launcher()
    assert launcher.prefix == (str(system / "unshare"), "--user")
    assert launcher.user is None


def test_root_tries_an_ordinary_user_where_namespaces_are_refused(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_script(system / "unshare", "echo 'Operation not permitted' >&2; exit 1")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (namespace, nobody_else), (prefix, user) = postgres_launcher._identities()
    assert namespace == (str(system / "unshare"), "--user")
    assert nobody_else is None
    assert prefix == ()
    assert user == pwd.getpwnam("nobody")
    launcher = Launcher(folder=install(system, "a", "18.6"), major=18, prefix=namespace)
    assert postgres_launcher._major(launcher) == 0


def test_an_ordinary_user_needs_no_detour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert postgres_launcher._identities() == [((), None)]


def test_a_failing_command_shows_its_words_and_the_remedy(tmp_path: Path) -> None:
    write_script(tmp_path / "initdb", "echo 'no space left' >&2; exit 1")
    with pytest.raises(LocalServicesError, match=r"initdb failed(?s:.*)no space left(?s:.*)LOCAL_DIR"):
        Launcher(folder=tmp_path, major=18).run("initdb", [])


def test_the_callers_pg_variables_do_not_reach_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    write_script(tmp_path / "initdb", f"env > {tmp_path / 'seen'}")
    Launcher(folder=tmp_path, major=18).run("initdb", [])
    seen = (tmp_path / "seen").read_text().splitlines()
    assert "LC_ALL=C" in seen
    assert not [line for line in seen if line.startswith("PG")]

"""The embedded services as seen by those who use them: `ensure` them, and get their URLs."""

import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.layout import ALL, Layout, read_json, read_secret, write_private
from scheduler_project.local.locks import is_locked, lock_within, open_lock
from scheduler_project.local.ports import answers

# A database that was killed replays its log first.
_START_SECONDS = 120.0
_STOP_SECONDS = 90.0
_POLL_SECONDS = 0.02
_PROJECT = Path(__file__).resolve().parents[2]

# Held open, and so locked, until this process ends.
_held: dict[Path, int] = {}


@dataclass(frozen=True)
class ServiceURLs:
    """`postgresql://` and `redis://` URLs on 127.0.0.1, password included; "" for a service not asked for."""

    database: str = ""
    broker: str = ""
    counters: str = ""


def ensure(*, root: Path, need: frozenset[str] = ALL) -> ServiceURLs:
    """Start the services in `need` (database, broker, counters) below `root`, or attach to those running.

    They run until the last process that called this has ended, plus about a second. Any number of processes
    may call it at once. `LOCAL_PG_FSYNC=off` in the environment of the one that starts them trades the
    database's safety against a power cut for speed.

    Raises LocalServicesError, whose text names the remedy; ValueError for an unknown name in `need`.
    """
    if unknown := need - ALL:
        raise ValueError(f"need: no such service {', '.join(sorted(unknown))}; choose from {', '.join(sorted(ALL))}")
    if not need:
        return ServiceURLs()
    layout = _prepare(root)
    _hold(layout)
    start = open_lock(layout.start_lock)
    try:
        lock_within(start, seconds=_START_SECONDS + _STOP_SECONDS, what=layout.start_lock)
        urls = _running(layout, need) or _await(layout, need)
    finally:
        os.close(start)
    return ServiceURLs(**{name: urls[name] for name in need})


def secret(*, root: Path, name: str) -> str:
    """64 hexadecimal digits of chance, kept below `root` under `name`, readable by their owner only.

    Raises LocalServicesError when `root` can't be written.
    """
    return read_secret(_prepare(root).root / name)


def _prepare(root: Path) -> Layout:
    layout = Layout(root.expanduser().resolve())
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        layout.logs.mkdir(mode=0o700, exist_ok=True)  # the database's log quotes statements, with what stood in them
        probe = layout.root / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LocalServicesError(
            f"{layout.root} can't be written ({error.strerror}). Set LOCAL_DIR to a folder that can, "
            "or set DATABASE_URL, BROKER_URL and COUNTERS_URL to servers of your own."
        ) from error
    return layout


def _hold(layout: Layout) -> None:
    """Join the users. From here on no keeper decides to stop; one that had decided is waited for."""
    if layout.root in _held:
        return
    descriptor = open_lock(layout.users_lock)
    try:
        lock_within(descriptor, seconds=_STOP_SECONDS, what=layout.users_lock, shared=True)
    except LocalServicesError:
        os.close(descriptor)
        raise
    _held[layout.root] = descriptor


def _running(layout: Layout, need: frozenset[str]) -> dict[str, str]:
    """URLs of what `need` names; empty when not all of it runs."""
    if not is_locked(layout.keeper_lock):
        return {}
    urls: dict[str, str] = read_json(layout.state).get("urls", {})
    if need <= urls.keys() and all(answers(urlsplit(urls[name]).port or 0) for name in need):
        return urls
    return {}


def _await(layout: Layout, need: frozenset[str]) -> dict[str, str]:
    """Ask the keeper for what `need` names, start one when there is none, and wait for the URLs."""
    deadline = time.monotonic() + _START_SECONDS
    request = _ask(layout, need)
    keepers = 0
    while time.monotonic() < deadline:
        if urls := _running(layout, need):
            return urls
        _raise_error(layout, request)
        if not is_locked(layout.keeper_lock):
            if keepers == 1:
                raise LocalServicesError(_failure(layout))
            request = _ask(layout, need)
            _spawn_keeper(layout)
            keepers += 1
        time.sleep(_POLL_SECONDS)
    raise LocalServicesError(
        f"the embedded {', '.join(sorted(need))} did not answer within {_START_SECONDS:.0f} s; see {layout.logs}"
    )


def _ask(layout: Layout, need: frozenset[str]) -> str:
    request = secrets.token_hex(8)
    for name in need:
        write_private(layout.wanted(name), request)
    return request


def _raise_error(layout: Layout, request: str) -> None:
    errors: dict[str, list[str]] = read_json(layout.state).get("errors", {})
    if texts := [text for answered, text in errors.values() if answered == request]:
        raise LocalServicesError("\n".join(texts))


def _failure(layout: Layout) -> str:
    try:
        return layout.failure.read_text()
    except OSError:
        return f"the keeper of the embedded services ended without a word; see {layout.log('keeper')}"


def _spawn_keeper(layout: Layout) -> None:
    """Returns once the keeper holds its lock; it is nobody's child by then."""
    layout.failure.unlink(missing_ok=True)
    layout.state.unlink(missing_ok=True)
    command = [sys.executable, "-m", "scheduler_project.local.keeper", str(layout.root)]
    path = [str(_PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with layout.log("keeper").open("ab") as log:
        done = subprocess.run(  # noqa: S603
            command,
            cwd=_PROJECT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=False,
        )
    if done.returncode:
        raise LocalServicesError(f"the keeper of the embedded services could not start; see {layout.log('keeper')}")

"""Private servers for a benchmark: imported before any model.

They lie below ``.local/bench`` (or ``LOCAL_DIR/bench``), begin empty and are as durable as in production: fsync on,
every commit waited for. Addresses of servers that the environment names are not used: a benchmark fills tables.
A process that a benchmark starts inherits the environment and joins the same servers.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import django

from scheduler_project.local.layout import Layout
from scheduler_project.local.locks import is_locked

PROJECT = Path(__file__).resolve().parent.parent
# The servers of a benchmark that has just ended stop within about a second.
_FREE_WITHIN_S = 20.0
_MARK = "BENCHMARK_OF"


def _begin() -> None:
    root = Path(os.environ.get("LOCAL_DIR") or PROJECT / ".local").expanduser().resolve() / "bench"
    _await_free(root)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in ("DATABASE_URL", "BROKER_URL", "COUNTERS_URL", "TEST_CLOCK"):
        os.environ.pop(name, None)
    os.environ.update(
        {
            _MARK: str(os.getpid()),
            "LOCAL_DIR": str(root),
            "LOCAL_PG_FSYNC": "on",
            "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING"),
            "DJANGO_SETTINGS_MODULE": "scheduler_project.settings",
        }
    )


def _await_free(root: Path) -> None:
    keeper = Layout(root).keeper_lock
    deadline = time.monotonic() + _FREE_WITHIN_S
    while keeper.exists() and is_locked(keeper):
        if time.monotonic() > deadline:
            sys.exit(f"Another benchmark runs on {root}: wait for it, or set LOCAL_DIR to a folder of your own.")
        time.sleep(0.1)


if _MARK not in os.environ:
    _begin()
django.setup()

ROOT = Path(os.environ["LOCAL_DIR"])

"""How the long programs begin and tell: a folder, figures on standard output, everything else on standard error."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from scheduler_project.local.layout import Layout
from scheduler_project.local.locks import is_locked
from tests.running import PROJECT

# The servers of a run that has just ended stop within about a second.
_FREE_WITHIN_S = 20.0


def fresh_root(name: str) -> Path:
    """An empty folder below ``.local`` (or LOCAL_DIR); what the run before left is gone."""
    root = Path(os.environ.get("LOCAL_DIR") or PROJECT / ".local").expanduser().resolve() / name
    keeper = Layout(root / "local").keeper_lock
    deadline = time.monotonic() + _FREE_WITHIN_S
    while keeper.exists() and is_locked(keeper):
        if time.monotonic() > deadline:
            sys.exit(f"Another run works in {root}: wait for it, or set LOCAL_DIR to a folder of your own.")
        time.sleep(0.1)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    return root


def leave_on_signals() -> None:
    """However the program is asked to end, every block is left, so every process ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def figure(name: str, value: float, **more: object) -> None:
    """A line of JSON for whoever reads figures."""
    sys.stdout.write(json.dumps({"figure": name, "value": value, **more}) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt

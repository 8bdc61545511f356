"""Child processes that don't outlive their parent, and the ones an earlier parent left behind."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
# PyDLL keeps the interpreter's lock: between fork and exec no other thread is there to hand it back.
_prctl = ctypes.PyDLL(None).prctl if sys.platform == "linux" else None


def die_with_parent(number: int) -> Callable[[], None]:
    """A `preexec_fn` by which the child gets signal `number` when the thread that started it ends (prctl(2)).

    Only Linux can do it; elsewhere it does nothing. It survives exec, but not a change of user:
    `Popen(user=...)` is fine, since that happens before.
    """
    parent = os.getpid()

    def tie() -> None:
        if _prctl is None:
            return
        _prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the tie was there
            os._exit(1)

    return tie


def end(process: subprocess.Popen[bytes], *, signals: list[tuple[int, float]]) -> None:
    """Send one signal after the other, each with its seconds, until the process has ended."""
    for number, seconds in [*signals, (signal.SIGKILL, 5.0)]:
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


def end_leftovers(*, home: Path, program: str, pidfile: Path, signals: list[tuple[int, float]]) -> list[int]:
    """End processes of an earlier keeper that still work in `home`; returns their ids.

    A number in a pid file may belong to somebody else by now, so nothing is signalled that isn't seen to run
    `program` in that very folder.
    """
    found = leftovers(home=home, program=program, pidfile=pidfile)
    for number, seconds in [*signals, (signal.SIGKILL, 5.0)]:
        deadline = time.monotonic() + seconds
        alive = leftovers(home=home, program=program, pidfile=pidfile)
        for pid in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        while alive and time.monotonic() < deadline:
            time.sleep(0.02)
            alive = leftovers(home=home, program=program, pidfile=pidfile)
        if not alive:
            break
    return found


def leftovers(*, home: Path, program: str, pidfile: Path) -> list[int]:
    """Ids of processes that run `program` with `home` as their working directory."""
    if sys.platform == "linux":
        return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _works_in(entry, home, program)]
    try:
        pid = int(pidfile.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return []
    shown = subprocess.run(["ps", "-p", str(pid), "-o", "comm="], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return [pid] if Path(shown.stdout.strip()).name.startswith(program) else []


def _works_in(entry: Path, home: Path, program: str) -> bool:
    try:
        # The kernel marks a program replaced on disk since, by an upgrade, with " (deleted)".
        name = Path((entry / "exe").readlink()).name.removesuffix(" (deleted)")
        return name == program and (entry / "cwd").readlink() == home
    except OSError:  # ended meanwhile, or another user's
        return False

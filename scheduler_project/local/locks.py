"""File locks that the kernel drops when their holder ends, however it ends."""

import fcntl
import os
import time
from pathlib import Path

from scheduler_project.local.errors import LocalServicesError

_POLL_SECONDS = 0.02


def open_lock(path: Path) -> int:
    """A descriptor to lock with. It is closed on exec; a forked child shares it, and the lock with it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock if nobody is in the way."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def lock_within(descriptor: int, *, seconds: float, what: Path, shared: bool = False) -> None:
    """Wait for the lock, at most `seconds`; a wait without end would hide who is in the way."""
    deadline = time.monotonic() + seconds
    while not try_lock(descriptor, shared=shared):
        if time.monotonic() > deadline:
            raise LocalServicesError(
                f"{what} stayed locked for {seconds:.0f} s. See {what.parent / 'logs'}; "
                f"find its holder with `fuser -v {str(what)!r}`, and end it."
            )
        time.sleep(_POLL_SECONDS)


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock exclusively at this moment."""
    descriptor = open_lock(path)
    try:
        return not try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)

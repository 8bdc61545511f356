"""A running demo as other processes see it: a lock that ends with it, and the variables that it lends them.

Commands of a second terminal need the demo's test clock and providers. The variables lie in a file, which counts only
while the lock is held; the kernel drops that however the demo ends, so a file left behind by ``kill -9`` is harmless.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from scheduler_project.local.errors import LocalServicesError
from scheduler_project.local.layout import read_json, write_private
from scheduler_project.local.locks import is_locked, lock_within, open_lock

# Longer than anyone holds the lock who only looks.
_PATIENCE_S = 1.0


class AlreadyRunning(Exception):
    """A demo runs in this folder."""


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Be the only demo below ``root``, the folder of the embedded services. Raises ``AlreadyRunning``."""
    lock = open_lock(_lock_file(root))
    try:
        lock_within(lock, seconds=_PATIENCE_S, what=_lock_file(root))
    except LocalServicesError:
        os.close(lock)
        raise AlreadyRunning(
            f"A demo runs in {root} already. End it with Ctrl-C in its terminal, or set LOCAL_DIR to another folder."
        ) from None
    try:
        yield
    finally:
        _variables_file(root).unlink(missing_ok=True)
        os.close(lock)


def lend(root: Path, variables: Mapping[str, str]) -> None:
    """Give ``variables`` to every process that reads the settings while this one is ``alone``."""
    write_private(_variables_file(root), json.dumps(variables))


def join(root: Path) -> None:
    """Take what a running demo lends into this process's environment, over what stands there.

    Over it, because a process that is half inside might send to a real account.
    """
    if is_locked(_lock_file(root)):
        os.environ.update(read_json(_variables_file(root)))


def _variables_file(root: Path) -> Path:
    return root.expanduser() / "demo.env.json"


def _lock_file(root: Path) -> Path:
    return root.expanduser() / "demo.lock"

"""Whether this worker has been told to end: then nothing more is taken up, and what is at hand is ended or handed back.

The signal reaches a worker's first process alone, which ends when its children have; they look at a byte of memory that
all of them share.
"""

import mmap

_said = mmap.mmap(-1, 1)  # anonymous and shared, made before a worker forks


def leave() -> None:
    """From here on this worker's processes take up nothing more."""
    _said[0] = 1


def is_leaving() -> bool:
    return _said[0] == 1

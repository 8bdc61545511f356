"""Waiting for what others do."""

import time
from collections.abc import Callable
from time import sleep
from typing import Final, TypeVar

from scheduler_project.outside.client import OutsideError

PAUSE_S: Final = 0.5
Found = TypeVar("Found")


def until(found: Callable[[], Found | None], *, seconds: float, otherwise: str) -> Found:
    """What ``found`` finds, once that is something. Raises ``OutsideError`` with ``otherwise`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (what := found()):
        if time.monotonic() > deadline:
            raise OutsideError(f"Within {seconds:g} s {otherwise}")
        sleep(PAUSE_S)
    return what

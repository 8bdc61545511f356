"""A process that is connected and does nothing ends itself, so that whoever runs it starts it anew.

A worker that waits for work asks the broker again each second, and beat turns once a second: each of these is a sign of
life. Where there has been none for a minute while the broker answers others, a new process is what helps. Each process
watches itself, so that of two workers of a queue the silent one ends though the other takes its work. One that is
stopped altogether (SIGSTOP) can't.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

# Real seconds without a sign of life; and between two looks.
SILENT_S: Final = 60.0
LOOK_S: Final = 5.0
# After SIGTERM, beyond what the process has to end in order.
_MERCY_S: Final = 5.0


class _Life:
    seen = time.monotonic()


def seen() -> None:
    """A sign of life."""
    _Life.seen = time.monotonic()


def end(*, within_s: float) -> None:
    """SIGTERM to oneself, so that what is at hand is ended; and where that is not heard, an end without."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(within_s + _MERCY_S)
    os._exit(1)


class Watch(threading.Thread):
    """Looks every now and then. ``kind`` is for the log; ``excused_s``: how much longer than a minute there may be no
    sign, for what the process is at work on; ``answers``: whether others are served by the broker; ``finish`` ends it.

    What it could not see does not count: the time in which the broker was away, or the whole process stood still.
    """

    def __init__(
        self, *, kind: str, answers: Callable[[], bool], finish: Callable[[], None], excused_s: Callable[[], float]
    ) -> None:
        super().__init__(name="watch", daemon=True)
        self._kind, self._answers, self._finish, self._excused_s = kind, answers, finish, excused_s
        self._looked = time.monotonic()

    def run(self) -> None:
        seen()
        self._looked = time.monotonic()
        while not self.look(now=time.monotonic()):
            time.sleep(LOOK_S)
        self._finish()

    def look(self, *, now: float) -> bool:
        """Whether it has to end. ``now`` in seconds of the monotonic clock."""
        stood_still, self._looked = now - self._looked > 3 * LOOK_S, now
        silent = now - _Life.seen
        if silent < 2 * LOOK_S:
            return False
        if stood_still or not self._answers():
            _Life.seen = now
            return False
        if silent <= SILENT_S + self._excused_s():
            return False
        log.error("process_silent", kind=self._kind, seconds=round(silent))
        return True

"""Rendered messages kept in memory for some minutes: of templates alone that read nothing of the person.

Such a message holds nothing of anybody, so an erasure has nothing to look for here, and no other is kept.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from delivery.rendering import Rendered


class Kept:
    """At most so many bytes for so many seconds; the longest unused go first. Threads share it."""

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._lock = threading.Lock()
        self._found: OrderedDict[bytes, tuple[float, int, Rendered]] = OrderedDict()
        self._size = 0

    def get(self, key: bytes) -> Rendered | None:
        """None where there is none, or none any more."""
        with self._lock:
            until, _, rendered = self._found.get(key, (0.0, 0, None))
            if rendered is None or until < time.monotonic():
                return None
            self._found.move_to_end(key)
            return rendered

    def put(self, key: bytes, rendered: Rendered) -> None:
        """What would take an eighth of all is not kept."""
        size = len(key) + 4 * sum(map(len, rendered[:4]))  # of a text at most
        if size > self._most // 8:
            return
        with self._lock:
            self._drop(key)
            self._found[key] = time.monotonic() + self._seconds, size, rendered
            self._size += size
            while self._size > self._most:
                self._drop(next(iter(self._found)))

    def clear(self) -> None:
        """As if nothing had been kept."""
        with self._lock:
            self._found.clear()
            self._size = 0

    def _drop(self, key: bytes) -> None:
        if key in self._found:
            self._size -= self._found.pop(key)[1]

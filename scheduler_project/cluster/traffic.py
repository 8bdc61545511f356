"""Programs that ask the API all the time, each request once: how many were not answered as they should be."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from scheduler_project.outside import bulk
from scheduler_project.outside.client import Client, OutsideError

_PAUSE_S = 0.05
_SHOWN = 5


@dataclass
class Traffic:
    """``failures`` are some of those that were refused, in words. Filled by several threads."""

    asked: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def success(self) -> float:
        """The share of requests that were answered as they should be; 1.0 for none."""
        return 1 - self.refused / self.asked if self.asked else 1.0

    def count(self, failure: str) -> None:
        with self._lock:
            self.asked += 1
            if failure:
                self.refused += 1
                self.failures = [*self.failures, failure][:_SHOWN]


@contextmanager
def traffic(client: Callable[[], Client], *, programs: int = 3, keyed: bool = False) -> Iterator[Traffic]:
    """So many programs that read and write, up to the end of the block; ``client`` makes one for each.

    ``keyed``: what they write bears an Idempotency-Key, so that the proxy may ask another server where one is lost;
    else it asks once.
    """
    counted, over = Traffic(), threading.Event()
    threads = [
        threading.Thread(target=_ask, args=(client(), counted, over, number, keyed), daemon=True)
        for number in range(programs)
    ]
    for thread in threads:
        thread.start()
    try:
        yield counted
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _ask(client: Client, counted: Traffic, over: threading.Event, number: int, keyed: bool) -> None:
    turns: Counter[int] = Counter()
    while not over.wait(_PAUSE_S):
        turns[number] += 1
        try:
            if turns[number] % 4:
                client.get("schedules", limit=10)
            else:
                person = {"externalId": f"traffic-{number}", "attributes": {"turn": turns[number]}}
                bulk.put(client, [person], key=str(uuid4()) if keyed else "")
        except OutsideError as error:
            counted.count(str(error))
        else:
            counted.count("")

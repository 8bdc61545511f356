"""Eight senders after the same people at once, while Redis is flushed, killed, or loses a node: no cap is passed."""

import queue
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from delivery import caps, counters
from delivery.caps import Limits
from delivery.counters import CountersAway
from tests.cap_oracle import FREE, USED, Books
from tests.counting import flush
from tests.factories import NOW

PEOPLE = range(1, 13)
SCHEDULES = 20
TWO_A_DAY = Limits(2, None, True)


class Senders:
    """As the service does it: claim, reserve, call, record, release; who must wait comes again."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.began = time.monotonic()
        self.work: queue.SimpleQueue[tuple[int, list[int]]] = queue.SimpleQueue()
        self.away = 0
        self.is_all = threading.Event()

    def feed(self, occurrences: range) -> None:
        for occurrence in occurrences:
            self.work.put((occurrence, list(PEOPLE)))

    def run(self, seed: int) -> None:
        rng = random.Random(seed)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                occurrence, people = self.work.get_nowait()
            except queue.Empty:
                if self.is_all.is_set():
                    return
                time.sleep(0.005)
                continue
            if again := self._send(occurrence, people, rng):
                self.work.put((occurrence, again))
        raise AssertionError("people still wait")

    def _send(self, occurrence: int, people: list[int], rng: random.Random) -> list[int]:
        """Returns those who wait."""
        member = f"{NOW:%Y%m%d}-{occurrence}"
        now = NOW + timedelta(milliseconds=round((time.monotonic() - self.began) * 1000))
        for pk in people:
            self.books.claim(pk, member, now=now)
        time.sleep(rng.random() / 200)  # workers reserve in any order
        try:
            capped = caps.reserve(people, member=member, limits=TWO_A_DAY, now=now, rng=rng)
        except CountersAway:
            self.away += 1
            self._hand_back(people, member)
            time.sleep(0.05)
            return people
        self._hand_back(capped, member)
        failed = []
        for pk in set(people) - capped.keys():
            if rng.random() < 0.3:
                failed.append(pk)
                self.books.settle(pk, member, FREE)
            else:
                self.books.settle(pk, member, USED)
        if failed and rng.random() < 0.7:
            try:
                caps.release(failed, member=member, reserved_at=now)
            except CountersAway:
                self.away += 1
        waiting = [pk for pk, one in capped.items() if one.wait_until is not None]
        return waiting + failed

    def _hand_back(self, people, member: str) -> None:
        for pk in people:
            self.books.settle(pk, member, FREE)


def race(books: Books, harm: Callable[[], None] = lambda: None) -> Senders:
    """When it is over, everyone has got exactly two messages."""
    books.dawdle = lambda: random.random() / 100  # so that ledger and counters change between reading and building
    senders = Senders(books)
    senders.feed(range(SCHEDULES))
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(senders.run, seed) for seed in range(8)]
        harm()  # in the thread that a server started by it must not outlive
        senders.feed(range(SCHEDULES, 2 * SCHEDULES))
        senders.is_all.set()
        for each in running:
            each.result()
    assert books.crowded(cap="daily_cap", limit=2) == []
    sent = {pk: sum(row.standing is USED for row in rows.values()) for pk, rows in books.rows.items()}
    assert sent == dict.fromkeys(PEOPLE, 2)
    return senders


def await_builders(books: Books) -> None:
    """The race has begun: somebody builds. One reading may serve everyone, so there need not be a second."""
    while not books.reads:
        time.sleep(0.005)


def test_in_a_race_everyone_gets_as_many_as_the_cap_allows_and_no_more(servers, books):
    race(books)


def test_a_flush_in_the_middle_of_a_race_lets_nobody_pass(servers, books):
    def harm() -> None:
        for _ in range(10):
            time.sleep(0.03)
            built.append(books.reads)
            flush(servers)

    built: list[int] = []
    race(books, harm)
    assert books.reads > built[-1]


@pytest.mark.parametrize("silences", [False, True])
def test_a_server_restarted_in_the_middle_of_a_race_is_built_anew_from_the_ledger(own_counters, books, silences):
    def harm() -> None:
        await_builders(books)
        if silences:
            own_counters.silence()
            time.sleep(2 * counters.TIMEOUT_S)
        own_counters.kill()
        built.append(books.reads)
        own_counters.start()

    built: list[int] = []
    senders = race(books, harm)
    assert books.reads > built[0]
    assert senders.away or not silences


def test_a_node_lost_in_the_middle_of_a_race_lets_nobody_pass(cluster_counters, books):
    def harm() -> None:
        await_builders(books)
        cluster_counters.nodes[1].kill()
        built.append(books.reads)
        time.sleep(0.2)
        cluster_counters.nodes[1].start()
        cluster_counters.agree()

    built: list[int] = []
    race(books, harm)
    assert books.reads > built[0]

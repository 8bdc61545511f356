"""Caps on real Redis, one server and a cluster, against a count of deliveries that knows neither."""

import random
import threading
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from redis import Redis

from delivery import caps
from delivery.caps import Limits
from scheduler_project.local.redis import Server
from tests.cap_oracle import FREE, IN_FLIGHT, USED, Books
from tests.counting import flush
from tests.factories import NOW

# Two of them share a bucket.
PEOPLE = (1, 2, 65, 70, 71)
MS = timedelta(milliseconds=1)
DAY, WEEK = timedelta(days=1), timedelta(days=7)
# Steps that meet the windows' edges, and the five minutes for which a message waits.
STEPS = (
    MS, timedelta(seconds=2), timedelta(minutes=4), timedelta(minutes=5), timedelta(hours=7), timedelta(hours=7),
    DAY - timedelta(minutes=5), DAY - MS, DAY, DAY + MS, WEEK - DAY, WEEK - MS, WEEK,
)  # fmt: skip
SCHEDULES = (
    Limits(1, None, True), Limits(2, None, True), Limits(None, 2, True), Limits(2, 3, True), Limits(1, 1, False),
    Limits(None, None, True), Limits(None, None, False),
)  # fmt: skip


FATES = ("sent", "sent", "sent", "in flight", "released", "lost")
_SOME = st.sets(st.sampled_from(PEOPLE), min_size=2)


class Caps(RuleBasedStateMachine):
    """Claims, repeats, outcomes, lost releases, flushes and restarts in any order; each answer is foretold."""

    servers: Sequence[Server]
    restarts: bool

    @initialize()
    def begin(self) -> None:
        self.now = NOW
        self.books = Books()
        self.occurrences: dict[int, Limits] = {}
        self.rng = random.Random(0)
        caps.usage = self.books  # put back by the test
        flush(self.servers)
        for server in self.servers:
            (server.redis.home / "dump.rdb").unlink(missing_ok=True)

    @rule(limits=st.sampled_from(SCHEDULES), people=_SOME, fate=st.sampled_from(FATES))
    def send(self, limits: Limits, people: set[int], fate: str) -> None:
        """A new occurrence reaches some people."""
        occurrence = len(self.occurrences) + 1
        self.occurrences[occurrence] = limits
        self._reserve(occurrence, people, fate)

    @rule(data=st.data(), fate=st.sampled_from(FATES))
    def send_again(self, data: st.DataObject, fate: str) -> None:
        """A later attempt of those who did not get it, or the same attempt reserved once more."""
        if self.occurrences:
            occurrence = data.draw(st.sampled_from(list(self.occurrences)))
            again = [pk for pk in PEOPLE if self._standing(pk, occurrence) in (FREE, IN_FLIGHT)]
            self._reserve(occurrence, again, fate)

    @rule(fate=st.sampled_from(FATES))
    def settle(self, fate: str) -> None:
        """Outcomes of everything in flight."""
        for pk, rows in self.books.rows.items():
            for member, row in rows.items():
                if row.standing is IN_FLIGHT:
                    self._settle(pk, member, fate)

    @rule(step=st.sampled_from(STEPS))
    def advance(self, step: timedelta) -> None:
        self.now += step

    @rule(harm=st.sampled_from(("flush", "save", "restart", "restart")))
    def harm(self, harm: str) -> None:
        """A server that keeps snapshots comes back with old news."""
        if harm == "flush":
            flush(self.servers)
        elif self.restarts and harm == "save":
            with Redis.from_url(self.servers[0].url) as client:
                client.save()
        elif self.restarts:
            self.servers[0].kill()
            self.servers[0].start()

    def _reserve(self, occurrence: int, people: Collection[int], fate: str) -> None:
        limits, member = self.occurrences[occurrence], f"{NOW:%Y%m%d}-{occurrence}"
        expected = {}
        for pk in people:
            self.books.claim(pk, member, now=self.now, counts=limits.counts)
            verdict = self.books.verdict(pk, member, day=limits.per_day, week=limits.per_week, now=self.now)
            if verdict:
                expected[pk] = verdict
        capped = caps.reserve(sorted(people), member=member, limits=limits, now=self.now, rng=self.rng)
        assert {pk: (one.cap, one.limit, one.used) for pk, one in capped.items()} == {
            pk: (one.cap, one.limit, one.used) for pk, one in expected.items()
        }
        for pk, one in capped.items():
            self.books.settle(pk, member, FREE)  # turned away or put off: nothing was sent
            wait = expected[pk].wait
            assert one.wait_until is None if wait is None else wait[0] <= one.wait_until <= wait[1]
        for pk in set(people) - capped.keys():
            self._settle(pk, member, fate)

    def _settle(self, pk: int, member: str, fate: str) -> None:
        """Where nothing was sent the place is released, or Redis is not told."""
        self.books.settle(pk, member, {"sent": USED, "in flight": IN_FLIGHT}.get(fate, FREE))
        if fate == "released":
            for _ in range(2):
                caps.release([pk], member=member, reserved_at=self.books.rows[pk][member].claimed_at)

    def _standing(self, pk: int, occurrence: int) -> Any:
        row = self.books.rows[pk].get(f"{NOW:%Y%m%d}-{occurrence}")
        return row and row.standing


def test_every_answer_is_the_one_that_counting_gives(servers, monkeypatch):
    monkeypatch.setattr(caps, "usage", caps.usage)

    class Machine(Caps):
        pass

    Machine.servers, Machine.restarts = servers, len(servers) == 1
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


ONE_A_DAY, TWO_A_DAY, TWO_A_WEEK = Limits(1, None, True), Limits(2, None, True), Limits(None, 2, True)
NO_CAP = Limits(None, None, True)


def claim(books: Books, pk: int, occurrence: int, limits: Limits, *, now=NOW):
    """Claim and reserve for one person, as the sender does; what stands in the way."""
    member = f"{NOW:%Y%m%d}-{occurrence}"
    books.claim(pk, member, now=now, counts=limits.counts)
    return caps.reserve([pk], member=member, limits=limits, now=now, rng=random.Random(0)).get(pk)


def test_a_flush_between_two_builders_loses_no_claim_made_after_it(servers, books, monkeypatch):
    """The first builder has read the ledger before a claim that the second one has yet to read."""
    read, first_is_done, second_has_begun = books.uses, threading.Event(), threading.Event()

    def uses(recipient_ids, *, now):
        if threading.current_thread() is second:
            second_has_begun.set()
            assert first_is_done.wait(60)
            return read(recipient_ids, now=now)
        found = read(recipient_ids, now=now)
        if not second_has_begun.is_set():
            flush(servers)
            claim(books, 1, 7, NO_CAP)
            second.start()
            assert second_has_begun.wait(60)
        return found

    def build(*args, **kwargs):
        real_build(*args, **kwargs)
        if threading.current_thread() is not second:
            first_is_done.set()

    real_build = caps._build
    second = threading.Thread(target=claim, args=(books, 1, 9, TWO_A_DAY))
    monkeypatch.setattr(books, "uses", uses)
    monkeypatch.setattr(caps, "_build", build)
    turned_away = claim(books, 1, 8, ONE_A_DAY)
    second.join()
    assert turned_away is not None


def test_a_snapshot_older_than_a_retry_does_not_shorten_its_window(own_counters, books):
    """The server comes back with the instant of the first attempt; the ledger knows the one that was sent."""
    claim(books, 1, 1, ONE_A_DAY)
    books.settle(1, f"{NOW:%Y%m%d}-1", FREE)
    with Redis.from_url(own_counters.url) as client:
        client.save()
    claim(books, 1, 1, ONE_A_DAY, now=NOW + timedelta(hours=1))
    books.settle(1, f"{NOW:%Y%m%d}-1", USED)
    own_counters.kill()
    own_counters.start()
    assert claim(books, 1, 2, ONE_A_DAY, now=NOW + DAY + timedelta(minutes=30)) is not None


def test_a_claim_that_reserves_after_a_later_one_still_sees_its_own_week(servers, books):
    """Workers reserve seconds after their claims' instants, in any order."""
    for occurrence in (1, 2):
        assert claim(books, 1, occurrence, TWO_A_WEEK, now=NOW + MS) is None
        books.settle(1, f"{NOW:%Y%m%d}-{occurrence}", USED)
    assert claim(books, 1, 3, TWO_A_WEEK, now=NOW + WEEK + timedelta(seconds=1)) is None
    assert claim(books, 1, 4, TWO_A_WEEK, now=NOW + WEEK) is not None


def test_who_reserves_late_after_a_later_claim_of_the_same_row_changes_nothing_of_it(servers, books):
    """A worker that was stopped between claim and reservation; its row was sent by another meanwhile."""
    later = NOW + timedelta(minutes=1)
    assert claim(books, 1, 1, ONE_A_DAY, now=later) is None
    for limits in (NO_CAP, ONE_A_DAY):  # the schedule was edited between the two claims
        caps.reserve([1], member=f"{NOW:%Y%m%d}-1", limits=limits, now=NOW, rng=random.Random(0))
    books.settle(1, f"{NOW:%Y%m%d}-1", USED)
    assert claim(books, 1, 2, ONE_A_DAY, now=NOW + DAY) is not None
    assert claim(books, 1, 3, TWO_A_DAY, now=later) is None
    books.settle(1, f"{NOW:%Y%m%d}-3", USED)
    caps.reserve([1], member=f"{NOW:%Y%m%d}-1", limits=ONE_A_DAY, now=NOW, rng=random.Random(0))
    books.rows[1][f"{NOW:%Y%m%d}-2"].standing = FREE
    turned_away = claim(books, 1, 4, TWO_A_DAY, now=NOW + DAY)
    assert turned_away is not None
    assert turned_away.used == (f"{NOW:%Y%m%d}-1", f"{NOW:%Y%m%d}-3")


def test_who_releases_late_after_a_later_claim_of_the_same_row_frees_nothing(servers, books):
    """The row was handed back, and sent by another before the first worker came to release its own reservation."""
    assert claim(books, 1, 1, ONE_A_DAY) is None
    assert claim(books, 1, 1, ONE_A_DAY, now=NOW + timedelta(seconds=10)) is None
    books.settle(1, f"{NOW:%Y%m%d}-1", USED)
    caps.release([1], member=f"{NOW:%Y%m%d}-1", reserved_at=NOW)
    assert claim(books, 1, 2, ONE_A_DAY, now=NOW + timedelta(hours=1)) is not None


def test_a_claim_without_a_cap_counts_though_it_comes_while_a_set_is_built(servers, books, monkeypatch):
    read = books.uses

    def uses(recipient_ids, *, now):
        found = read(recipient_ids, now=now)
        claim(books, 1, 1, NO_CAP)
        return found

    monkeypatch.setattr(books, "uses", uses)
    assert claim(books, 1, 2, ONE_A_DAY) is not None

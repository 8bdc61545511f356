"""Counters that are refused, silent or half there: the caps say so before a permit runs out, and then come back."""

import random
import time

import pytest
from redis import Redis

from delivery import caps, counters, sending
from delivery.caps import Limits
from delivery.counters import CountersAway
from scheduler_project.local.ports import LOOPBACK
from scheduler_project.local.redis import running_server
from tests.factories import NOW

TWO_A_DAY = Limits(2, None, True)
EVERY_BUCKET = range(1, 65)


def reserve(books, occurrence=1):
    member = f"{NOW:%Y%m%d}-{occurrence}"
    for pk in EVERY_BUCKET:
        books.claim(pk, member, now=NOW)
    return caps.reserve(EVERY_BUCKET, member=member, limits=TWO_A_DAY, now=NOW, rng=random.Random(0))


@pytest.mark.parametrize("how", ["kill", "silence"])
@pytest.mark.parametrize("was_known", [True, False], ids=["known", "never seen"])
def test_a_server_that_is_away_is_told_in_time(servers, books, how, was_known):
    """On a cluster it is the second node of three: the first is by which a process finds the others."""
    away = servers[-1] if len(servers) == 1 else servers[1]
    if was_known:
        reserve(books)
    getattr(away, how)()
    try:
        took = []
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(CountersAway):
                reserve(books)
            took.append(time.monotonic() - began)
            assert began < counters._pause.until <= time.monotonic() + counters.PAUSE_S
        assert min(took) < sending.PERMIT_S  # what holds up one of them alone is the machine
    finally:
        away.start() if how == "kill" else away.wake()
    assert come_back(books) == {}


def come_back(books):
    """What reserving says once it says anything: a cluster needs some seconds to trust a node again."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return reserve(books)
        except CountersAway:
            assert time.monotonic() < deadline
            time.sleep(counters.rest())


def test_a_reservation_of_which_only_a_part_was_made_is_repeated_harmlessly(cluster_counters, books):
    """Two thirds of the buckets were reserved when the third turned out to be away."""
    cluster_counters.nodes[2].kill()
    with pytest.raises(CountersAway):
        reserve(books)
    cluster_counters.nodes[2].start()
    cluster_counters.agree()
    assert reserve(books, 1) == {}
    assert reserve(books, 2) == {}
    capped = reserve(books, 3)
    assert capped.keys() == set(EVERY_BUCKET)
    assert {one.limit for one in capped.values()} == {2}


def test_a_replica_that_takes_over_without_the_last_reservations_is_not_trusted(
    own_counters, books, tmp_path, settings
):
    """Replication is asynchronous: what the primary promised last may be missing. The ledger has it."""
    with running_server(root=tmp_path, name="replica") as replica, Redis.from_url(replica.url) as client:
        client.config_set("masterauth", own_counters.redis.password)
        client.replicaof(LOOPBACK, own_counters.port)
        reserve(books, 1)
        with Redis.from_url(own_counters.url) as primary:
            assert primary.wait(1, 60_000) == 1
        assert client.dbsize() == len(EVERY_BUCKET)
        client.replicaof("no", "one")
        reserve(books, 2)
        own_counters.kill()
        settings.COUNTERS_URL = replica.url
        counters._client.cache_clear()
        read = books.reads
        assert reserve(books, 3).keys() == set(EVERY_BUCKET)
        assert books.reads > read

"""How long reserving 10,000 people's caps takes, through the function that the senders use.

    python -m benchmarks.caps [--runs 9] [--cluster no]

It is called for as many as an e-mail sender claims at once, and people come in the order of the batches. Their sets
hold the messages of the week before. ``first_10k_ms`` is the same where no set exists yet, after a flush: all are read
from the ledger. The peer is what no implementation can do without, the same number of ZADDs, in one pipeline. The
figures of a Redis Cluster of three nodes come from a process of its own, as its address is a setting.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from itertools import count
from typing import Any

from django.conf import settings
from redis import Redis
from redis.cluster import RedisCluster

from benchmarks import past, people
from benchmarks.environment import PROJECT, ROOT
from benchmarks.harness import emit, median_ms, prepare, query
from delivery import caps
from delivery.providers.ses import SesProvider
from delivery.sending import CALLS_PER_CLAIM
from scheduler_project.local.redis_cluster import running_cluster
from schedules import clock

NAME = "caps"
PEOPLE = 10_000
USED = 5  # messages that everyone got within the last week
PEER = "a ZADD for each in one pipeline"
LIMITS = caps.Limits(per_day=100, per_week=1_000, counts=True)
# Whoever reserves here is no schedule's; occurrences have small numbers.
OCCURRENCES = count(1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="What caps cost.")
    parser.add_argument("--runs", type=int, default=9, help="runs of which the median is told; a third of them first")
    parser.add_argument("--cluster", choices=["yes", "no", "only"], default="yes", help="measure a Redis Cluster too")
    options = parser.parse_args()
    if options.cluster != "only":
        prepare()
        people.insert(PEOPLE)
        past.fill(occurrences=USED, template=people.save_template(now=clock.now()), now=clock.now())
        _measure("", Redis.from_url(settings.COUNTERS_URL), options.runs)
    if options.cluster == "yes":
        _in_cluster(options.runs)
    if options.cluster == "only":
        _measure("cluster_", RedisCluster.from_url(settings.COUNTERS_URL), options.runs)


def _measure(prefix: str, server: Redis | RedisCluster, runs: int) -> None:
    claims = _claims()

    def reserve() -> None:
        member = caps.as_member(clock.now().date(), next(OCCURRENCES))
        for claim in claims:
            if capped := caps.reserve(claim, member=member, limits=LIMITS, now=clock.now(), rng=_rng):
                raise SystemExit(f"benchmark failed: nobody is at a cap, {len(capped)} of a claim were refused")

    first = median_ms(reserve, runs=max(3, runs // 3), before=server.flushall)
    built = median_ms(reserve, runs=runs)
    _check(server, runs)
    floor = median_ms(lambda: _floor(server, claims), runs=runs)
    emit(NAME, f"{prefix}reserve_10k_ms", built, "ms", peer=PEER, ratio=floor / built)
    emit(NAME, f"{prefix}first_10k_ms", first, "ms", peer=PEER, ratio=floor / first)
    emit(NAME, f"{prefix}peer_10k_ms", floor, "ms")


def _claims() -> list[list[int]]:
    """The people of each claim, for whom a sender reserves at once: batches are cut in the order of buckets."""
    ids = [pk for (pk,) in query("SELECT id FROM schedules_recipient ORDER BY id %% %s, id", [caps.BUCKETS])]
    batches = [ids[at : at + settings.BATCH_SIZE] for at in range(0, len(ids), settings.BATCH_SIZE)]
    size = SesProvider.max_per_call * CALLS_PER_CLAIM
    return [batch[at : at + size] for batch in batches for at in range(0, len(batch), size)]


def _check(server: Redis | RedisCluster, runs: int) -> None:
    """Everyone's set holds the week before, the runs since the flush and the mark of having been built."""
    ((least, most),) = query("SELECT min(id), max(id) FROM schedules_recipient")
    for pk in (least, (least + most) // 2, most):
        size = server.zcard(f"{{c{pk % caps.BUCKETS}}}:u{pk}")
        if size != USED + 1 + runs + 1:
            raise SystemExit(f"benchmark failed: the set of {pk} has {size} members in place of {USED + 2 + runs}")


def _floor(server: Redis | RedisCluster, claims: list[list[int]]) -> None:
    member, score = f"floor-{next(OCCURRENCES)}", time.time() * 1000
    pipeline: Any = server.pipeline(transaction=False)
    for claim in claims:
        for pk in claim:
            pipeline.zadd(f"{{c{pk % caps.BUCKETS}}}:u{pk}", {member: score})
    pipeline.execute()


def _in_cluster(runs: int) -> None:
    with running_cluster(root=ROOT / "cluster") as cluster:
        command = [sys.executable, "-m", f"benchmarks.{NAME}", "--cluster", "only", "--runs", str(runs)]
        env = {**os.environ, "COUNTERS_URL": cluster.url}
        subprocess.run(command, env=env, cwd=PROJECT, check=True)


# Only for the moment of trying again, which does not come here.
_rng = random.Random(1)


if __name__ == "__main__":
    main()

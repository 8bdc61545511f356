"""What it costs to keep the counters on a Redis Cluster of three nodes, in place of one server.

    python -m benchmarks.clustered [--recipients 50000] [--runs 3] [--senders 3]

The same e-mails to the same people, each counted under a cap, by the whole service: first with one server, then with
the cluster. ``caps`` tells what reserving alone costs on both.
"""

import argparse
import os
import statistics
from collections.abc import Sequence

from django.conf import settings

from benchmarks import people
from benchmarks.environment import ROOT
from benchmarks.harness import emit, note, prepare
from benchmarks.runs import Run, ending, running_service
from benchmarks.stubs import Stubs, running_stubs
from scheduler_project.local.redis_cluster import running_cluster
from schedules import clock
from schedules.models import MessageTemplate

NAME = "clustered"
PEER = "one server of counters"


def _runs(what: str, stubs: Stubs, template: MessageTemplate, options: argparse.Namespace) -> list[Run]:
    runs = []
    with running_service(stubs, template=template, channels=["email"], senders=options.senders) as service:
        for _ in range(options.runs):
            runs.append(service.run("email", audience="", count=options.recipients))
            parts = ", ".join(f"{name} {us:.0f}" for name, us in sorted(runs[-1].cpu_us.items()))
            note(f"{what}: {runs[-1].per_s:.0f}/s; us of processor time for each: {parts}")
    return runs


def _tell(single: Sequence[Run], cluster: Sequence[Run]) -> None:
    rates = [statistics.median(run.per_s for run in runs) for runs in (single, cluster)]
    emit(NAME, "email", rates[1], "per_s", peer=PEER, ratio=rates[1] / rates[0])
    for part in ("workers", "redis"):
        each = [statistics.median(run.cpu_us[part] for run in runs) for runs in (single, cluster)]
        emit(NAME, f"{part}_cpu", each[1], "us_each", peer=PEER, ratio=each[0] / each[1])
    sums = [statistics.median(sum(run.cpu_us.values()) for run in runs) for runs in (single, cluster)]
    emit(NAME, "email_cpu", sums[1], "us_each", peer=PEER, ratio=sums[0] / sums[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="Counters on a Redis Cluster.")
    parser.add_argument("--recipients", type=int, default=50_000, help="people of a schedule")
    parser.add_argument("--runs", type=int, default=3, help="schedules of which the median is told")
    parser.add_argument("--senders", type=int, default=3, help="worker processes")
    options = parser.parse_args()
    prepare()
    people.insert(max(options.recipients, people.GROUPS["warm"]))
    template = people.save_template(now=clock.now())
    with running_stubs() as stubs:
        single = _runs("one server", stubs, template, options)
        with running_cluster(root=ROOT / "cluster") as cluster:
            # Of the processes to come, and of this one, which asks the servers what they cost.
            os.environ["COUNTERS_URL"] = settings.COUNTERS_URL = cluster.url
            _tell(single, _runs("cluster", stubs, template, options))


if __name__ == "__main__":
    ending(main)

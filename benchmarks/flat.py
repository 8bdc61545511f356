"""Whether a delivery costs the same in a large schedule as in a small one, and on a full ledger as on an empty one.

    python -m benchmarks.flat [--people 1000000] [--rows 10000000] [--runs 5] [--channel email] [--senders 2]

The same 10,000 people are sent to while the ledger is empty, all of the people are, the 10,000 right after them, and
once more when the ledger holds so many rows of the week before. It takes about a quarter of an hour, so it is not among
those that run together. The figures that tell are processor times, which other programs change little. Each one's peer
are the small runs, those before and after for the large one, which takes minutes in which a machine's pace may change:
``stub_cpu`` tells by how much, since what the stub does for a delivery is the same in each.
Nobody is capped: building a person's set of counters for the first time is a cost of its own, which ``caps`` tells.
"""

import argparse
import math
import statistics
from collections.abc import Sequence

from benchmarks import past, people
from benchmarks.environment import ROOT
from benchmarks.harness import emit, note, prepare, query
from benchmarks.runs import Run, Service, ending, running_service
from benchmarks.stubs import running_stubs
from schedules import clock
from schedules.models import Channel

NAME = "flat"
SMALL = people.GROUPS["ten_thousand"]
PEER = f"{SMALL:,} recipients on an empty ledger"


def _runs(service: Service, options: argparse.Namespace, what: str, *, count: int, times: int) -> list[Run]:
    runs = []
    for _ in range(times):
        audience = "ten_thousand" if count == SMALL else ""
        run = service.run(options.channel, audience=audience, count=count, cap=None)
        parts = ", ".join(f"{name} {us:.0f}" for name, us in sorted(run.cpu_us.items()))
        note(f"{what}: {run.per_s:.0f}/s; us each: {parts}; {run.elsewhere:.0%} of the machine elsewhere")
        runs.append(run)
    return runs


def _cpu(runs: Sequence[Run]) -> float:
    return statistics.median(sum(run.cpu_us.values()) for run in runs)


def _per_s(runs: Sequence[Run]) -> float:
    return statistics.median(run.per_s for run in runs)


def _stub(runs: Sequence[Run]) -> float:
    return statistics.median(run.cpu_us["stub"] for run in runs)


def _tell(small: Sequence[Run], figure: str, runs: Sequence[Run]) -> None:
    emit(NAME, f"{figure}_cpu", _cpu(runs), "us_each", peer=PEER, ratio=_cpu(small) / _cpu(runs))
    emit(NAME, f"{figure}_stub_cpu", _stub(runs), "us_each", peer=PEER, ratio=_stub(small) / _stub(runs))
    emit(NAME, f"{figure}_per_s", _per_s(runs), "per_s", peer=PEER, ratio=_per_s(runs) / _per_s(small))


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="Cost by size.")
    parser.add_argument("--people", type=int, default=1_000_000, help="people of the large schedule")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the full ledger")
    parser.add_argument("--runs", type=int, default=5, help="small schedules of which the median is told")
    parser.add_argument("--channel", choices=Channel.values, default="email", help="email, push or in_app")
    parser.add_argument("--senders", type=int, default=2, help="worker processes of the channel")
    options = parser.parse_args()
    if options.people <= SMALL:
        parser.error(f"--people: more than {SMALL}")
    note(f"{options.people} people, {options.rows} rows; servers and logs below {ROOT}")
    prepare()
    people.insert(options.people)
    template = people.save_template(now=clock.now())
    with (
        running_stubs() as stubs,
        running_service(stubs, template=template, channels=[options.channel], senders=options.senders) as service,
    ):
        small = _runs(service, options, f"{SMALL:,} people", count=SMALL, times=options.runs)
        large = _runs(service, options, f"{options.people:,} people", count=options.people, times=1)
        after = _runs(service, options, f"{SMALL:,} people again", count=SMALL, times=options.runs)
        emit(NAME, "small_cpu", _cpu(small), "us_each")
        emit(NAME, "small_per_s", _per_s(small), "per_s")
        _tell(small + after, "large", large)
        emit(NAME, "worker_rss_growth_mb", large[0].rss_growth_mb, "MB")
        ((rows,),) = query("SELECT count(*) FROM delivery_delivery")
        if missing := max(options.rows - rows, 0):
            note(f"filling the ledger with {missing} rows")
            past.fill(occurrences=math.ceil(missing / options.people), template=template, now=clock.now())
        full = _runs(service, options, f"{options.rows:,} rows", count=SMALL, times=options.runs)
        _tell(small, "full", full)


if __name__ == "__main__":
    ending(main)

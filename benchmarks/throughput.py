"""How many people the whole service reaches in a second, everything on this machine, ledger writes included.

    python -m benchmarks.throughput [--recipients 100000] [--runs 3] [--channels email,push,in_app] [--naive 3000]
        [--post-office 3000] [--floor 3] [--senders 3]

Real worker processes, beat, PostgreSQL (fsync on), Redis and the stubs of SES and FCM share the machine. A schedule is
created some seconds before its instant, as a person would; ``email``, ``push`` and ``in_app`` count from that instant
to the last outcome. The books are looked at all the while, and the stub's log must show everyone exactly once. Three
peers send the same e-mails through the same servers: a Celery task per recipient, django-post_office, and
``benchmarks.floor``.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence

from django.conf import settings

from benchmarks import people, post_office
from benchmarks.environment import ROOT
from benchmarks.harness import emit, note, prepare
from benchmarks.peers import Floor, FloorRun, naive_rate, running_floor
from benchmarks.runs import Run, Service, ending, running_service
from benchmarks.stubs import running_stubs
from schedules import clock
from schedules.models import Channel

NAME = "throughput"
PEER = "a Celery task per recipient"
# Calls that the floor has in flight in each process: one, as the simplest loop has, and as many as the service.
OVERLAPS = {"floor": 1, "overlapping_floor": settings.CALLS_IN_FLIGHT}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="People reached in a second.")
    parser.add_argument("--recipients", type=int, default=100_000, help="people of a schedule (at least 10,000)")
    parser.add_argument("--runs", type=int, default=3, help="schedules of which the median is told")
    parser.add_argument("--channels", default="email,push,in_app", help="some of email, push, in_app")
    parser.add_argument("--naive", type=int, default=3_000, help="e-mails of the naive peer; 0 leaves it out")
    parser.add_argument("--post-office", type=int, default=3_000, help="e-mails of django-post_office; 0 leaves it out")
    parser.add_argument("--floor", type=int, default=3, help="runs of the floor; 0 leaves it out")
    parser.add_argument("--senders", type=int, default=3, help="worker processes of a channel")
    options = parser.parse_args()
    if options.recipients < people.GROUPS["ten_thousand"]:
        parser.error("--recipients: at least 10,000")
    options.channels = options.channels.split(",")
    if unknown := set(options.channels) - set(Channel.values):
        parser.error(f"--channels: {', '.join(sorted(unknown))} is none of {', '.join(Channel.values)}")
    return options


def _runs(service: Service, channel: str, options: argparse.Namespace) -> list[Run]:
    runs = []
    for number in range(options.runs):
        run = service.run(channel, audience="", count=options.recipients)
        note(f"{channel} {number + 1}: {run.per_s:.0f}/s; {_in_words(run.cpu_us)};")
        note(f"    {run.elsewhere:.0%} of the machine went to other programs")
        runs.append(run)
    return runs


def _floor_runs(floor: Floor, name: str, options: argparse.Namespace) -> list[FloorRun]:
    runs = []
    for number in range(options.floor):
        run = floor.run(count=options.recipients, overlap=OVERLAPS[name])
        note(f"{name} {number + 1}: {run.per_s:.0f}/s; {_in_words(run.cpu_us)}")
        runs.append(run)
    return runs


def _in_words(cpu_us: Mapping[str, float]) -> str:
    parts = ", ".join(f"{name} {us:.0f}" for name, us in sorted(cpu_us.items()))
    return f"us of processor time for each: {parts}"


def _median(runs: Sequence[Run], name: str) -> float:
    return float(statistics.median(getattr(run, name) for run in runs))


def _tell(channel: str, runs: Sequence[Run], *, naive_per_s: float, naive_us: float) -> None:
    """The channel's figures; without a peer where ``naive_per_s`` is zero."""
    peer = PEER if naive_per_s else None
    per_s = _median(runs, "per_s")
    cpu = statistics.median(sum(run.cpu_us.values()) for run in runs)
    emit(NAME, channel, per_s, "per_s", peer=peer, ratio=per_s / naive_per_s if peer else None)
    emit(NAME, f"{channel}_between_calls", _median(runs, "calls_per_s"), "per_s")
    emit(NAME, f"{channel}_with_materialising", _median(runs, "whole_per_s"), "per_s")
    emit(NAME, f"{channel}_cpu", cpu, "us_each", peer=peer, ratio=naive_us / cpu if peer else None)
    emit(NAME, f"{channel}_first_call_s", _median(runs, "first_call_s"), "s")


def _tell_post_office(found: tuple[float, float]) -> None:
    per_s, us = found
    emit(NAME, "post_office_email", per_s, "per_s", peer=post_office.PEER)
    emit(NAME, "post_office_email_cpu", us, "us_each", peer=post_office.PEER)


def _tell_of_all(runs: Sequence[Run]) -> None:
    emit(NAME, "worker_rss_growth_mb", max(run.rss_growth_mb for run in runs), "MB")
    late = sorted(seconds for run in runs for seconds in run.ticks_late)
    if late:
        emit(NAME, "tick_lateness_p99_s", late[int(len(late) * 0.99)], "s")


def _tell_floor(runs: Sequence[Run], floors: Mapping[str, Sequence[FloorRun]]) -> None:
    """How near the service comes: its rate with materialising, since the floor's has it, and its processor time."""
    for name, found in floors.items():
        peer = f"a bare loop, {_calls(OVERLAPS[name])} in flight in each process"
        per_s = statistics.median(run.per_s for run in found)
        cpu = statistics.median(sum(run.cpu_us.values()) for run in found)
        ratio = _median(runs, "whole_per_s") / per_s
        own_cpu = statistics.median(sum(run.cpu_us.values()) for run in runs)
        emit(NAME, f"email_vs_{name}", ratio, "ratio", peer=peer, ratio=ratio)
        emit(NAME, f"email_cpu_vs_{name}", cpu / own_cpu, "ratio", peer=peer, ratio=cpu / own_cpu)
        emit(NAME, f"{name}_email", per_s, "per_s")
        emit(NAME, f"{name}_email_cpu", cpu, "us_each")


def _calls(count: int) -> str:
    return "a call" if count == 1 else f"{count} calls"


def main() -> None:
    options = _options()
    note(f"{options.recipients} recipients; servers and logs below {ROOT}")
    prepare()
    people.insert(options.recipients)
    template = people.save_template(now=clock.now())
    every: list[Run] = []
    with running_stubs() as stubs:
        naive_per_s = naive_us = 0.0
        floors: dict[str, list[FloorRun]] = {}
        if options.naive and "email" in options.channels:
            naive_per_s, naive_us = naive_rate(stubs, count=options.naive, senders=options.senders)
            emit(NAME, "naive_email", naive_per_s, "per_s")
        if options.post_office and "email" in options.channels:
            _tell_post_office(post_office.rate(stubs, count=options.post_office, senders=options.senders))
        if options.floor and "email" in options.channels:
            with running_floor(stubs, template=template, senders=options.senders) as floor:
                floors = {name: _floor_runs(floor, name, options) for name in OVERLAPS}
        with running_service(stubs, template=template, channels=options.channels, senders=options.senders) as service:
            for channel in options.channels:
                runs = _runs(service, channel, options)
                is_compared = channel == "email"
                _tell(channel, runs, naive_per_s=naive_per_s if is_compared else 0.0, naive_us=naive_us)
                if is_compared:
                    _tell_floor(runs, floors)
                every += runs
            if "email" in options.channels:
                small = [service.run("email", audience="ten_thousand", count=10_000) for _ in range(options.runs)]
                emit(NAME, "first_call_10k_s", _median(small, "first_call_s"), "s")
    _tell_of_all(every)


if __name__ == "__main__":
    ending(main)

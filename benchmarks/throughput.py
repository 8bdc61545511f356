"""How many people the whole service reaches in a second, everything on this machine, ledger writes included.

    python -m benchmarks.throughput [--recipients 100000] [--runs 3] [--channels email,in_app] [--naive 3000]

Real worker processes, beat, PostgreSQL (fsync on), Redis and the SES stub share the machine. A schedule is created
some seconds before its instant, as a person would; ``email`` and ``in_app`` count from that instant to the last
outcome. The books are looked at all the while, and the stub's log must show everyone exactly once. The peer sends
the same message through the same servers with a Celery task per recipient.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

from django.db import connection

from benchmarks import costs, naive, people, processes
from benchmarks.environment import ROOT
from benchmarks.harness import emit, note, prepare, query
from benchmarks.runs import SETTLED, Run, Service, Wrong, awaited, running_service
from scheduler_project.local.supervisor import Supervisor
from stubs.testing import RunningStub, running_ses

NAME = "throughput"
PEER = "a Celery task per recipient"


def naive_rate(stub: RunningStub, *, count: int, senders: int) -> tuple[float, float]:
    """E-mails a second by the naive way, and its processor time for each in microseconds.

    The tasks are queued beforehand and the first tenth does not count: neither enqueueing nor the start is held
    against it.
    """
    with connection.schema_editor() as editor:
        editor.create_model(naive.Sent)
    for pk in range(1, count + 1):
        naive.send_one.delay(pk)
    worker = processes.naive(ses_url=stub.url, processes=senders, queue=naive.QUEUE)
    with Supervisor([worker], logs=processes.LOGS) as running:
        pids = [*(pid for pids in costs.server_pids().values() for pid in pids), stub.process.pid, running.pid("naive")]
        awaited(lambda: naive.Sent.objects.count() >= count * SETTLED, "naive sending", every_s=0.5)
        first, before = naive.Sent.objects.count(), costs.cpu_seconds(pids)
        awaited(lambda: naive.Sent.objects.count() >= count, "naive sending", every_s=0.5)
        spent = costs.cpu_seconds(pids) - before
    ((sent, seconds),) = query(
        "SELECT count(*), extract(epoch FROM max(created_at) - min(created_at))::float FROM (SELECT created_at FROM"
        " benchmark_naive_sent WHERE status = 'sent' ORDER BY created_at OFFSET %s) AS steady",
        [int(count * SETTLED)],
    )
    return (sent - 1) / seconds, spent / (count - first) * 1e6


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="People reached in a second.")
    parser.add_argument("--recipients", type=int, default=100_000, help="people of a schedule (at least 10,000)")
    parser.add_argument("--runs", type=int, default=3, help="schedules of which the median is told")
    parser.add_argument("--channels", default="email,in_app", help="email, in_app or both")
    parser.add_argument("--naive", type=int, default=3_000, help="e-mails of the naive peer; 0 leaves it out")
    parser.add_argument("--senders", type=int, default=2, help="worker processes of a channel")
    options = parser.parse_args()
    if options.recipients < people.GROUPS["ten_thousand"]:
        parser.error("--recipients: at least 10,000")
    options.channels = options.channels.split(",")
    if unknown := set(options.channels) - {"email", "in_app"}:
        parser.error(f"--channels: {', '.join(sorted(unknown))} is none of email, in_app")
    return options


def _runs(service: Service, channel: str, options: argparse.Namespace) -> list[Run]:
    runs = []
    for number in range(options.runs):
        run = service.run(channel, audience="", count=options.recipients)
        cpu = ", ".join(f"{name} {us:.0f}" for name, us in sorted(run.cpu_us.items()))
        note(f"{channel} {number + 1}: {run.per_s:.0f}/s; us of processor time for each: {cpu};")
        note(f"    {run.elsewhere:.0%} of the machine went to other programs")
        runs.append(run)
    return runs


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


def _tell_of_all(runs: Sequence[Run]) -> None:
    emit(NAME, "worker_rss_growth_mb", max(run.rss_growth_mb for run in runs), "MB")
    late = sorted(seconds for run in runs for seconds in run.ticks_late)
    if late:
        emit(NAME, "tick_lateness_p99_s", late[int(len(late) * 0.99)], "s")


def main() -> None:
    options = _options()
    note(f"{options.recipients} recipients; servers and logs below {ROOT}")
    prepare()
    people.insert(options.recipients)
    every: list[Run] = []
    log = ROOT / "accepted.ndjson"
    with running_ses(log=log) as stub:
        naive_per_s = naive_us = 0.0
        if options.naive and "email" in options.channels:
            naive_per_s, naive_us = naive_rate(stub, count=options.naive, senders=options.senders)
            emit(NAME, "naive_email", naive_per_s, "per_s")
        with running_service(stub, log, channels=options.channels, senders=options.senders) as service:
            for channel in options.channels:
                runs = _runs(service, channel, options)
                is_compared = channel == "email"
                _tell(channel, runs, naive_per_s=naive_per_s if is_compared else 0.0, naive_us=naive_us)
                every += runs
            if "email" in options.channels:
                small = [service.run("email", audience="ten_thousand", count=10_000) for _ in range(options.runs)]
                emit(NAME, "first_call_10k_s", _median(small, "first_call_s"), "s")
    _tell_of_all(every)


if __name__ == "__main__":
    try:
        main()
    except Wrong as error:
        sys.exit(f"benchmark failed: {error}")

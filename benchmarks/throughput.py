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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from django.db import connection
from django.utils.timezone import now as real_now

from benchmarks import fleet, naive, people
from benchmarks.environment import ROOT
from benchmarks.harness import emit, note, prepare, query
from delivery import books
from scheduler_project.local.supervisor import Supervisor
from schedules import clock, operations
from schedules.definition import Definition
from schedules.models import MessageTemplate, Occurrence
from stubs.testing import RunningStub, running_ses

NAME = "throughput"
PEER = "a Celery task per recipient"
STUCK_S = 90.0
# Looking at the books takes at most one part in so many of the time.
GENTLE = 20
# The share of the people after which a worker has seen all that it keeps: templates, connections, buffers.
SETTLED = 0.1


class Wrong(Exception):
    """The figures would be worth nothing: books that do not balance, people lost or repeated."""


@dataclass
class Run:
    """One schedule, from its instant to its last outcome. Rates are people a second; times are in seconds.

    ``elsewhere``: the share of the machine that went to processes which are none of ours, from 0 to 1.
    """

    per_s: float
    calls_per_s: float
    whole_per_s: float
    first_call_s: float
    materialise_s: float
    cpu_us: dict[str, float]
    elsewhere: float
    rss_growth_mb: float
    tick_late: list[float]


@dataclass
class Service:
    """The running system, and what is needed to measure it."""

    template: MessageTemplate
    stub: RunningStub
    log: Path
    processes: Supervisor
    ticks: fleet.Ticks = field(default_factory=fleet.Ticks)

    def __post_init__(self) -> None:
        self.pids = {
            **fleet.server_pids(),
            "stub": [self.stub.process.pid],
            "clock": [self.processes.pid(name) for name in ("beat", "clock", "materialise")],
        }

    def cpu(self, channel: str) -> dict[str, float]:
        groups = {**self.pids, "workers": [self.processes.pid(channel)]}
        return {name: fleet.cpu_seconds(pids) for name, pids in groups.items()} | {"watching": time.process_time()}

    def run(self, channel: str, *, audience: str, count: int) -> Run:
        """Send to ``count`` people and measure it; ``audience`` names one of ``people.GROUPS``, or everyone."""
        occurrence = self._open(channel, audience, lead=4.0 + count / 20_000)
        watched, materialise_s = _Watched(occurrence, self.processes.pid(channel)), _await_rows(occurrence)
        time.sleep(max(0.0, (occurrence.opens_at - real_now()).total_seconds()))
        began, before, machine = time.time(), self.cpu(channel), fleet.machine_seconds()
        watched.until_settled()
        spent = {name: seconds - before[name] for name, seconds in self.cpu(channel).items()}
        used, there = (after - first for after, first in zip(fleet.machine_seconds(), machine, strict=True))
        self._check(occurrence, channel, count)
        return Run(
            materialise_s=materialise_s,
            cpu_us={name: seconds / count * 1e6 for name, seconds in spent.items()},
            elsewhere=max(0.0, used - sum(spent.values())) / there,
            rss_growth_mb=watched.growth_mb(),
            tick_late=self.ticks.lateness(since=began, until=time.time()),
            **_rates(occurrence, materialise_s),
        )

    def _open(self, channel: str, audience: str, *, lead: float) -> Occurrence:
        now = clock.now()
        clause = {"field": f"attributes.{audience}", "op": "eq", "value": True}
        definition = Definition(
            name=f"Benchmark {channel}",
            channel=channel,
            template_id=self.template.pk,
            schedule_type="once",
            audience_query=clause if audience else {"all": []},
            run_at=(now + timedelta(seconds=lead)).replace(microsecond=0),
        )
        schedule = operations.create(definition=definition, by="benchmark", now=now)
        return _awaited(lambda: Occurrence.objects.filter(schedule=schedule).first(), "the tick opens the occurrence")

    def _check(self, occurrence: Occurrence, channel: str, count: int) -> None:
        """Everyone was sent to once, by the ledger and by what arrived."""
        closed = _awaited(
            lambda: Occurrence.objects.filter(pk=occurrence.pk, closed_at__isnull=False).first(), "closing"
        )
        final = books.of(closed.pk)
        if not final.closes or final.rows["sent"] != count:
            raise Wrong(f"{channel}: {count} people, books {final.rows} {final.differences}")
        arrived = _inbox(occurrence) if channel == "in_app" else _logged(self.log, occurrence)
        if len(arrived) != count or len(set(arrived)) != count:
            raise Wrong(f"{channel}: {count} people, {len(arrived)} messages to {len(set(arrived))} of them")


class _Watched:
    """Looks at an occurrence's books and its workers' memory, until everyone has an outcome."""

    def __init__(self, occurrence: Occurrence, worker: int) -> None:
        self._occurrence, self._worker = occurrence, worker
        self._memory: list[tuple[float, dict[int, float]]] = []

    def until_settled(self) -> None:
        done, moved = 0, time.monotonic()
        while True:
            started = time.monotonic()
            found = books.of(self._occurrence.pk)
            if not found.closes:
                raise Wrong(f"the books do not balance: {found.differences}")
            left = found.rows["pending"] + found.rows["sending"] + found.rows["unknown"]
            if found.targeted - left != done:
                done, moved = found.targeted - left, started
            self._memory.append((done / max(found.targeted, 1), fleet.rss_mb(self._worker)))
            if left == 0:
                return
            if started - moved > STUCK_S:
                raise Wrong(f"nothing moved for {STUCK_S:.0f} s: {found.rows}")
            time.sleep(max(1.0, GENTLE * (time.monotonic() - started)))

    def growth_mb(self) -> float:
        """By how much the worker process that grew most has grown since the first tenth."""
        settled = [memory for share, memory in self._memory if share >= SETTLED] or [self._memory[-1][1]]
        return max(max(memory.get(pid, 0.0) for memory in settled) - first for pid, first in settled[0].items())


def _await_rows(occurrence: Occurrence) -> float:
    """Seconds from the opening to the last row, as seen from outside."""
    _awaited(lambda: Occurrence.objects.filter(pk=occurrence.pk, state="running").first(), "materialising")
    return max(0.0, (real_now() - occurrence.opened_at).total_seconds())


def _awaited(look, what: str):  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + STUCK_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise Wrong(f"{what} did not happen within {STUCK_S:.0f} s; see {fleet.LOGS}")
        time.sleep(0.02)
    return found


def _rates(occurrence: Occurrence, materialise_s: float) -> dict[str, float]:
    ((sent, first, last_call, last),) = query(
        "SELECT count(*), extract(epoch FROM min(called_at) - min(wave_at)), extract(epoch FROM max(called_at)"
        " - min(wave_at)), extract(epoch FROM max(settled_at) - min(wave_at)) FROM delivery_delivery"
        " WHERE day = %s AND occurrence_id = %s AND state = 10",
        [occurrence.day, occurrence.pk],
    )
    return {
        "per_s": sent / float(last),
        "calls_per_s": sent / float(last_call - first or last),
        "whole_per_s": sent / (float(last) + materialise_s),
        "first_call_s": float(first),
    }


def _inbox(occurrence: Occurrence) -> list[int]:
    return [
        pk
        for (pk,) in query("SELECT recipient_id FROM delivery_inboxmessage WHERE occurrence_id = %s", [occurrence.pk])
    ]


def _logged(log: Path, occurrence: Occurrence) -> list[bytes]:
    """The recipients in the stub's log whose delivery belongs to ``occurrence``, as often as they stand there."""
    mark = f'"delivery": "{occurrence.day:%Y%m%d}-{occurrence.pk}-'.encode()
    with log.open("rb") as lines:
        return [line.partition(mark)[2].partition(b'"')[0] for line in lines if mark in line]


def naive_rate(stub: RunningStub, *, count: int, processes: int) -> tuple[float, float]:
    """E-mails a second by the naive way, and its processor time for each in microseconds.

    The tasks are queued beforehand and the first tenth does not count: neither enqueueing nor the start is held
    against it.
    """
    with connection.schema_editor() as editor:
        editor.create_model(naive.Sent)
    for pk in range(1, count + 1):
        naive.send_one.delay(pk)
    worker = fleet.worker(
        "naive", queues=naive.QUEUE, processes=processes, env=fleet.provider_env(stub.url), app="benchmarks.naive"
    )
    servers = [*(pid for pids in fleet.server_pids().values() for pid in pids), stub.process.pid]
    with Supervisor([worker], logs=fleet.LOGS) as running:
        _awaited(lambda: naive.Sent.objects.count() >= count * SETTLED, "naive sending")
        first, before = naive.Sent.objects.count(), fleet.cpu_seconds([*servers, running.pid("naive")])
        _awaited(lambda: naive.Sent.objects.count() >= count, "naive sending")
        spent = fleet.cpu_seconds([*servers, running.pid("naive")]) - before
    ((sent, seconds),) = query(
        "SELECT count(*), extract(epoch FROM max(created_at) - min(created_at)) FROM (SELECT created_at FROM"
        " benchmark_naive_sent WHERE status = 'sent' ORDER BY created_at OFFSET %s) AS steady",
        [int(count * SETTLED)],
    )
    return (sent - 1) / float(seconds), spent / (count - first) * 1e6


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
    return options


@contextmanager
def _running(options: argparse.Namespace) -> Iterator[Service]:
    """Everything up and warm: pools forked, code imported, plans and templates cached."""
    prepare()
    people.insert(options.recipients)
    template = people.save_template(now=clock.now())
    log = ROOT / "accepted.ndjson"
    with running_ses(log=log) as stub:
        processes = fleet.service(ses_url=stub.url, senders=options.senders)
        with Supervisor(processes, logs=fleet.LOGS) as supervisor:
            service = Service(template, stub, log, supervisor)
            for channel in options.channels.split(","):
                service.run(channel, audience="warm", count=people.GROUPS["warm"])
            yield service


def main() -> None:
    options = _options()
    note(f"{options.recipients} recipients; servers and logs below {ROOT}")
    with _running(options) as service:
        naive_per_s, naive_us = (0.0, 0.0)
        if options.naive and "email" in options.channels:
            naive_per_s, naive_us = naive_rate(service.stub, count=options.naive, processes=options.senders)
            emit(NAME, "naive_email", naive_per_s, "per_s")
        for channel in options.channels.split(","):
            runs = _runs(service, channel, options)
            peer = naive_per_s if channel == "email" else 0.0
            _tell(channel, runs, peer, naive_us)
        if "email" in options.channels:
            small = [service.run("email", audience="ten_thousand", count=10_000) for _ in range(options.runs)]
            emit(NAME, "first_call_10k_s", statistics.median(run.first_call_s for run in small), "s")


def _runs(service: Service, channel: str, options: argparse.Namespace) -> list[Run]:
    runs = []
    for number in range(options.runs):
        run = service.run(channel, audience="", count=options.recipients)
        cpu = ", ".join(f"{name} {us:.0f}" for name, us in sorted(run.cpu_us.items()))
        note(
            f"{channel} {number + 1}: {run.per_s:.0f}/s; us of processor time for each: {cpu}; {run.elsewhere:.0%} went elsewhere"
        )
        runs.append(run)
    return runs


def _tell(channel: str, runs: Sequence[Run], naive_per_s: float, naive_us: float) -> None:
    def median(name: str) -> float:
        return statistics.median(getattr(run, name) for run in runs)

    cpu = statistics.median(sum(run.cpu_us.values()) for run in runs)
    with_peer = {"peer": PEER, "ratio": median("per_s") / naive_per_s} if naive_per_s else {}
    cheaper = {"peer": PEER, "ratio": naive_us / cpu} if naive_per_s else {}
    emit(NAME, channel, median("per_s"), "per_s", **with_peer)  # type: ignore[arg-type]
    emit(NAME, f"{channel}_between_calls", median("calls_per_s"), "per_s")
    emit(NAME, f"{channel}_with_materialising", median("whole_per_s"), "per_s")
    emit(NAME, f"{channel}_cpu", cpu, "us_each", **cheaper)  # type: ignore[arg-type]
    emit(NAME, f"{channel}_first_call_s", median("first_call_s"), "s")
    emit(NAME, f"{channel}_worker_rss_growth_mb", max(run.rss_growth_mb for run in runs), "MB")
    late = sorted(seconds for run in runs for seconds in run.tick_late)
    if late:
        emit(NAME, f"{channel}_tick_lateness_p99_s", late[min(len(late) - 1, int(len(late) * 0.99))], "s")


if __name__ == "__main__":
    try:
        main()
    except Wrong as error:
        sys.exit(f"benchmark failed: {error}")

"""One schedule on the running service, measured: how fast, at what cost, with which books."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from django.utils.timezone import now as real_now

from benchmarks import costs, people, processes
from benchmarks.harness import query
from benchmarks.processes import LOGS, Ticks
from benchmarks.stubs import Stubs
from delivery import books
from scheduler_project.local.supervisor import Supervisor
from schedules import clock, operations
from schedules.definition import Definition
from schedules.models import MessageTemplate, Occurrence

STUCK_S = 90.0
# Looking at the books takes at most one part in so many of the time.
GENTLE = 20
# The share of the people after which a worker has seen all that it keeps: templates, connections, buffers.
SETTLED = 0.1

T = TypeVar("T")


class Wrong(Exception):
    """The figures would be worth nothing: books that do not balance, people lost or repeated, nothing moving."""


def ending(main: Callable[[], None]) -> None:
    """Run a benchmark, and end the process with words where it went wrong."""
    try:
        main()
    except Wrong as error:
        sys.exit(f"benchmark failed: {error}")


@dataclass(frozen=True)
class Run:
    """One schedule, from its instant to its last outcome. Rates are people a second, ``late`` and times seconds.

    ``whole_per_s`` counts finding the recipients too. ``elsewhere``: the share of the machine that went to processes
    which are none of ours, from 0 to 1.
    """

    per_s: float
    calls_per_s: float
    whole_per_s: float
    first_call_s: float
    cpu_us: Mapping[str, float]
    elsewhere: float
    rss_growth_mb: float
    ticks_late: list[float]


@dataclass
class Service:
    """The running system, and what is needed to measure it."""

    template: MessageTemplate
    stubs: Stubs
    processes: Supervisor
    ticks: Ticks = field(default_factory=Ticks)

    def __post_init__(self) -> None:
        self._pids = {
            **costs.server_pids(),
            "stub": self.stubs.pids,
            "clock": [self.processes.pid(name) for name in ("beat", "clock", "materialise")],
        }

    def run(self, channel: str, *, audience: str, count: int, cap: int | None = people.MAX_PER_DAY) -> Run:
        """Send to ``count`` people and measure it; ``audience`` names one of ``people.GROUPS``, or is empty for all.

        ``cap``: messages a day that the schedule allows everyone, more than anyone gets here.
        """
        occurrence = self._open(channel, audience, cap, lead=4.0 + count / 20_000)
        materialised_s = _await_rows(occurrence)
        time.sleep(max(0.0, (occurrence.opens_at - real_now()).total_seconds()))
        began, before, machine = time.time(), self.cpu(channel), costs.machine_seconds()
        growth = _watch(occurrence, self.processes.pid(channel))
        spent = {name: seconds - before[name] for name, seconds in self.cpu(channel).items()}
        used, there = (after - first for after, first in zip(costs.machine_seconds(), machine, strict=True))
        self._check(occurrence, channel, count)
        return Run(
            cpu_us={name: seconds / count * 1e6 for name, seconds in spent.items()},
            elsewhere=max(0.0, used - sum(spent.values())) / there,
            rss_growth_mb=growth,
            ticks_late=self.ticks.lateness(since=began, until=time.time()),
            **_rates(occurrence, materialised_s),
        )

    def cpu(self, channel: str) -> dict[str, float]:
        """Seconds of processor time by part of the system."""
        groups = {**self._pids, "workers": [self.processes.pid(channel)]}
        return {name: costs.cpu_seconds(pids) for name, pids in groups.items()} | {"watching": time.process_time()}

    def _open(self, channel: str, audience: str, cap: int | None, *, lead: float) -> Occurrence:
        now = clock.now()
        clause = {"field": f"attributes.{audience}", "op": "eq", "value": True}
        definition = Definition(
            name=f"Benchmark {channel}",
            channel=channel,
            template_id=self.template.pk,
            schedule_type="once",
            audience_query=clause if audience else {"all": []},
            run_at=(now + timedelta(seconds=lead)).replace(microsecond=0),
            max_per_user_per_day=cap,
        )
        schedule = operations.create(definition=definition, by="benchmark", now=now)
        return awaited(lambda: Occurrence.objects.filter(schedule=schedule).first(), "the tick opens the occurrence")

    def _check(self, occurrence: Occurrence, channel: str, count: int) -> None:
        """Everyone was sent to once, by the ledger and by what arrived."""
        awaited(lambda: Occurrence.objects.filter(pk=occurrence.pk, closed_at__isnull=False).exists(), "closing")
        final = books.of(occurrence.pk)
        if not final.closes or final.rows["sent"] != count:
            raise Wrong(f"{channel}: {count} people, books {final.rows} {final.differences}")
        arrived = _inbox(occurrence) if channel == "in_app" else self.stubs.arrived(channel, occurrence)
        if len(arrived) != count or len(set(arrived)) != count:
            raise Wrong(f"{channel}: {count} people, {len(arrived)} messages to {len(set(arrived))} of them")


@contextmanager
def running_service(
    stubs: Stubs, *, template: MessageTemplate, channels: Sequence[str], senders: int
) -> Iterator[Service]:
    """Everything up and warm: pools forked, code imported, plans and templates cached."""
    fleet = processes.service(stubs, senders=senders)
    with Supervisor(fleet, logs=LOGS) as supervisor:
        service = Service(template, stubs, supervisor)
        for channel in channels:
            service.run(channel, audience="warm", count=people.GROUPS["warm"])
        yield service


def awaited(look: Callable[[], T | None], what: str, *, every_s: float = 0.02) -> T:
    """What ``look`` finds, asked until it finds something. Raises ``Wrong``."""
    deadline = time.monotonic() + STUCK_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise Wrong(f"{what} did not happen within {STUCK_S:.0f} s; see {LOGS}")
        time.sleep(every_s)
    return found


def _await_rows(occurrence: Occurrence) -> float:
    """Seconds from the opening to the last row, as seen from outside."""
    awaited(lambda: Occurrence.objects.filter(pk=occurrence.pk, state="running").exists(), "materialising")
    return max(0.0, (real_now() - occurrence.opened_at).total_seconds())


def _watch(occurrence: Occurrence, worker: int) -> float:
    """Look at the books and at the worker's memory until everyone has an outcome; return by how much it has grown."""
    memory: list[tuple[float, dict[int, float]]] = []
    done, moved = 0, time.monotonic()
    while True:
        started = time.monotonic()
        found = books.of(occurrence.pk)
        if not found.closes:
            raise Wrong(f"the books do not balance: {found.differences}")
        left = found.rows["pending"] + found.rows["sending"] + found.rows["unknown"]
        memory.append((1 - left / max(found.targeted, 1), costs.rss_mb(worker)))
        if left == 0:
            return _growth_mb(memory)
        if found.targeted - left != done:
            done, moved = found.targeted - left, started
        if started - moved > STUCK_S:
            raise Wrong(f"nothing moved for {STUCK_S:.0f} s: {found.rows}; see {LOGS}")
        time.sleep(max(1.0, GENTLE * (time.monotonic() - started)))


def _growth_mb(memory: list[tuple[float, dict[int, float]]]) -> float:
    """By how much the process that grew most has grown since the first tenth of the people."""
    settled = [sizes for share, sizes in memory if share >= SETTLED]
    return max(max(sizes.get(pid, 0.0) for sizes in settled) - first for pid, first in settled[0].items())


def _rates(occurrence: Occurrence, materialised_s: float) -> dict[str, float]:
    ((sent, first, last_call, last),) = query(
        "SELECT count(*), extract(epoch FROM min(called_at) - min(wave_at))::float,"
        " extract(epoch FROM max(called_at) - min(wave_at))::float,"
        " extract(epoch FROM max(settled_at) - min(wave_at))::float"
        " FROM delivery_delivery WHERE day = %s AND occurrence_id = %s AND state = 10",
        [occurrence.day, occurrence.pk],
    )
    return {
        "per_s": sent / last,
        "calls_per_s": sent / ((last_call - first) or last),
        "whole_per_s": sent / (last + materialised_s),
        "first_call_s": first,
    }


def _inbox(occurrence: Occurrence) -> list[bytes]:
    rows = query("SELECT recipient_id FROM delivery_inboxmessage WHERE occurrence_id = %s", [occurrence.pk])
    return [str(pk).encode() for (pk,) in rows]

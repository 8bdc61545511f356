"""Two others who send the same e-mails through the same servers: most first versions, and the least that can."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection

from benchmarks import costs, naive, people, processes
from benchmarks.environment import PROJECT
from benchmarks.harness import query
from benchmarks.runs import SETTLED, Wrong, awaited
from benchmarks.stubs import Stubs
from scheduler_project.local.supervisor import Supervisor
from schedules import clock, encryption, operations
from schedules.definition import Definition
from schedules.models import MessageTemplate, Occurrence


def naive_rate(stubs: Stubs, *, count: int, senders: int) -> tuple[float, float]:
    """E-mails a second by the naive way, and its processor time for each in microseconds.

    The tasks are queued beforehand and the first tenth does not count: neither enqueueing nor the start is held
    against it.
    """
    with connection.schema_editor() as editor:
        editor.create_model(naive.Sent)
    for pk in range(1, count + 1):
        naive.send_one.delay(pk)
    worker = processes.naive(stubs, processes=senders, queue=naive.QUEUE)
    with Supervisor([worker], logs=processes.LOGS) as running:
        pids = [*_servers(stubs), running.pid("naive")]
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


@dataclass(frozen=True)
class FloorRun:
    """People a second from the first row written to the last recorded, and microseconds of processor time for each by
    part of the system, once the rows were written."""

    per_s: float
    cpu_us: Mapping[str, float]


class _Child:
    """A process of ``benchmarks.floor``: a request and an answer, a line of JSON each."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.pid = process.pid
        self._process = process

    def ask(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Wrong("the floor's process has ended; its words are above")
        return json.loads(line)


@dataclass
class Floor:
    """The floor's processes, connected and warm."""

    children: list[_Child]
    stubs: Stubs
    template: MessageTemplate

    def run(self, *, count: int, overlap: int) -> FloorRun:
        """Send to everyone, ``overlap`` calls in flight in each process. Raises ``Wrong``."""
        occurrence = self._occurrence(count)
        day, at = occurrence.day.isoformat(), occurrence.occurrence_at.isoformat()
        began = time.monotonic()
        self.children[0].ask({"write": occurrence.pk, "day": day, "at": at})
        batches = self.children[0].answer()["batches"]
        before = self._cpu()
        for number, child in enumerate(self.children):
            share = batches[number :: len(self.children)]
            child.ask({"send": occurrence.pk, "day": day, "batches": share, "overlap": overlap})
        sent = sum(child.answer()["sent"] for child in self.children)
        per_s = count / (time.monotonic() - began)
        spent = {name: (seconds - before[name]) / count * 1e6 for name, seconds in self._cpu().items()}
        ((rows, counted),) = query(
            "SELECT (SELECT count(*) FROM delivery_delivery WHERE day = %s AND occurrence_id = %s AND state = 10),"
            " (SELECT sum(sent) FROM delivery_batch WHERE occurrence_id = %s)",
            [occurrence.day, occurrence.pk, occurrence.pk],
        )
        arrived = self.stubs.arrived("email", occurrence)
        if not count == sent == rows == counted == len(arrived) == len(set(arrived)):
            raise Wrong(
                f"the floor sent {sent} of {count}: rows {rows}, counted {counted}, arrived {len(set(arrived))}"
            )
        return FloorRun(per_s, spent)

    def _cpu(self) -> dict[str, float]:
        """Seconds of processor time by part of the system."""
        groups = {**costs.server_pids(), "stub": self.stubs.pids, "loops": [child.pid for child in self.children]}
        return {name: costs.cpu_seconds(pids) for name, pids in groups.items()}

    def _occurrence(self, count: int) -> Occurrence:
        now = clock.now()
        definition = Definition(
            name="The floor",
            channel="email",
            template_id=self.template.pk,
            schedule_type="cron",
            cron="0 9 * * *",
            audience_query={"all": []},
        )
        schedule = operations.create(definition=definition, by="benchmark", now=now, draft=True)
        return Occurrence.objects.create(
            schedule=schedule,
            occurrence_at=now,
            state="finished",
            version=1,
            template_version=1,
            opens_at=now,
            ends_at=now + timedelta(days=7),
            targeted=count,
            cursor="end",
            opened_at=now,
            materialised_at=now,
            closed_at=now,
        )


@contextmanager
def running_floor(stubs: Stubs, *, template: MessageTemplate, senders: int) -> Iterator[Floor]:
    """So many processes of the floor, up and connected."""
    given = {
        "database": settings.DATABASE_URL,
        "counters": settings.COUNTERS_URL,
        "ses": stubs.ses.url,
        "region": settings.AWS_REGION,
        "sender": settings.EMAIL_FROM,
        "templates": {"subject": people.SUBJECT, "text": people.TEXT, "html": people.HTML},
        "key": encryption.from_settings().encryption[0].hex(),
    }
    with ExitStack() as stack:
        children = []
        for _ in range(senders):
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.floor"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=PROJECT,
                env={"PATH": "/usr/bin:/bin", **processes.provider_env(stubs)},
            )
            stack.enter_context(process)  # which closes its input, whereupon it ends
            child = _Child(process)
            child.ask(given)
            child.answer()
            children.append(child)
        yield Floor(children, stubs, template)


def _servers(stubs: Stubs) -> list[int]:
    return [*(pid for pids in costs.server_pids().values() for pid in pids), *stubs.pids]

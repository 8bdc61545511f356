"""How late messages go out when a thousand schedules are due in the same second.

    python -m benchmarks.storm [--schedules 1000] [--each 20] [--runs 3] [--senders 3]

Every schedule has an audience of its own, all of them one instant. They are created by the operation that serves every
door, then opened, materialised and sent by the real service through the SES stub. Lateness is the provider call's, by
the ledger: ``called_at`` less the instant promised. The stub's own log must agree, and name everyone exactly once.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.db import transaction
from django.utils.timezone import now as real_now

from benchmarks import people
from benchmarks.harness import emit, note, prepare, query
from benchmarks.processes import LOGS
from benchmarks.runs import STUCK_S, Service, Wrong, ending, running_service
from benchmarks.stubs import running_stubs
from delivery import books
from schedules import clock, operations
from schedules.definition import Definition
from schedules.models import MessageTemplate

NAME = "storm"
# Seconds before its instant at which the making of a storm begins: a base, and so much for each schedule. The rest is
# left for materialising, as after a campaign that was planned long ago.
LEAD_S, LEAD_EACH_S = 15.0, 0.03
# Seconds by which ledger and stub may disagree: the way there, and what the stub does before it looks at its clock.
WAY_S = 1.0


@dataclass(frozen=True)
class Storm:
    """Schedules due at ``at``."""

    at: datetime
    schedule_ids: list[int]


@dataclass(frozen=True)
class Lateness:
    """Seconds from the instant promised to the provider call, and to the stub's acceptance (``accepted_p99``).

    ``materialise``: from the first occurrence opened to the last one's rows. ``cpu_us``: microseconds of processor time
    for each person, from the instant on.
    """

    p50: float
    p99: float
    worst: float
    accepted_p99: float
    materialise: float
    cpu_us: float


def _create(template: MessageTemplate, schedules: int) -> Storm:
    """All in one transaction, so that the tick finds them at once."""
    began = clock.now()
    at = (began + timedelta(seconds=LEAD_S + LEAD_EACH_S * schedules)).replace(microsecond=0)
    with transaction.atomic():
        storm = Storm(at, [keep_schedule(template, at, cell) for cell in range(schedules)])
    note(f"{schedules} schedules created in {(clock.now() - began).total_seconds():.0f} s")
    return storm


def keep_schedule(template: MessageTemplate, at: datetime, cell: int) -> int:
    """Make a schedule that is due at ``at``, to the people of one cell; return its id."""
    definition = Definition(
        name=f"Storm {cell}",
        channel="email",
        template_id=template.pk,
        schedule_type="once",
        audience_query={"field": "attributes.cell", "op": "eq", "value": cell},
        run_at=at,
    )
    return operations.create(definition=definition, by="benchmark", now=clock.now()).pk


def _weather(service: Service, storm: Storm, *, count: int) -> Lateness:
    """Wait for the storm, then for its last outcome, and measure it."""
    time.sleep(max(0.0, (storm.at - real_now()).total_seconds()))
    occurrence_ids = [
        pk for (pk,) in query("SELECT id FROM schedules_occurrence WHERE schedule_id = ANY(%s)", [storm.schedule_ids])
    ]
    before = service.cpu("email")
    if len(occurrence_ids) != len(storm.schedule_ids):
        raise Wrong(f"{len(storm.schedule_ids)} schedules are due, {len(occurrence_ids)} have been opened")
    await_end(occurrence_ids)
    spent = {name: (seconds - before[name]) / count * 1e6 for name, seconds in service.cpu("email").items()}
    note("us of processor time for each: " + ", ".join(f"{name} {us:.0f}" for name, us in sorted(spent.items())))
    ((sent, early, quantiles),) = query(
        "SELECT count(*), min(late), percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY late) FROM ("
        "SELECT extract(epoch FROM called_at - wave_at)::float AS late FROM delivery_delivery"
        " WHERE day = %s AND occurrence_id = ANY(%s) AND state = 10) AS sent",
        [storm.at.date(), occurrence_ids],
    )
    ((materialise,),) = query(
        "SELECT extract(epoch FROM max(materialised_at) - min(opened_at))::float"
        " FROM schedules_occurrence WHERE id = ANY(%s)",
        [occurrence_ids],
    )
    if sent != count or early < 0:
        raise Wrong(f"{count} people were due, {sent} were sent to, the first {early:.3f} s after the instant")
    if unbalanced := [b.differences for b in books.every(since=storm.at) if not b.closes]:
        raise Wrong(f"the books do not balance: {unbalanced[0]}")
    taken = accepted(service.stubs.logs["email"], set(occurrence_ids), count=count)
    late = sorted((at - storm.at).total_seconds() for ats in taken.values() for at in ats)
    p50, p99, worst = quantiles
    accepted_p99 = late[int(len(late) * 0.99)]
    if not -0.01 <= accepted_p99 - p99 <= WAY_S:
        raise Wrong(f"p99 is {p99:.2f} s by the ledger and {accepted_p99:.2f} s by the stub")
    return Lateness(p50, p99, worst, accepted_p99, materialise, sum(spent.values()))


def await_end(occurrence_ids: list[int]) -> None:
    """Until all of them are closed. Raises ``Wrong`` when for a long time none is any more."""
    left, moved = len(occurrence_ids), time.monotonic()
    while left:
        time.sleep(1.0)
        ((now_left,),) = query(
            "SELECT count(*) FROM schedules_occurrence WHERE id = ANY(%s) AND closed_at IS NULL", [occurrence_ids]
        )
        if now_left < left:
            left, moved = now_left, time.monotonic()
        if time.monotonic() - moved > STUCK_S:
            raise Wrong(f"{left} of {len(occurrence_ids)} schedules do not come to an end; see {LOGS}")


def accepted(log: Path, occurrence_ids: set[int], *, count: int) -> dict[int, list[datetime]]:
    """By occurrence, when the stub took each of its messages. Raises ``Wrong``."""
    taken, seen = defaultdict(list), set()
    with log.open() as lines:
        for line in lines:
            message = json.loads(line)
            _, occurrence_id, recipient_id = message["delivery"].split("-")
            if int(occurrence_id) in occurrence_ids:
                taken[int(occurrence_id)].append(datetime.fromisoformat(message["at"]))
                seen.add(recipient_id)
    messages = sum(map(len, taken.values()))
    if messages != count or len(seen) != count:
        raise Wrong(f"{count} people were due, the stub took {messages} messages to {len(seen)} of them")
    return taken


def _tell(found: Sequence[Lateness]) -> None:
    for figure, name in [
        ("p99_lateness_s", "p99"),
        ("p50_lateness_s", "p50"),
        ("max_lateness_s", "worst"),
        ("p99_accepted_s", "accepted_p99"),
        ("materialise_s", "materialise"),
    ]:
        emit(NAME, figure, statistics.median(getattr(each, name) for each in found), "s")
    emit(NAME, "cpu", statistics.median(each.cpu_us for each in found), "us_each")


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="Many schedules at one instant.")
    parser.add_argument("--schedules", type=int, default=1_000, help="schedules due at the same instant")
    parser.add_argument("--each", type=int, default=people.CELL, help="recipients of each schedule")
    parser.add_argument("--runs", type=int, default=3, help="storms of which the median is told")
    parser.add_argument("--senders", type=int, default=3, help="worker processes of the channel")
    options = parser.parse_args()
    count = options.schedules * options.each
    prepare()
    people.insert(max(count, people.GROUPS["warm"]), cell=options.each)
    template = people.save_template(now=clock.now())
    with (
        running_stubs() as stubs,
        running_service(stubs, template=template, channels=["email"], senders=options.senders) as service,
    ):
        found = []
        for _ in range(options.runs):
            storm = _create(template, options.schedules)
            found.append(_weather(service, storm, count=count))
            note(f"{found[-1]}")
    _tell(found)


if __name__ == "__main__":
    ending(main)

"""How soon after its instant a run's first provider call starts, while hundreds of thousands of schedules are active.

    python -m benchmarks.punctuality [--schedules 500000] [--runs 300] [--each 20] [--senders 3]

The runs are due one after another, about a second apart and at no particular part of a second, each with people of its
own, who have been found beforehand. All the other schedules are due tomorrow or later: they weigh on each tick and on
nothing else. The instant of a call is the ledger's ``called_at``; ``first_accepted_...`` is when the stub took the
first message by its own clock, the way there and its own work included, and the two must agree.
"""

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.utils.timezone import now as real_now

from benchmarks import people, tick
from benchmarks.harness import emit, note, prepare, query
from benchmarks.runs import Service, Wrong, ending, running_service
from benchmarks.storm import LEAD_EACH_S, LEAD_S, WAY_S, accepted, await_end, keep_schedule
from benchmarks.stubs import running_stubs
from delivery import books
from schedules import clock
from schedules.models import MessageTemplate

NAME = "punctuality"
# Seconds by which the ledger may be ahead of the stub: a worker asks the database for the time, and takes the answer to
# be as old as half of the way there and back.
CLOCKS_S = 0.05


@dataclass(frozen=True)
class Late:
    """Milliseconds from each run's instant to its first call, and to the stub's acceptance, each sorted."""

    called: list[float]
    accepted: list[float]


def _create(template: MessageTemplate, runs: int) -> list[int]:
    """Schedules that are due one after another; their ids."""
    rng = random.Random(runs)
    first = clock.now() + timedelta(seconds=LEAD_S + LEAD_EACH_S * runs)
    with transaction.atomic():
        return [
            keep_schedule(template, first + timedelta(milliseconds=1000 * number + rng.randrange(1000)), number)
            for number in range(runs)
        ]


def _measure(service: Service, schedule_ids: Sequence[int], *, each: int) -> Late:
    """Wait for the runs, and measure them. Raises ``Wrong``."""
    ((first, last),) = query(
        "SELECT min(run_at), max(run_at) FROM schedules_schedule WHERE id = ANY(%s)", [schedule_ids]
    )
    time.sleep(max(0.0, (last - real_now()).total_seconds()))
    occurrences = query("SELECT id FROM schedules_occurrence WHERE schedule_id = ANY(%s)", [schedule_ids])
    ids = [pk for (pk,) in occurrences]
    await_end(ids)
    _check(ids, first, count=len(schedule_ids), each=each)
    calls = query(
        "SELECT d.occurrence_id, extract(epoch FROM min(d.called_at) - o.opens_at)::float, min(d.called_at)"
        " FROM delivery_delivery d JOIN schedules_occurrence o ON o.id = d.occurrence_id"
        " WHERE d.day = ANY(%s) AND d.occurrence_id = ANY(%s) GROUP BY d.occurrence_id, o.opens_at",
        [[first.date(), last.date()], ids],
    )
    taken = accepted(service.stubs.logs["email"], set(ids), count=len(ids) * each)
    ways = [(min(taken[pk]) - called_at).total_seconds() for pk, _, called_at in calls]
    if not (min(ways) >= -CLOCKS_S and max(ways) <= WAY_S):
        raise Wrong(f"the stub took first messages {min(ways):.3f} to {max(ways):.3f} s after the ledger's instants")
    late = [seconds * 1000 for _, seconds, _ in calls]
    return Late(sorted(late), sorted(each + way * 1000 for each, way in zip(late, ways, strict=True)))


def _check(ids: Sequence[int], first: datetime, *, count: int, each: int) -> None:
    ((opened, prepared, sent),) = query(
        "SELECT count(*), count(*) FILTER (WHERE materialised_at < opens_at), sum(targeted)::int"
        " FROM schedules_occurrence WHERE id = ANY(%s)",
        [ids],
    )
    if (opened, prepared, sent) != (count, count, count * each):
        raise Wrong(f"of {count} runs {opened} were opened and {prepared} prepared in time, for {sent} people")
    if unbalanced := [book.differences for book in books.every(since=first) if not book.closes]:
        raise Wrong(f"the books do not balance: {unbalanced[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="The first call of a run.")
    parser.add_argument("--schedules", type=int, default=500_000, help="active besides, none of them due")
    parser.add_argument("--runs", type=int, default=300, help="runs, one a second")
    parser.add_argument("--each", type=int, default=people.CELL, help="recipients of each run")
    parser.add_argument("--senders", type=int, default=3, help="worker processes of the channel")
    options = parser.parse_args()
    prepare()
    people.insert(max(options.runs * options.each, people.GROUPS["warm"]), cell=options.each)
    template = people.save_template(now=clock.now())
    note(f"inserting {options.schedules} schedules")
    tick.insert(options.schedules, template=template)
    with (
        running_stubs() as stubs,
        running_service(stubs, template=template, channels=["email"], senders=options.senders) as service,
    ):
        late = _measure(service, _create(template, options.runs), each=options.each)
    if late.called[0] < 0:
        raise Wrong(f"the first call came {-late.called[0]:.1f} ms before its instant")
    emit(NAME, "first_call_p50_ms", late.called[len(late.called) // 2], "ms")
    emit(NAME, "first_call_p99_ms", _p99(late.called), "ms")
    emit(NAME, "first_call_max_ms", late.called[-1], "ms")
    emit(NAME, "first_accepted_p99_ms", _p99(late.accepted), "ms")


def _p99(ordered: Sequence[float]) -> float:
    return ordered[int(len(ordered) * 0.99)]


if __name__ == "__main__":
    ending(main)

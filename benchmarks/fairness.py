"""How long small schedules wait for a huge one on the same channel, and how two equal ones share it.

    python -m benchmarks.fairness [--people 1000000] [--small 20] [--each 100] [--rate 50] [--ahead 60] [--senders 3]

The account lets ``--rate`` people a second through (0: any number). First the small schedules are sent alone; then the
huge one, to everybody, is let run for ``--ahead`` seconds, and the same small ones are due at one instant beside it;
after which it is cancelled. Lateness is the provider call's, by the ledger: ``called_at`` less the instant promised. At
last two schedules as large as all the small ones together compete, of which one began earlier; their shares are those
of the people called from the second one's instant on, until that is through half of its own. The books are checked.
"""

import argparse
import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils.timezone import now as real_now

from benchmarks import people
from benchmarks.harness import emit, note, prepare, query
from benchmarks.runs import STUCK_S, Wrong, awaited, ending, running_service
from benchmarks.stubs import running_stubs
from delivery import books
from schedules import clock, operations
from schedules.definition import Definition
from schedules.models import MessageTemplate, Occurrence

NAME = "fairness"
# Seconds before their instant at which schedules are made.
LEAD_S = 6.0
# Of two equal schedules one is so many seconds ahead.
AHEAD_S = 10.0


@dataclass(frozen=True)
class Lateness:
    """Seconds from the instant promised to the provider call."""

    p50: float
    p99: float
    worst: float


def _schedule(template: MessageTemplate, name: str, query: Any, *, lead: float) -> tuple[int, datetime]:
    """Its id and its instant."""
    now = clock.now()
    at = (now + timedelta(seconds=lead)).replace(microsecond=0)
    definition = Definition(
        name=name,
        channel="email",
        template_id=template.pk,
        schedule_type="once",
        audience_query=query,
        run_at=at,
    )
    return operations.create(definition=definition, by="benchmark", now=now).pk, at


def _cells(first: int, count: int) -> Any:
    return {"field": "attributes.cell", "op": "in", "value": list(range(first, first + count))}


def _small(template: MessageTemplate, number: int, *, lead: float) -> list[int]:
    made = [_schedule(template, f"Small {cell}", _cells(cell, 1), lead=lead) for cell in range(number)]
    return [pk for pk, _at in made]


def _await_end(schedule_ids: list[int], *, people: int) -> None:
    """Until everybody of them has an outcome. Raises ``Wrong`` where nothing moves any more."""
    done, moved = 0, time.monotonic()
    while done < people:
        time.sleep(0.5)
        now_done = _called(schedule_ids)
        if now_done > done:
            done, moved = now_done, time.monotonic()
        if time.monotonic() - moved > STUCK_S:
            raise Wrong(f"{done} of {people} people were called, and nobody else is")


def _called(schedule_ids: list[int], *, since: datetime | None = None) -> int:
    ((found,),) = query(
        "SELECT count(*) FROM schedules_occurrence o JOIN delivery_delivery d"
        " ON d.day = (o.occurrence_at AT TIME ZONE 'UTC')::date AND d.occurrence_id = o.id"
        " WHERE o.schedule_id = ANY(%s) AND d.called_at >= %s",
        [schedule_ids, since or datetime(1970, 1, 1, tzinfo=real_now().tzinfo)],
    )
    return int(found)


def _lateness(schedule_ids: list[int]) -> Lateness:
    ((quantiles,),) = query(
        "SELECT percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM called_at - wave_at))"
        " FROM schedules_occurrence o JOIN delivery_delivery d"
        " ON d.day = (o.occurrence_at AT TIME ZONE 'UTC')::date AND d.occurrence_id = o.id"
        " WHERE o.schedule_id = ANY(%s)",
        [schedule_ids],
    )
    return Lateness(*map(float, quantiles))


def _round(template: MessageTemplate, *, small: int, each: int, label: str) -> Lateness:
    ids = _small(template, small, lead=LEAD_S)
    _await_end(ids, people=small * each)
    found = _lateness(ids)
    note(f"{label}: {found}")
    return found


def _shares(template: MessageTemplate, *, cells: int, each: int) -> float:
    """Of the people called while both compete, the share of the one that began earlier."""
    early, _at = _schedule(template, "Early", _cells(0, 2 * cells), lead=LEAD_S)
    late, at = _schedule(template, "Late", _cells(2 * cells, 2 * cells), lead=LEAD_S + AHEAD_S)
    _await_end([late], people=cells * each)
    first, second = _called([early], since=at), _called([late], since=at)
    note(f"while both ran {first} and {second} people were called")
    _cancel(early)
    _cancel(late)
    return first / (first + second)


def _cancel(schedule_id: int) -> None:
    operations.cancel(schedule_id=schedule_id, by="benchmark", now=clock.now())


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{NAME}", description="Small schedules beside a huge one."
    )
    parser.add_argument("--people", type=int, default=1_000_000, help="recipients of the huge schedule")
    parser.add_argument("--small", type=int, default=20, help="small schedules")
    parser.add_argument("--each", type=int, default=100, help="recipients of each")
    parser.add_argument("--rate", type=float, default=50, help="people a second that the account allows; 0: any number")
    parser.add_argument("--ahead", type=float, default=60, help="seconds by which the huge one begins earlier")
    parser.add_argument("--senders", type=int, default=3, help="worker processes of the channel")
    options = parser.parse_args()
    if options.rate:
        os.environ["EMAIL_MOST_PER_S"] = str(options.rate)
    began = clock.now()
    prepare()
    people.insert(max(options.people, 4 * options.small * options.each), cell=options.each)
    template = people.save_template(now=clock.now())
    with (
        running_stubs() as stubs,
        running_service(stubs, template=template, channels=[], senders=options.senders),
    ):
        _round(template, small=2, each=options.each, label="warm")
        alone = _round(template, small=options.small, each=options.each, label="alone")
        huge, at = _schedule(template, "Huge", {"all": []}, lead=LEAD_S + options.people / 20_000)
        awaited(lambda: Occurrence.objects.filter(schedule=huge, state="running").exists(), "materialising")
        time.sleep(max(0.0, (at - real_now()).total_seconds() + options.ahead - LEAD_S))
        beside = _round(template, small=options.small, each=options.each, label="beside the huge one")
        note(f"of the huge one {_called([huge])} people were called meanwhile")
        _cancel(huge)
        share = _shares(template, cells=options.small, each=options.each)
        if wrong := [each.differences for each in books.every(since=began) if each.differences]:
            raise Wrong(f"the books do not balance: {wrong[0]}")
    for figure in ("p50", "p99"):
        emit(NAME, f"small_alone_{figure}_lateness_s", getattr(alone, figure), "s")
        emit(NAME, f"small_beside_{figure}_lateness_s", getattr(beside, figure), "s")
    emit(NAME, "share_of_the_earlier_of_two_equal", share, "of_1")


if __name__ == "__main__":
    ending(main)

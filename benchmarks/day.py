"""A day of ten million deliveries over half a million schedules, as fast as this machine is.

    python -m benchmarks.day [--deliveries 10000000] [--schedules 500000] [--idle 0] [--senders 2] [--seed 1]

The test clock steps from due instant to due instant. In between nothing is due, so only idleness is left out: while
anything is, the clock runs as fast as it does in life, and lateness by it are real seconds. ``benchmarks.traffic`` says
who gets what when. Everything else is as in production: workers, beat, stubs of the providers, PostgreSQL that waits
for each commit, Redis. What goes by the clock on the wall there does so here: the sweep, figures and autovacuum have a
twentieth of the time that a day gives them. Housekeeping comes once in each hour of the test clock. Its turn after
midnight drops the ledger's oldest day, which has a row for each of the people.

Messages at everyone's own hour end 26 hours after they began, so the last of the day goes out on the day after next.
"""

import argparse
import os
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from django.conf import settings

from benchmarks import costs, past, people, processes
from benchmarks.environment import ROOT
from benchmarks.harness import emit, note, prepare, query
from benchmarks.runs import Wrong, awaited, ending
from benchmarks.stubs import Stubs, running_stubs
from benchmarks.traffic import Chosen, Traffic
from benchmarks.watching import Watch, dead_shares
from delivery import advance, partitions, tasks
from delivery.models import State
from scheduler_project.local.supervisor import Supervisor
from schedules import clock
from schedules.models import MessageTemplate

NAME = "day"
HOUR = timedelta(hours=1)
# Seconds between two turns of the tick: those of an idle second are left out.
TURN_S = 0.1
# Messages to one person in a day.
EACH = 20


@dataclass(frozen=True)
class Played:
    """A day that is over. ``seconds`` are real ones, ``cpu_s`` seconds of processor time by part of the system;
    ``dropped``: partitions that are past their retention, ``made`` those of days to come."""

    seconds: float
    steps: int
    cpu_s: dict[str, float]
    watch: Watch
    grown_mb: float
    made: int
    dropped: int


_OPEN = "SELECT 1 FROM schedules_occurrence WHERE closed_at IS NULL LIMIT 1"


@dataclass
class Day:
    """``pids``: of the service's processes, by name."""

    begins: datetime
    old: date
    pids: Mapping[str, int]
    stubs: Stubs

    def __post_init__(self) -> None:
        clock_s = ("beat", "clock")
        groups = {name: [pid] for name, pid in self.pids.items() if name not in clock_s}
        groups |= {"clock": [self.pids[name] for name in clock_s], **costs.server_pids(), "stub": self.stubs.pids}
        self._watch = Watch(groups)
        self._next_turn = self.begins

    def play(self) -> Played:
        """From midnight until everybody has an outcome. Raises ``Wrong``."""
        before, size, days = self._cpu(), _database_mb(), _partitions()
        began, steps = time.monotonic(), 0
        until = self.begins + timedelta(hours=24 + 26 + 1)
        for instant in advance.advance(to=until, drive=_drive):
            steps += 1
            self._watch.look()
            if instant >= self._next_turn:
                tasks.housekeeping()
                self._next_turn = instant.replace(minute=0, second=0, microsecond=0) + HOUR
                note(f"{instant:%d %b %H:%M}: {time.monotonic() - began:.0f} s, {_runs()}")
        seconds = time.monotonic() - began
        awaited(lambda: not query(_OPEN), "closing")
        self._watch.look(now=True)
        spent = {name: after - before[name] for name, after in self._cpu().items()}
        after = _partitions()
        if f"delivery_delivery_{self.old:%Y%m%d}" in after:
            raise Wrong(f"the ledger's day {self.old}, past its retention, has not been dropped")
        grown = _database_mb() - size
        return Played(seconds, steps, spent, self._watch, grown, len(after - days), len(days - after))

    def _cpu(self) -> dict[str, float]:
        """``steps``: this process's own, which steps the clock and does the tick's work at each step."""
        spent = {name: costs.cpu_seconds(pids) for name, pids in self._watch.groups.items()}
        return {**spent, "steps": time.process_time()}


def _drive() -> None:
    """The tick, and a moment for the others: what asks whether all is done costs the database something."""
    tasks.tick()
    time.sleep(TURN_S)


def _tomorrow() -> datetime:
    """Set the clock to the next midnight (UTC), while there is nothing that could be due; return it."""
    midnight = (clock.now() + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    clock.advance_to(midnight)
    return midnight


def _keep_old_day(template: MessageTemplate, begins: datetime) -> date:
    """A day of the ledger whose retention ends at the next midnight, with a row for each of the people."""
    old = begins - timedelta(days=settings.LEDGER_RETENTION_DAYS)
    partitions.ensure(first=old.date(), last=old.date())
    past.fill(occurrences=1, template=template, now=old + timedelta(hours=13))
    return old.date()


def _tell_mix(traffic: Traffic, chosen: Sequence[Chosen]) -> None:
    scans = [each.size for each in chosen if each.is_scan]
    sizes = sorted(each.size for each in chosen)
    note(
        f"{len(chosen)} of {traffic.schedules} schedules fire, to {sum(sizes)} people in all:"
        f" {traffic.regions} regions, {traffic.segments} segments, the rest of {traffic.cell};"
        f" {len(scans)} audiences with {sum(scans)} people are scans, the others are indexable"
    )
    emit(NAME, "scans", len(scans), "schedules")
    emit(NAME, "audience_p50", sizes[len(sizes) // 2], "people")
    emit(NAME, "audience_p99", sizes[int(len(sizes) * 0.99)], "people")
    emit(NAME, "audience_max", sizes[-1], "people")


def _runs() -> str:
    ((done, left),) = query("SELECT count(*), count(*) FILTER (WHERE closed_at IS NULL) FROM schedules_occurrence")
    return f"{done} runs, {left} of them open"


def _database_mb() -> float:
    ((size,),) = query("SELECT pg_database_size(current_database())")
    return float(size) / 2**20


def _partitions() -> set[str]:
    return {name for (name,) in query("SELECT relname FROM pg_class WHERE relname ~ '^delivery_delivery_[0-9]{8}$'")}


_COUNTS = ", ".join(f"sum({state.label})" for state in State)
_ROWS = ", ".join(f"count(*) FILTER (WHERE state = {int(state)})" for state in State)
_UNBALANCED = f"""
WITH counted AS (
    SELECT occurrence_id, ARRAY[{_COUNTS}]::bigint[] AS people
    FROM delivery_batch WHERE day >= %(day)s GROUP BY 1
), rows AS (
    SELECT occurrence_id, ARRAY[{_ROWS}] AS people
    FROM delivery_delivery WHERE day >= %(day)s GROUP BY 1
)
SELECT count(*), COALESCE(sum(o.targeted), 0)::bigint, count(*) FILTER (WHERE o.closed_at IS NULL),
       count(*) FILTER (WHERE o.state = 'missed'),
       count(*) FILTER (WHERE c.people IS DISTINCT FROM r.people
                           OR o.targeted IS DISTINCT FROM (SELECT sum(each) FROM unnest(r.people) AS each))
FROM schedules_occurrence o LEFT JOIN counted c ON c.occurrence_id = o.id LEFT JOIN rows r ON r.occurrence_id = o.id
WHERE o.occurrence_at >= %(day)s
"""


def check(traffic: Traffic, chosen: Sequence[Chosen], begins: datetime, logs: Mapping[str, Path]) -> None:
    """The books of every run close, nobody was lost, and what the stubs took is what the ledger calls sent.

    Raises ``Wrong``.
    """
    ((runs, targeted, still_open, missed, unbalanced),) = query(_UNBALANCED, {"day": begins.date()})
    if (runs, targeted, still_open, missed, unbalanced) != (traffic.firing, sum(c.size for c in chosen), 0, 0, 0):
        raise Wrong(
            f"{traffic.firing} runs to {sum(c.size for c in chosen)} people were due; {runs} to {targeted} were opened,"
            f" {still_open} are open, {missed} were missed, the books of {unbalanced} do not balance"
        )
    for channel, log in logs.items():
        ((sent,),) = query(
            "SELECT count(*) FROM delivery_delivery d JOIN schedules_occurrence o ON o.id = d.occurrence_id"
            " JOIN schedules_schedule s ON s.id = o.schedule_id"
            " WHERE d.day >= %s AND d.state = %s AND s.channel = %s",
            [begins.date(), int(State.SENT), channel],
        )
        arrived = _arrived(log)
        if len(arrived) != sent or any(one == other for one, other in pairwise(arrived)):
            raise Wrong(
                f"{channel}: {sent} were sent by the ledger, {len(arrived)} messages arrived, some perhaps twice"
            )


def _arrived(log: Path) -> Sequence[int]:
    """Each message that a stub took, as a number of its occurrence and recipient; sorted."""
    found, mark = array("Q"), b'"delivery": "'
    with log.open("rb") as lines:
        for line in lines:
            _, occurrence, recipient = line.partition(mark)[2].partition(b'"')[0].split(b"-")
            found.append(int(occurrence) << 32 | int(recipient))
    return sorted(found)


_LATENESS = f"""
SELECT count(*), percentile_cont(ARRAY[0.5, 0.95, 0.99, 1]) WITHIN GROUP (ORDER BY late) FROM (
    SELECT extract(epoch FROM called_at - wave_at)::float AS late FROM delivery_delivery
    WHERE day >= %(day)s AND state = {int(State.SENT)}) AS sent
"""
_BUSIEST = f"""
SELECT max(people) FROM (
    SELECT count(*) AS people FROM delivery_delivery WHERE day >= %(day)s AND state = {int(State.SENT)}
    GROUP BY date_bin('10 seconds', called_at, '2000-01-01+00')) AS slots
"""
_OUTCOMES = "SELECT state, count(*) FROM delivery_delivery WHERE day >= %(day)s GROUP BY 1 ORDER BY 1"


def _tell(played: Played, begins: datetime) -> None:
    of = {"day": begins.date()}
    outcomes = {State(state).label: people for state, people in query(_OUTCOMES, of)}
    note(f"{played.steps} steps; outcomes: {outcomes}; partitions: {played.made} made, {played.dropped} dropped")
    people_, watch = sum(outcomes.values()), played.watch
    emit(NAME, "minutes", played.seconds / 60, "min")
    emit(NAME, "deliveries", people_, "people")
    emit(NAME, "per_s", people_ / played.seconds, "per_s")
    ((sent, quantiles),) = query(_LATENESS, of)
    ((busiest,),) = query(_BUSIEST, of)
    emit(NAME, "busiest_per_s", busiest / 10, "per_s")
    for name, seconds in zip(("p50", "p95", "p99", "max"), quantiles, strict=True):
        emit(NAME, f"{name}_lateness_s", seconds, "s")
    emit(NAME, "sent", sent, "people")
    for name, seconds in sorted(played.cpu_s.items()):
        emit(NAME, f"{name}_cpu_s_per_million", seconds / people_ * 1e6, "s")
    emit(NAME, "cpu_s_per_million", sum(played.cpu_s.values()) / people_ * 1e6, "s")
    for name, size in sorted(watch.rss_mb.items()):
        emit(NAME, f"{name}_rss_mb", size, "MB")
    for name, size in watch.redis_mb.items():
        emit(NAME, f"redis_{name}_mb", size, "MB")
    emit(NAME, "database_mb", _database_mb(), "MB")
    emit(NAME, "database_grown_mb_per_million", played.grown_mb / people_ * 1e6, "MB")
    emit(NAME, "wal_mb_per_million", watch.wal_mb() / people_ * 1e6, "MB")
    emit(NAME, "ledger_bytes_per_row", _ledger_bytes(of) / people_, "bytes")
    runs, seconds = watch.autovacuum()
    emit(NAME, "autovacuum_runs", runs, "runs")
    emit(NAME, "autovacuum_s", seconds, "s")
    left = dead_shares()
    for name, share in sorted(watch.dead.items()):
        emit(NAME, f"dead_{name}_most", share, "share")
        emit(NAME, f"dead_{name}_at_the_end", left.get(name, 0.0), "share")
    emit(NAME, "partitions_dropped", played.dropped, "days")


def _ledger_bytes(of: Mapping[str, date]) -> int:
    """Of the partitions of the day and those after it, indexes included."""
    ((size,),) = query(
        "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relname ~ '^delivery_delivery_[0-9]{8}$'"
        " AND relname >= 'delivery_delivery_' || to_char(%(day)s, 'YYYYMMDD')",
        of,
    )
    return int(size)


def main() -> None:
    options = _options()
    # A setting of all processes, before any of them has asked for the time.
    os.environ["TEST_CLOCK"] = "1"
    settings.TEST_CLOCK = True
    traffic = Traffic(
        deliveries=options.deliveries,
        schedules=options.schedules,
        idle=options.idle,
        people=max(options.deliveries // EACH, 100),
        seed=options.seed,
    )
    note(f"{traffic}; servers and logs below {ROOT}")
    prepare()
    with running_stubs() as stubs:
        begins = _tomorrow()
        traffic.insert_people()
        template = people.save_template(now=clock.now())
        old = _keep_old_day(template, begins)
        chosen = traffic.insert_schedules(template=template.pk, now=begins)
        _tell_mix(traffic, chosen)
        fleet = processes.service(stubs, senders=options.senders)
        with Supervisor(fleet, logs=processes.LOGS) as supervisor:
            day = Day(begins, old, {each.name: supervisor.pid(each.name) for each in fleet}, stubs)
            played = day.play()
        check(traffic, chosen, begins, stubs.logs)
        _tell(played, begins)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="A day by the test clock.")
    parser.add_argument("--deliveries", type=int, default=10_000_000, help="of the day, about")
    parser.add_argument("--schedules", type=int, default=500_000, help="that are active")
    parser.add_argument("--idle", type=int, default=0, help="schedules of them that fire on another day")
    parser.add_argument("--senders", type=int, default=2, help="worker processes of each channel")
    parser.add_argument("--seed", type=int, default=1, help="of everything random here")
    options = parser.parse_args()
    if not 0 <= options.idle < options.schedules:
        parser.error("--idle: fewer than --schedules")
    if options.deliveries < options.schedules - options.idle:
        parser.error("--deliveries: at least one for each schedule that fires")
    return options


if __name__ == "__main__":
    ending(main)

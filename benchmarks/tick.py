"""What a tick costs while hundreds of thousands of schedules are active.

    python -m benchmarks.tick [--schedules 500000] [--runs 30]

``idle_ms`` is the database's time of a tick that finds nothing due, seen from the client; ``idle_whole_ms`` adds our
own code and the commits. ``due_1000_ms`` and ``due_10000_ms`` are whole ticks in which so many crons fire at once, all
in the same minute, as on the hour in real life. The peers are what no implementation can do without: the indexed
SELECT alone; an INSERT ... SELECT of the occurrences and an UPDATE of the schedules, with no rule of any kind applied.
"""

import argparse
import statistics
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import transaction

from benchmarks import people
from benchmarks.harness import DatabaseTime, emit, execute, median_ms, note, prepare, query
from delivery import dispatch
from schedules import clock
from schedules.models import MessageTemplate

NAME = "tick"
DUE = (1_000, 10_000)

# Crons of every day, week and month; the next run lies anywhere from tomorrow to a year ahead.
_INSERT = """
WITH made AS (
    INSERT INTO schedules_schedule (name, channel, audience_query, template_id, schedule_type, cron, time_zone,
        time_zone_mode, counts_toward_caps, misfire_grace_minutes, on_past, status, status_reason, next_run_at,
        next_occurrence_at, runs, zone_data, version, created_by, created_at, updated_at)
    SELECT 'Schedule ' || i, 'email', '{"all": []}', %(template)s, 'cron',
           (i %% 60) || ' ' || (i %% 24) || CASE i %% 3
               WHEN 0 THEN ' * * *' WHEN 1 THEN ' * * ' || (i %% 7) ELSE ' ' || (1 + i %% 28) || ' * *' END,
           'UTC', 'fixed', true, 60, 'skip', 'active', '', at, at, 0, '', 1, 'benchmark', %(now)s, %(now)s
    FROM generate_series(1, %(count)s) AS i,
         LATERAL (SELECT date_trunc('minute', %(now)s::timestamptz) + make_interval(days => 1 + i %% 364,
                  hours => i %% 24, mins => i %% 60) AS at) AS next
    RETURNING id, name, cron
)
INSERT INTO schedules_scheduleversion (schedule_id, version, definition, created_by, created_at)
SELECT id, 1, jsonb_build_object('name', name, 'channel', 'email', 'templateId', %(template)s::int,
       'scheduleType', 'cron', 'cron', cron, 'audienceQuery', '{"all": []}'::jsonb), 'benchmark', %(now)s
FROM made
"""


_INDEXED = """
SELECT id FROM schedules_schedule WHERE status = 'active' AND next_run_at <= %s ORDER BY next_run_at LIMIT 1000
"""


def insert(count: int, *, template: MessageTemplate) -> None:
    """Keep so many active schedules, none of which is due before tomorrow."""
    execute(_INSERT, {"count": count, "now": clock.now(), "template": template.pk})
    execute("VACUUM ANALYZE schedules_schedule, schedules_scheduleversion")


def _tick() -> None:
    """What the task does, but for handing messages to the broker."""
    now = clock.now()
    dispatch.open_due(now=now)
    dispatch.to_materialise()
    dispatch.take_due(now=now)


def _idle(runs: int) -> None:
    in_database = []

    def tick() -> None:
        spent = DatabaseTime()
        with spent.measured():
            _tick()
        in_database.append(spent.seconds * 1000)

    whole = median_ms(tick, runs=runs)
    by = clock.now() + timedelta(minutes=1)
    floor = median_ms(lambda: query(_INDEXED, [by]), runs=runs)
    spent = statistics.median(in_database)
    emit(NAME, "idle_ms", spent, "ms", peer="the indexed SELECT alone", ratio=floor / spent)
    emit(NAME, "idle_whole_ms", whole, "ms")


def _make_due(count: int) -> datetime:
    """Let ``count`` crons fire in the present minute, of every day; return that minute."""
    execute("DELETE FROM schedules_occurrence")
    minute = clock.now().replace(second=0, microsecond=0)
    execute(
        "UPDATE schedules_schedule SET cron = %s, next_run_at = %s, next_occurrence_at = %s WHERE id IN ("
        "SELECT id FROM schedules_schedule WHERE id %% 7 = 0 ORDER BY id LIMIT %s)",
        [f"{minute.minute} {minute.hour} * * *", minute, minute, count],
    )
    return minute


def _due(count: int, runs: int) -> None:
    whole = due_ms(count, runs=runs)
    floor = _median_due(_floor, count, runs)
    peer = "INSERT ... SELECT and UPDATE alone"
    emit(NAME, f"due_{count}_ms", whole, "ms", peer=peer, ratio=floor / whole)


def due_ms(count: int, *, runs: int) -> float:
    """Milliseconds of a whole tick in which ``count`` of the inserted schedules fire, the median of ``runs``."""
    return _median_due(_tick, count, runs)


def _check(count: int) -> None:
    opened = query("SELECT count(*) FROM schedules_occurrence WHERE state = 'materialising'")[0][0]
    if opened != count:
        raise SystemExit(f"benchmark failed: {count} schedules were due, {opened} occurrences were opened")


def _median_due(action: Callable[[], None], count: int, runs: int) -> float:
    taken = []
    for _ in range(runs):
        _make_due(count)
        taken.append(median_ms(action, runs=1))
        _check(count)
    return statistics.median(taken)


@transaction.atomic
def _floor() -> None:
    now = clock.now()
    execute(
        "INSERT INTO schedules_occurrence (schedule_id, occurrence_at, state, reason, version, template_version,"
        " opens_at, ends_at, targeted, cursor, opened_at)"
        " SELECT id, next_occurrence_at, 'materialising', '', version, 1,"
        " next_run_at, next_run_at + interval '7 days', 0, '', %s FROM schedules_schedule"
        " WHERE status = 'active' AND next_run_at <= %s",
        [now, now],
    )
    execute(
        "UPDATE schedules_schedule SET next_run_at = next_run_at + interval '1 day', runs = runs + 1,"
        " next_occurrence_at = next_occurrence_at + interval '1 day' WHERE status = 'active' AND next_run_at <= %s",
        [now],
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="What a tick costs.")
    parser.add_argument("--schedules", type=int, default=500_000, help="active schedules (at least 100,000)")
    parser.add_argument("--runs", type=int, default=30, help="ticks of which the median is told; a sixth of them due")
    options = parser.parse_args()
    if options.schedules < 7 * max(DUE):
        parser.error(f"--schedules: at least {7 * max(DUE)}")
    prepare()
    note(f"inserting {options.schedules} schedules")
    insert(options.schedules, template=people.save_template(now=clock.now()))
    _idle(options.runs)
    for count in DUE:
        _due(count, max(3, options.runs // 6))


if __name__ == "__main__":
    main()

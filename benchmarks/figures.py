"""What the figures over time cost: to keep them, and to show them when there are as many as there can be.

    python -m benchmarks.figures [--people 100000] [--rows 3000000] [--runs 30]

``counted_per_s`` are rows of the ledger; the dashboard's milliseconds are those of the whole page, the worst of its
windows, over a month in which every five minutes saw every channel with ``KINDS`` kinds of outcome. It is filled first,
which takes a minute or more.
"""

import argparse
import math
import time

from django.test import Client

from benchmarks import past, people
from benchmarks.harness import emit, execute, median_ms, note, prepare, query
from delivery import figures, timeline
from delivery.timeline import Window
from schedules import clock
from schedules.permissions import Role
from tests.accounts import account

NAME = "figures"
# Outcomes that differ in state, reason or lateness, within five minutes and in one channel.
KINDS = 16

_EVERYTHING = """
INSERT INTO delivery_figure (minutes, slot, channel, state, reason, lateness, people)
SELECT minutes, date_bin(make_interval(mins => minutes), %(now)s, '2000-01-01+00') - n * make_interval(mins => minutes),
       channel,
       CASE WHEN kind < 10 THEN 10 ELSE kind + 1 END, CASE WHEN kind < 10 THEN '' ELSE 'reason_' || kind END,
       CASE WHEN kind < 10 THEN kind * 3 ELSE -1000 END, 20
FROM unnest(ARRAY[5, 15, 60]) AS minutes, generate_series(0, 30 * 1440 / minutes) AS n,
     unnest(ARRAY['email', 'push', 'in_app']) AS channel, generate_series(0, %(kinds)s - 1) AS kind
ON CONFLICT DO NOTHING
"""


def fill(*, count: int, rows: int) -> None:
    """So many people, and rows of the last week that nobody has counted yet."""
    people.insert(count)
    template = people.save_template(now=clock.now())
    past.fill(occurrences=math.ceil(rows / count), template=template, now=clock.now())


def count_all() -> tuple[int, float]:
    """Count every batch; how many there were, and the seconds."""
    batches, started = 0, time.perf_counter()
    while counted := figures.count():
        batches += counted
    return batches, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="Figures over time.")
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=3_000_000, help="of the ledger")
    parser.add_argument("--runs", type=int, default=30, help="of each question, of which the median is told")
    options = parser.parse_args()
    prepare()
    fill(count=options.people, rows=options.rows)
    ((rows,),) = query("SELECT count(*) FROM delivery_delivery")
    read_ms = median_ms(lambda: timeline.read(Window.DAY, zone_name="UTC", now=clock.now()), runs=5)
    note(f"{rows:,} rows, all uncounted: {read_ms:.1f} ms, with {figures.READ_AT_ONCE} batches read at once")
    batches, seconds = count_all()
    note(f"{batches:,} batches in {seconds:.1f} s: {seconds / batches * 1000:.2f} ms each")
    emit(NAME, "counted_per_s", rows / seconds, "rows/s")
    assert query("SELECT sum(people) FROM delivery_figure GROUP BY minutes") == [(rows,)] * 3
    execute(_EVERYTHING, {"now": clock.now(), "kinds": KINDS})
    execute("VACUUM (ANALYZE) delivery_figure, delivery_batch")
    ((kept,),) = query("SELECT count(*) FROM delivery_figure")
    note(f"{kept:,} figures")
    client = Client()
    client.force_login(account(Role.ADMIN))

    def ask(window: Window) -> None:
        assert client.get(f"/dashboard/?window={window}", HTTP_HOST="localhost").status_code == 200

    pages = {}
    for zone_name in ("UTC", "Asia/Kolkata"):  # whose days begin at whole hours, and at half ones
        client.cookies.load({"times": "mine", "zone": zone_name})
        for window in Window:
            pages[f"{window}, {zone_name}"] = median_ms(lambda window=window: ask(window), runs=options.runs)
    for window, ms in pages.items():
        note(f"  {window}: {ms:.1f} ms")
    emit(NAME, "dashboard_ms", max(pages.values()), "ms")


if __name__ == "__main__":
    main()

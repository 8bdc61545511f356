"""What it takes to ask a full ledger: why somebody got it or not, and pages of deliveries, however rare what is sought.

    python -m benchmarks.questions [--people 1000000] [--rows 10000000] [--runs 30]

Each figure is the worst question's median; pages have 200 rows, and the ledger the days of its whole retention. It is
filled first, which takes a few minutes, so this is not among the benchmarks that run together.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.conf import settings

from benchmarks import past, people
from benchmarks.harness import emit, execute, median_ms, note, prepare, query
from delivery import books, explain, listing, partitions, progress, punctuality
from delivery.listing import Filters, Key
from delivery.models import State
from frontend import wording
from schedules import clock
from schedules.models import Occurrence, Recipient

NAME = "questions"
LIMIT = 200
# One in so many of the latest occurrence's people has failed.
RARE = 50_000

_FAIL = """
WITH chosen AS MATERIALIZED (
    SELECT day, occurrence_id, recipient_id, batch_id FROM delivery_delivery
    WHERE day = %(day)s AND occurrence_id = %(occurrence)s AND recipient_id %% %(rare)s = 7
), failed AS (
    UPDATE delivery_delivery d SET state = 11, reason = 'message_rejected' FROM chosen c
    WHERE d.day = %(day)s AND d.occurrence_id = c.occurrence_id AND d.recipient_id = c.recipient_id
), counted AS (SELECT batch_id, count(*) AS people FROM chosen GROUP BY batch_id)
UPDATE delivery_batch b SET failed = failed + c.people, sent = sent - c.people FROM counted c WHERE b.id = c.batch_id
"""


def fill(*, count: int, rows: int) -> None:
    """So many people, and rows of the last week, of whom a few have failed in the latest occurrence."""
    today = clock.now().date()
    partitions.ensure(first=today - timedelta(days=settings.LEDGER_RETENTION_DAYS), last=today)
    people.insert(count)
    template = people.save_template(now=clock.now())
    past.fill(occurrences=math.ceil(rows / count), template=template, now=clock.now())
    latest = Occurrence.objects.earliest("-occurrence_at")
    execute(_FAIL, {"day": latest.day, "occurrence": latest.pk, "rare": RARE})
    execute("ANALYZE delivery_delivery, delivery_batch")


def explain_ms(*, runs: int) -> float:
    """Milliseconds for the worst of: somebody sent to, somebody who failed, somebody who was not meant."""
    now = clock.now()
    latest = Occurrence.objects.earliest("-occurrence_at")
    first, last = Recipient.objects.earliest("pk"), Recipient.objects.latest("pk")
    stranger = Recipient.objects.create(external_id="stranger", email="stranger@example.com")
    failed = listing.page(Filters(state=State.FAILED), now=now, limit=1).rows[0].recipient_id
    asked = [first.external_id, last.external_id, stranger.external_id]
    asked.append(Recipient.objects.get(pk=failed).external_id)

    def ask(external_id: str) -> str:
        found = explain.explain(schedule_id=latest.schedule_id, external_id=external_id, now=now)
        return wording.explanation(found)

    return _worst({name: lambda name=name: ask(name) for name in asked}, runs=runs)  # type: ignore[misc]


def deliveries_ms(*, runs: int) -> float:
    """Milliseconds for the worst page of deliveries."""
    now = clock.now()
    latest = Occurrence.objects.earliest("-occurrence_at")
    person = Recipient.objects.latest("pk").pk
    oldest = Occurrence.objects.latest("-occurrence_at")
    deep = Key(oldest.day, oldest.pk, person - 1_000)
    of_schedule, of_run = Filters(schedule_id=latest.schedule_id), Filters(occurrence_id=latest.pk)
    wanted: dict[str, tuple[Filters, Key | None]] = {
        "everything": (Filters(), None),
        "everything, deep": (Filters(), deep),
        "a schedule": (of_schedule, None),
        "a schedule, deep": (of_schedule, deep),
        "a run": (of_run, None),
        "a person": (Filters(recipient_id=person), None),
        "a person's run": (replace(of_run, recipient_id=person), None),
        "all sent": (Filters(state=State.SENT), None),
        "the few failed": (Filters(state=State.FAILED), None),
        "the few failed of a run": (replace(of_run, state=State.FAILED), None),
        "nobody expired": (Filters(state=State.EXPIRED), None),
        "a reason": (Filters(reason="message_rejected"), None),
        "a reason that nobody has": (replace(of_schedule, reason="no_address"), None),
    }
    calls = {
        name: lambda asked=asked: listing.page(asked[0], now=now, limit=LIMIT, after=asked[1])
        for name, asked in wanted.items()
    }
    return _worst(calls, runs=runs)


def occurrence_ms(*, runs: int) -> float:
    """Milliseconds for what ``GET /occurrences/{id}`` tells of the largest run without counting its rows."""
    found = Occurrence.objects.select_related("schedule").earliest("-occurrence_at")

    def ask() -> None:
        progress.of(found, counted=books.counted([found])[found.pk], now=clock.now())
        punctuality.overall(found)
        punctuality.starts(found)

    return _worst({"a run": ask}, runs=runs)


def _worst(calls: Mapping[str, Callable[[], Any]], *, runs: int) -> float:
    taken = {name: median_ms(call, runs=runs) for name, call in calls.items()}
    for name, ms in taken.items():
        note(f"  {name}: {ms:.1f} ms")
    return max(taken.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{NAME}", description="Questions to a full ledger.")
    parser.add_argument("--people", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the ledger")
    parser.add_argument("--runs", type=int, default=30, help="of each question, of which the median is told")
    options = parser.parse_args()
    prepare()
    fill(count=options.people, rows=options.rows)
    ((rows,),) = query("SELECT count(*) FROM delivery_delivery")
    note(f"{rows:,} rows")
    emit(NAME, "explain_ms", explain_ms(runs=options.runs), "ms")
    emit(NAME, "deliveries_page_ms", deliveries_ms(runs=options.runs), "ms")
    emit(NAME, "occurrence_ms", occurrence_ms(runs=options.runs), "ms")


if __name__ == "__main__":
    main()

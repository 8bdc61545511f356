"""Exporting schedules: one JSON object a line, as ``import_schedules`` reads it."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from django.db.models import QuerySet

from audit import trail
from audit.models import Action
from schedules import portable
from schedules.models import Schedule, ScheduleStatus

_PAGE: Final = 500  # schedules that are in memory at once
_OVER: Final = (ScheduleStatus.FINISHED, ScheduleStatus.CANCELLED)


def export_schedules(
    *, by: str, now: datetime, rows: "QuerySet[Schedule] | None" = None, with_over: bool = False
) -> Iterator[bytes]:
    """The schedules of ``rows``, all that are not deleted unless given, in the order in which they were made.

    ``with_over``: those too that are finished or cancelled. The audit has it before the first line is read. Each is as
    of the moment at which its page of 500 is read.
    """
    rows = Schedule.objects.live() if rows is None else rows
    rows = rows if with_over else rows.exclude(status__in=_OVER)
    changes = {"file": "schedules.ndjson", "schedules": rows.count()}
    trail.record(action=Action.EXPORT_FILE, by=by, now=now, changes=changes)
    return _pages(rows.select_related("template").order_by("id"))


def _pages(rows: "QuerySet[Schedule]") -> Iterator[bytes]:
    after = 0
    while page := list(rows.filter(pk__gt=after)[:_PAGE]):
        yield "".join(f"{json.dumps(portable.written(each), ensure_ascii=False)}\n" for each in page).encode()
        after = page[-1].pk

"""What lists of schedules ask beside the schedules themselves, quick over half a million of them."""

from collections.abc import Collection, Mapping
from datetime import datetime

from django.db import connection
from django.db.models import OuterRef, Subquery
from django.db.models.functions import Coalesce

from schedules.models import Occurrence, OccurrenceState, Schedule

# More creators than that are no help in a list to choose from.
MOST_CREATORS = 200

# One probe of the index for each (a loose index scan); DISTINCT would read the whole of it.
_CREATORS = """
WITH RECURSIVE found AS (
    (SELECT created_by, 1 AS number FROM schedules_schedule ORDER BY created_by LIMIT 1)
    UNION ALL
    SELECT (SELECT s.created_by FROM schedules_schedule s WHERE s.created_by > f.created_by
            ORDER BY s.created_by LIMIT 1), f.number + 1
    FROM found f WHERE f.created_by IS NOT NULL AND f.number < %s
)
SELECT created_by FROM found WHERE created_by IS NOT NULL
"""


def creators() -> list[str]:
    """Who has made schedules, as the audit names them."""
    with connection.cursor() as cursor:
        cursor.execute(_CREATORS, [MOST_CREATORS])
        return [created_by for (created_by,) in cursor.fetchall()]


def last_runs(schedule_ids: Collection[int], *, now: datetime) -> Mapping[int, Occurrence]:
    """The latest run of each schedule that has begun; before the first, the one whose people are found already.

    One statement. What runs each minute has always one whose people are found, and that says nothing yet.
    """
    found = Occurrence.objects.filter(schedule=OuterRef("pk")).exclude(state=OccurrenceState.WAITING)
    newest = found.order_by("-occurrence_at").values("pk")
    latest = Coalesce(Subquery(newest.filter(opens_at__lte=now)[:1]), Subquery(newest[:1]))
    asked = Schedule.objects.filter(pk__in=schedule_ids).order_by().annotate(latest=latest).values("latest")
    return {run.schedule_id: run for run in Occurrence.objects.filter(pk__in=asked).order_by()}

"""What lists ask beside the schedules and templates themselves, quick over half a million schedules."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from django.db import connection
from django.db.models import F, OuterRef, Subquery
from django.db.models.functions import Coalesce

from schedules.models import MessageTemplate, Occurrence, OccurrenceState, Schedule, TemplateContent, TemplateVersion

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


def spoken(templates: Collection[MessageTemplate]) -> Mapping[int, Sequence[tuple[str, str]]]:
    """By template the channels and locales in which it says something at present, in their order.

    One statement, and one more where the template service keeps some of them.
    """
    found: dict[int, list[tuple[str, str]]] = {each.pk: [] for each in templates}
    ours = TemplateContent.objects.filter(template__in=[each.pk for each in templates if not each.is_remote])
    for template_id, channel, locale in ours.values_list("template_id", "channel", "locale"):
        found[template_id].append((channel, locale))
    if remote := [each.pk for each in templates if each.is_remote]:
        last = TemplateVersion.objects.filter(template__in=remote, version=F("template__version"))
        for template_id, contents in last.values_list("template_id", "contents"):
            found[template_id] = sorted((each["channel"], each["locale"]) for each in contents)
    return found

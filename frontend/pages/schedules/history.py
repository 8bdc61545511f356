"""``/schedules/<id>/history/``: the versions of a schedule: who changed what, from what to what."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _

from audit import trail
from frontend import actors, keysets
from frontend.access import needs
from frontend.keysets import BrokenCursor, Order
from frontend.pages.frame import framed
from frontend.pages.schedules.actions import find
from frontend.wording.schedules import FIELDS, value_in_words
from schedules.models import MessageTemplate, Occurrence, Schedule, ScheduleVersion
from schedules.permissions import Ability

VERSIONS = 20
_NEWEST = Order("version", descending=True)


@dataclass(frozen=True)
class Change:
    field: str
    before: str
    after: str


@dataclass(frozen=True)
class Version:
    """``runs``: how many runs have used it. Of the first version the ``changes`` are all that it says."""

    kept: ScheduleVersion
    by: str
    changes: Sequence[Change]
    runs: int

    @property
    def is_first(self) -> bool:
        return self.kept.version == 1


@needs(Ability.READ)
def history(request: HttpRequest, schedule_id: int) -> HttpResponse:
    schedule = find(schedule_id)
    rows = ScheduleVersion.objects.filter(schedule=schedule)
    try:
        found, following = keysets.read(rows, _NEWEST, cursor=request.GET.get("before"), limit=VERSIONS)
    except BrokenCursor:
        return HttpResponseRedirect(reverse("schedule-history", args=[schedule_id]))
    context = {
        "title": _("Versions"),
        "subtitle": schedule.name,
        "crumbs": [(_("Schedules"), reverse("schedules")), (schedule.name, reverse("schedule", args=[schedule_id]))],
        "schedule": schedule,
        "versions": _told(schedule, found),
        "is_first": "before" not in request.GET,
        "first": reverse("schedule-history", args=[schedule_id]),
        "following": f"?before={following}" if following else "",
    }
    return framed(request, "frontend/schedules/history.html", context)


def _told(schedule: Schedule, found: Sequence[ScheduleVersion]) -> list[Version]:
    if not found:
        return []
    earlier = ScheduleVersion.objects.filter(schedule=schedule, version=found[-1].version - 1)
    definitions = {each.version: each.definition for each in [*found, *earlier]}
    templates = _template_names(definitions.values())
    runs = dict(
        Occurrence.objects.filter(schedule=schedule).order_by().values_list("version").annotate(runs=Count("pk"))
    )
    who = actors.names([each.created_by for each in found])
    return [
        Version(
            each,
            who[each.created_by],
            _changes(definitions.get(each.version - 1), each.definition, templates),
            runs.get(each.version, 0),
        )
        for each in found
    ]


def _template_names(definitions: Collection[Mapping[str, Any]]) -> Mapping[int, str]:
    """Of deleted templates too: a version tells what was."""
    asked = {each["templateId"] for each in definitions if each.get("templateId")}
    return dict(MessageTemplate.objects.filter(pk__in=asked).values_list("pk", "name"))


def _changes(before: Mapping[str, Any] | None, after: Mapping[str, Any], templates: Mapping[int, str]) -> list[Change]:
    changed = trail.diff(before or {}, after)
    told = []
    for field, words in FIELDS.items():
        if field not in changed or (before is None and changed[field][1] in (None, "")):
            continue
        old, new = changed[field]
        told.append(
            Change(
                str(words),
                value_in_words(field, old, definition=before, templates=templates) if before is not None else "",
                value_in_words(field, new, definition=after, templates=templates),
            )
        )
    return told

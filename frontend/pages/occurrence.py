"""One run: how far it is, do its books close, were its waves on time, what went wrong, what can be done about it."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _

from delivery import books, explain, punctuality
from delivery.books import Books
from delivery.models import Circuit
from frontend import notices, wording
from frontend.access import needs
from frontend.pages import occurrence_parts as parts
from frontend.pages.decisions import verbs
from frontend.pages.explain import PersonForm, answer_about
from frontend.pages.frame import framed, is_htmx
from frontend.pages.occurrences import is_ahead
from frontend.pages.paging import schedule_page
from frontend.zones import zones_of
from schedules import clock
from schedules.models import Occurrence, OccurrenceState, ResolutionUse
from schedules.permissions import Ability, can


@needs(Ability.READ)
def occurrence(request: HttpRequest, occurrence_id: int) -> HttpResponse:
    """The page of a run. Its rows are read where they are few, or somebody asks for it."""
    return _page(request, find(occurrence_id))


def _page(request: HttpRequest, found: Occurrence) -> HttpResponse:
    context = _run(request, found, reads_rows=found.targeted <= books.AT_ONCE or "rows" in request.GET)
    schedule = found.schedule
    return framed(
        request,
        "frontend/occurrence.html",
        {
            "title": schedule.name,
            "subtitle": _("Run %(id)s") % {"id": found.pk},
            "crumbs": [(_("Runs"), reverse("occurrences")), (schedule.name, schedule_page(schedule.pk))],
            **context,
        },
    )


@needs(Ability.READ)
def occurrence_progress(request: HttpRequest, occurrence_id: int) -> HttpResponse:
    """What changes while a run goes on, from the batches' counters alone; where more has changed, the whole run."""
    found = find(occurrence_id)
    if request.GET.get("phase") == _phase(found):
        return render(request, "frontend/run_changes.html", _live(request, found, read=None))
    context = _run(request, found, reads_rows=found.targeted <= books.AT_ONCE)
    response = render(request, "frontend/run_over.html", context)
    response.headers["HX-Retarget"], response.headers["HX-Reswap"] = "#run", "outerHTML"
    return response


@needs(Ability.READ)
def occurrence_person(request: HttpRequest, occurrence_id: int) -> HttpResponse:
    """What became of one person in this run."""
    found = find(occurrence_id)
    if not is_htmx(request):
        return _page(request, found)
    person = _person(request, found)
    said = person["answer"].sentence if person["answer"] else ""
    context = {**_viewer(request), **person, "part": "frontend/run_person.html", "said": said}
    return render(request, "frontend/part.html", context)


def find(occurrence_id: int) -> Occurrence:
    """With its schedule. Raises ``Http404``."""
    found = Occurrence.objects.select_related("schedule").filter(pk=occurrence_id).first()
    if found is None:
        raise Http404(_("There is no run %(id)s.") % {"id": occurrence_id})
    return found


def _viewer(request: HttpRequest) -> dict[str, Any]:
    return {"zones": zones_of(request), "may_decide": can(request.user, Ability.EDIT_SCHEDULES)}


def _phase(found: Occurrence) -> str:
    """What decides which words and buttons there are; while it stays, only figures change."""
    is_over = "over" if found.closed_at else "open"
    return ".".join((found.state, found.reason, found.held_reason, found.schedule.status, is_over))


def _live(request: HttpRequest, found: Occurrence, *, read: Books | None) -> dict[str, Any]:
    """A few statements, none on more than the batches and a sample of rows, whatever the size."""
    now = clock.now()
    counted = read.counted if read else books.counted([found])[found.pk]
    if read:
        found.targeted = read.targeted  # of the same snapshot as the rows
    obstacle = explain.obstacle(found, is_due=True) if found.closed_at is None else None
    use = ResolutionUse.objects.select_related("resolution").filter(pk=found.pk).first()
    is_under_way = use and not use.used_at and found.state == OccurrenceState.MATERIALISING
    resolving = use.resolution if use and is_under_way else None
    figures = parts.figures(found, counted=counted, resolving=resolving, now=now)
    return {
        **_viewer(request),
        "occurrence": found,
        "schedule": found.schedule,
        "figures": figures,
        "resolution": use.resolution if use and use.used_at else None,
        "resolving": resolving,
        "obstacle": wording.obstacle(obstacle) if obstacle and figures.open else "",
        "sum": parts.books_sum(found.targeted, counted, read),
        "waves": parts.waves(found, now=now, waits=obstacle is not None),
        "phase": _phase(found),
        "is_live": found.closed_at is None,
        "now": now,
    }


def _run(request: HttpRequest, found: Occurrence, *, reads_rows: bool) -> dict[str, Any]:
    read = books.of(found.pk) if reads_rows else None
    live = _live(request, found, read=read)
    causes = parts.causes(found) if reads_rows else []
    return {
        **live,
        "run_state": _("ahead") if is_ahead(found, now=live["now"]) else wording.RUN_STATES[found.state],
        "why": wording.reason(found.reason) if found.reason else "",
        "reads_rows": reads_rows,
        "targeted_million": max(1, round(found.targeted / 1_000_000)),
        "causes": causes,
        "again": parts.all_again(found, live["figures"].failed, causes),
        "waiting": parts.waiting(found) if reads_rows else [],
        "in_vain": parts.in_vain(found) if reads_rows else [],
        "punctual": [wave for wave in punctuality.waves(found) if wave.p50 is not None] if reads_rows else [],
        "overall": punctuality.overall(found),
        "verbs": verbs(found),
        "held_runs": notices.held(occurrence=found, zones=live["zones"]),
        "hides_held": True,
        "hides_link": True,
        "is_refused": Circuit.objects.filter(scope=found.schedule.channel).exists(),
        **_person(request, found),
    }


def _person(request: HttpRequest, found: Occurrence) -> dict[str, Any]:
    """The search for one person, and its answer where somebody is asked for."""
    form = PersonForm(request.GET if request.GET.get("person") else None)
    answer = None
    if form.is_bound and form.is_valid():
        answer = answer_about(request, form.cleaned_data["person"], found.schedule_id, occurrence_id=found.pk)
    return {"occurrence": found, "person_form": form, "answer": answer, "heading": "h3"}

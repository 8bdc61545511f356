"""One occurrence: do its books close, were its waves on time, what went wrong."""

from dataclasses import dataclass

from django.db.models import Count, Sum
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from delivery import books, punctuality
from delivery.books import Books
from delivery.models import Batch, Delivery, State
from frontend.access import needs
from frontend.admin_site import site
from frontend.wording import STATES, reason
from schedules.models import Occurrence
from schedules.permissions import Ability

# Up to so many people the rows are read at once; above, when somebody asks for it.
_AT_ONCE = 20_000


@dataclass(frozen=True)
class Line:
    """One state in the books; ``rows`` is none where the rows have not been read."""

    state: int
    name: str
    words: str
    counted: int
    rows: int | None

    @property
    def agrees(self) -> bool:
        return self.rows is None or self.rows == self.counted


@dataclass(frozen=True)
class Cause:
    """People of one state and reason."""

    state: int
    name: str
    words: str
    slug: str
    reason: str
    people: int


@needs(Ability.READ)
def occurrence(request: HttpRequest, occurrence_id: int) -> HttpResponse:
    found = Occurrence.objects.select_related("schedule").filter(pk=occurrence_id).first()
    if found is None:
        raise Http404(f"There is no occurrence {occurrence_id}.")
    reads_rows = found.targeted <= _AT_ONCE or "rows" in request.GET
    read = books.of(occurrence_id) if reads_rows else None
    counted = read.counted if read else _counters(occurrence_id)
    targeted = read.targeted if read else found.targeted
    context = {
        **site.each_context(request),
        "title": f"Occurrence {found.pk}",
        "subtitle": found.schedule.name,
        "occurrence": found,
        "schedule": found.schedule,
        "targeted": targeted,
        "lines": _lines(counted, read),
        "total": sum(counted.values()),
        "rows_total": sum(read.rows.values()) if read else None,
        "differences": read.differences if read else _difference(targeted, counted),
        "reads_rows": reads_rows,
        "waves": punctuality.waves(found) if reads_rows else [],
        "causes": _causes(found) if reads_rows else [],
    }
    return render(request, "frontend/occurrence.html", context)


def _counters(occurrence_id: int) -> dict[str, int]:
    sums = Batch.objects.filter(occurrence=occurrence_id).aggregate(**{item.label: Sum(item.label) for item in State})
    return {name: value or 0 for name, value in sums.items()}


def _difference(targeted: int, counted: dict[str, int]) -> list[str]:
    total = sum(counted.values())
    return [] if total == targeted else [f"targeted {targeted}, counted {total}"]


def _lines(counted: dict[str, int], read: Books | None) -> list[Line]:
    return [
        Line(
            int(item),
            item.label,
            STATES[item],
            counted[item.label],
            read.rows[item.label] if read else None,
        )
        for item in State
    ]


def _causes(found: Occurrence) -> list[Cause]:
    """What kept people from getting it, or keeps them waiting, the most frequent first."""
    rows = Delivery.objects.filter(day=found.day, occurrence_id=found.pk).exclude(reason="")
    causes = rows.values_list("state", "reason").annotate(people=Count("recipient_id")).order_by("-people", "reason")
    return [
        Cause(value, State(value).label, STATES[State(value)], slug, reason(slug), people)
        for value, slug, people in causes
    ]

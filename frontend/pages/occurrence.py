"""One occurrence: do its books close, were its waves on time, what went wrong."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Max, Min, QuerySet
from django.http import Http404, HttpRequest, HttpResponse

from delivery import books, punctuality
from delivery.books import Books
from delivery.models import OUTCOME_UNKNOWN, Circuit, Delivery, FailedAttempt, State
from frontend import notices
from frontend.access import needs
from frontend.pages.decisions import Again, is_reopenable
from frontend.pages.frame import framed
from frontend.wording import STATES, reason
from schedules import clock
from schedules.models import Occurrence
from schedules.permissions import Ability


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
    """People who did not get it, by state and reason; ``again`` tries those who failed by it again."""

    state: int
    name: str
    words: str
    slug: str
    reason: str
    people: int
    again: Again | None


@dataclass(frozen=True)
class Waiting:
    """People who still wait, by why. ``first`` and ``last``: when the next of them is tried, and the last."""

    state: int
    name: str
    slug: str
    reason: str
    people: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class InVain:
    """Provider calls of one reason that did not end in ``sent``."""

    reason: str
    attempts: int
    people: int


@needs(Ability.READ)
def occurrence(request: HttpRequest, occurrence_id: int) -> HttpResponse:
    found = Occurrence.objects.select_related("schedule").filter(pk=occurrence_id).first()
    if found is None:
        raise Http404(f"There is no run {occurrence_id}.")
    reads_rows = found.targeted <= books.AT_ONCE or "rows" in request.GET
    read = books.of(occurrence_id) if reads_rows else None
    counted = read.counted if read else books.counted([found])[found.pk]
    targeted = read.targeted if read else found.targeted
    causes = _causes(found) if reads_rows else []
    context = {
        "title": f"Run {found.pk}",
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
        "causes": causes,
        "causes_again": any(cause.again for cause in causes),
        "waiting": _waiting(found) if reads_rows else [],
        "in_vain": _in_vain(found) if reads_rows else [],
        "again": _all_again(found, counted["failed"], causes),
        "held_runs": notices.held(occurrence=found),
        "hides_held": True,
        "hides_link": True,
        "now": clock.now(),
        "is_refused": Circuit.objects.filter(channel=found.schedule.channel).exists(),
    }
    return framed(request, "frontend/occurrence.html", context)


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


_WAITING = (State.PENDING, State.SENDING, State.UNKNOWN)


def _rows(found: Occurrence) -> QuerySet[Delivery]:
    return Delivery.objects.filter(day=found.day, occurrence_id=found.pk)


def _causes(found: Occurrence) -> list[Cause]:
    """What kept people from getting it, the most frequent first."""
    rows = _rows(found).exclude(reason="").exclude(state__in=_WAITING)
    causes = rows.values_list("state", "reason").annotate(people=Count("recipient_id")).order_by("-people", "reason")
    offers = is_reopenable(found)
    return [
        Cause(
            value,
            State(value).label,
            STATES[State(value)],
            slug,
            reason(slug, value),
            people,
            _again(found, people, slug) if offers and value == State.FAILED else None,
        )
        for value, slug, people in causes
    ]


def _again(found: Occurrence, people: int, slug: str) -> Again:
    label = "Try this one again" if people == 1 else f"Try these {people:,} again"
    return Again(found.pk, people, people if slug == OUTCOME_UNKNOWN else 0, label, reason=slug)


def _all_again(found: Occurrence, failed: int, causes: list[Cause]) -> Again | None:
    """Everybody who failed, whatever the reason; where there is one reason alone its own button does."""
    offered = [cause for cause in causes if cause.again]
    if not failed or len(offered) == 1 or not is_reopenable(found):
        return None
    maybe = sum(cause.people for cause in offered if cause.slug == OUTCOME_UNKNOWN)
    return Again(found.pk, failed, maybe, f"Try all {failed:,} that failed again")


def _waiting(found: Occurrence) -> list[Waiting]:
    """Who still waits, and why, the most first."""
    rows = _rows(found).filter(state__in=_WAITING).values_list("state", "reason")
    grouped = rows.annotate(people=Count("recipient_id"), first=Min("due_at"), last=Max("due_at"))
    return [
        Waiting(value, State(value).label, slug, _why_waiting(State(value), slug), people, first, last)
        for value, slug, people, first, last in grouped.order_by("-people", "reason")
    ]


def _why_waiting(state: State, slug: str) -> str:
    if slug:
        return reason(slug, state)
    return "Being sent at this moment." if state is State.SENDING else "Waits for its time or its turn."


def _in_vain(found: Occurrence) -> list[InVain]:
    kept = FailedAttempt.objects.filter(day=found.day, occurrence_id=found.pk).values_list("reason")
    grouped = kept.annotate(attempts=Count("at"), people=Count("recipient_id", distinct=True))
    return [InVain(reason(slug), *figures) for slug, *figures in grouped.order_by("-attempts", "reason")]

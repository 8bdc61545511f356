"""The runs of all schedules: what is under way first, then the newest first, each with what became of its people."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from django import forms
from django.db import OperationalError, connection, transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from delivery import books
from frontend.access import needs
from frontend.keysets import BrokenCursor, by_instant, read
from frontend.pages.frame import framed
from frontend.pages.paging import PAGE, link
from frontend.wording import RUN_STATES
from frontend.zones import zones_of
from schedules import clock
from schedules.models import Channel, Occurrence, OccurrenceState, TimeZoneMode
from schedules.permissions import Ability
from schedules.recurrence import due_instant

# Runs under way that stand above the list; all of them are found by the filter.
_UNDER_WAY = 20
# A page that takes longer than this asks too much.
_TIMEOUT_MS = 5_000
_NEWEST = by_instant("occurrence_at", descending=True)

_OPEN, _HELD = "open", "held"
_OVER = (OccurrenceState.FINISHED, OccurrenceState.CANCELLED, OccurrenceState.MISSED)
_STATES = [
    ("", gettext_lazy("Any")),
    (_OPEN, gettext_lazy("under way or ahead")),
    (_HELD, gettext_lazy("held")),
    *((state.value, RUN_STATES[state]) for state in OccurrenceState),
]


class FilterForm(forms.Form):
    schedule = forms.CharField(
        required=False,
        max_length=200,
        label=gettext_lazy("Schedule"),
        help_text=gettext_lazy("A part of its name, or its number"),
    )
    state = forms.ChoiceField(required=False, choices=_STATES, label=gettext_lazy("State"))
    channel = forms.ChoiceField(
        required=False, choices=[("", gettext_lazy("Any")), *Channel.choices], label=gettext_lazy("Channel")
    )
    since = forms.DateField(
        required=False, label=gettext_lazy("From"), widget=forms.DateInput({"type": "date"}, format="%Y-%m-%d")
    )
    until = forms.DateField(
        required=False, label=gettext_lazy("Until"), widget=forms.DateInput({"type": "date"}, format="%Y-%m-%d")
    )

    def is_empty(self) -> bool:
        return not any(self.cleaned_data.values())


@dataclass(frozen=True)
class Line:
    """A run in the list; ``counted``: its people by state. ``is_ahead``: nobody of it is due yet."""

    run: Occurrence
    counted: Mapping[str, int]
    is_ahead: bool

    @property
    def is_held(self) -> bool:
        return bool(self.run.held_reason) and self.run.closed_at is None

    @property
    def state(self) -> str:
        if self.is_held:
            return _("held")
        return _("ahead") if self.is_ahead else str(RUN_STATES[self.run.state])

    @property
    def css(self) -> str:
        return "failed" if self.is_held else str(self.run.state)

    @property
    def is_local(self) -> bool:
        return self.run.schedule.time_zone_mode == TimeZoneMode.USER_LOCAL


@needs(Ability.READ)
def occurrences(request: HttpRequest) -> HttpResponse:
    form = FilterForm(request.GET or None)
    cursor = request.GET.get("after") or None
    under_way, found, following, problem = list[Line](), list[Line](), None, ""
    if not form.is_bound or form.is_valid():
        asked = form.cleaned_data if form.is_bound else {}
        rows = _asked(asked, request)
        try:
            with _hurried():
                if not any(asked.values()):
                    under_way = [] if cursor else _lines(_first(rows))
                    rows = rows.filter(closed_at__isnull=False)
                page, following = read(rows, _NEWEST, cursor=cursor, limit=PAGE)
                found = _lines(page)
        except OperationalError:
            problem = _("That took too long. Name a schedule or a shorter time.")
        except BrokenCursor:
            problem = _("The list can't go on from there. Begin anew from the newest.")
    context = {
        "title": _("Runs"),
        "form": form,
        "problem": problem,
        "under_way": under_way,
        "lines": found,
        "is_filtered": form.is_bound and not form.errors and not form.is_empty(),
        "is_first": cursor is None,
        "first": link(request, "occurrences", parameter="after", start=None),
        "following": link(request, "occurrences", parameter="after", start=following) if following else "",
        "all_open": link(request, "occurrences", parameter="state", start=_OPEN),
        "schedules": reverse("schedules"),
        "is_cut": len(under_way) == _UNDER_WAY,
    }
    return framed(request, "frontend/occurrences.html", context)


@contextmanager
def _hurried() -> Iterator[None]:
    """Within it no statement takes longer than the page may."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {_TIMEOUT_MS}")
        yield
        cursor.execute("SET LOCAL statement_timeout TO DEFAULT")


def _first(rows: QuerySet[Occurrence]) -> list[Occurrence]:
    """What is under way or ahead, those that run first."""
    found = list(rows.filter(closed_at__isnull=True).order_by("-occurrence_at", "-id")[:_UNDER_WAY])
    return sorted(found, key=lambda run: run.state != OccurrenceState.RUNNING)


def _lines(runs: Iterable[Occurrence]) -> list[Line]:
    runs = list(runs)
    counted = books.counted(runs)
    now = clock.now()
    return [Line(run, counted[run.pk], is_ahead(run, now=now)) for run in runs]


def is_ahead(run: Occurrence, *, now: datetime) -> bool:
    """Its people are found, and nobody of them is due yet."""
    return run.state == OccurrenceState.RUNNING and run.begun_at is None and run.opens_at > now


def _asked(asked: Mapping[str, Any], request: HttpRequest) -> QuerySet[Occurrence]:
    rows = Occurrence.objects.select_related("schedule")
    if state := asked.get("state"):
        if state == _OPEN:
            rows = rows.open()
        elif state == _HELD:
            rows = rows.open().exclude(held_reason="")
        else:
            rows = rows.filter(state=state)
            rows = rows if state in _OVER else rows.open()  # which an index finds among all that were
    if named := asked.get("schedule"):
        meant = Q(schedule__name__icontains=named)
        if named.isascii() and named.isdigit() and len(named) < 19:
            meant |= Q(schedule=int(named))
        rows = rows.filter(meant)
    if channel := asked.get("channel"):
        rows = rows.filter(schedule__channel=channel)
    zone_name = zones_of(request).of()
    if since := asked.get("since"):
        rows = rows.filter(occurrence_at__gte=_midnight(since, zone_name))
    if until := asked.get("until"):
        rows = rows.filter(occurrence_at__lt=_midnight(until + timedelta(days=1), zone_name))
    return rows


def _midnight(day: date, zone_name: str) -> datetime:
    """Of the zone whose clock the viewer has chosen."""
    return due_instant(datetime.combine(day, time()), zone_name)

"""``/schedules/``: the schedules, a page at a time; what is asked of the list stands in the address."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django import forms
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from delivery import books
from frontend import actors, keysets, notices
from frontend.access import needs
from frontend.keysets import BrokenCursor, Order, by_instant
from frontend.pages.frame import framed
from frontend.pages.paging import PAGE, link
from frontend.pages.schedules.verbs import VERBS, Offer, offers
from frontend.wording import timings
from frontend.wording.schedules import CHANNELS, STATUSES, TYPES
from frontend.zones import zones_of
from schedules import clock
from schedules.listing import creators, last_runs
from schedules.models import MessageTemplate, Occurrence, Recipient, Schedule, ScheduleStatus, TimeZoneMode
from schedules.permissions import Ability, can

NEWEST = "-id"
ORDERS: Mapping[str, Order] = {
    NEWEST: Order(),
    "next": by_instant("next_run_at", descending=False, nullable=True),
    "-updated": by_instant("updated_at", descending=True),
    "name": Order("name", descending=False, parse=str),
    "-name": Order("name", descending=True, parse=str),
}
_ORDER_CHOICES = [
    (NEWEST, gettext_lazy("Newest first")),
    ("next", gettext_lazy("Next run first")),
    ("-updated", gettext_lazy("Last changed first")),
    ("name", gettext_lazy("Name, A to Z")),
    ("-name", gettext_lazy("Name, Z to A")),
]
_ANY = ("", gettext_lazy("Any"))
_LARGEST_ID = 2**63 - 1


class FilterForm(forms.Form):
    text = forms.CharField(required=False, max_length=200, label=gettext_lazy("Name or number"))
    status = forms.ChoiceField(
        required=False,
        label=gettext_lazy("Status"),
        choices=[_ANY, *((key, words) for key, words in STATUSES.items() if key != ScheduleStatus.DELETED)],
    )
    channel = forms.ChoiceField(required=False, label=gettext_lazy("Channel"), choices=[_ANY, *CHANNELS.items()])
    schedule_type = forms.ChoiceField(required=False, label=gettext_lazy("How often"), choices=[_ANY, *TYPES.items()])
    created_by = forms.ChoiceField(required=False, label=gettext_lazy("Made by"))
    order = forms.ChoiceField(required=False, label=gettext_lazy("Order"), choices=_ORDER_CHOICES)

    def __init__(self, data: QueryDict, *, made_by: Mapping[str, str]) -> None:
        super().__init__(data)
        named = sorted(made_by.items(), key=lambda item: item[1].casefold())
        self.fields["created_by"].choices = [_ANY, *named]  # type: ignore[attr-defined]
        self.fields["text"].widget.attrs["type"] = "search"

    @property
    def narrows(self) -> bool:
        """Whether anything is asked beside the order."""
        return any(self.data.get(name) for name in self.fields if name != "order")

    def rows(self) -> QuerySet[Schedule]:
        asked = self.cleaned_data
        names = ("status", "channel", "schedule_type", "created_by")
        rows: QuerySet[Schedule] = Schedule.objects.live().filter(
            **{name: asked[name] for name in names if asked[name]}
        )
        text = asked["text"].strip()
        if not text:
            return rows
        number = text.removeprefix("#")
        if number.isascii() and number.isdigit() and int(number) <= _LARGEST_ID:
            return rows.filter(Q(pk=int(number)) | Q(name__icontains=text))
        return rows.filter(name__icontains=text)

    def sorting(self) -> Order:
        return ORDERS[self.cleaned_data["order"] or NEWEST]


@dataclass(frozen=True)
class Row:
    """A schedule with its last run; ``counted``: people of that run by state. Both are none before the first."""

    schedule: Schedule
    timing: str
    run: Occurrence | None
    counted: Mapping[str, int] | None
    offers: Sequence[Offer]
    is_overdue: bool

    @property
    def status(self) -> str:
        return str(STATUSES[self.schedule.status])

    @property
    def channel(self) -> str:
        return str(CHANNELS[self.schedule.channel])

    @property
    def is_own_clock(self) -> bool:
        return self.schedule.time_zone_mode == TimeZoneMode.USER_LOCAL

    @property
    def no_next_run(self) -> str:
        """Why there is none."""
        match self.schedule.status:
            case ScheduleStatus.DRAFT:
                return _("none: still a draft")
            case ScheduleStatus.BROKEN:
                return _("none until it is mended")
            case ScheduleStatus.ACTIVE if self.run and not self.run.closed_at:
                return _("none after the one going on")
        return _("no further run")


class Step(NamedTuple):
    """What a new installation needs before its first schedule. ``link`` is empty for who may not do it."""

    words: str
    is_done: bool
    link: str
    label: str


@needs(Ability.READ)
def listing(request: HttpRequest) -> HttpResponse:
    form = FilterForm(request.GET, made_by=actors.names(creators()))
    found: list[Schedule] = []
    following: str | None = None
    if form.is_valid():
        rows = form.rows().select_related("template")
        try:
            found, following = keysets.read(rows, form.sorting(), cursor=request.GET.get("after"), limit=PAGE)
        except BrokenCursor:
            return HttpResponseRedirect(link(request, "schedules", parameter="after", start=None))
    may_edit = can(request.user, Ability.EDIT_SCHEDULES)
    context = {
        "title": _("Schedules"),
        "form": form,
        "held_runs": notices.held(zones=zones_of(request)),
        "rows": _rows(found, may_edit=may_edit),
        "may_edit": may_edit,
        "bulk": [verb for verb in VERBS.values() if verb.in_bulk] if may_edit else [],
        "following": link(request, "schedules", parameter="after", start=following) if following else "",
        "is_first": "after" not in request.GET,
        "first": link(request, "schedules", parameter="after", start=None),
        "clear": reverse("schedules"),
        "first_steps": _first_steps(request) if may_edit and not found and not form.narrows else [],
    }
    return framed(request, "frontend/schedules/list.html", context)


def _first_steps(request: HttpRequest) -> list[Step]:
    may_import = can(request.user, Ability.EDIT_RECIPIENTS)
    people = _("People to write to.") if may_import else _("People to write to: an admin imports them.")
    imports = reverse("recipient-imports") if may_import else ""
    template = _("A template: what the message says.")
    return [
        Step(people, Recipient.objects.exists(), imports, _("Import people")),
        Step(template, MessageTemplate.objects.live().exists(), reverse("template-new"), _("New template")),
    ]


def _rows(found: Sequence[Schedule], *, may_edit: bool) -> list[Row]:
    """Two statements more, however many schedules."""
    now = clock.now()
    runs = last_runs([schedule.pk for schedule in found], now=now) if found else {}
    counted = books.counted(runs.values()) if runs else {}
    rows = []
    for schedule in found:
        run = runs.get(schedule.pk)
        told: dict[str, Any] = {"run": run, "counted": counted[run.pk] if run else None}
        told |= {"is_overdue": schedule.next_run_at is not None and schedule.next_run_at < now}
        rows.append(Row(schedule, timings.of(schedule), **told, offers=offers(schedule) if may_edit else []))
    return rows

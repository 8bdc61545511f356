"""The audit: who did what, when, and what it changed. Nobody changes anything here."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django import forms
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import get_language, gettext_lazy, ngettext, override
from django.utils.translation import gettext as _

from audit.history import Filters, events
from audit.models import Action
from frontend import keysets
from frontend.access import needs
from frontend.instants import instant, show
from frontend.models import Client
from frontend.pages.csv_file import streamed
from frontend.pages.frame import frame, framed, is_htmx
from frontend.wording.actions import ACTIONS
from frontend.wording.changes import Change
from frontend.wording.events import Told, actor_name, tell
from frontend.zones import Zones, zones_of
from schedules.permissions import Ability
from schedules.recurrence import due_instant

PAGE = 50
_AT_ONCE = 500
_ORDER = keysets.Order("id", descending=True)
# More people than that are found by the name in an event.
_NAMED = 500

_NOUNS = {
    "schedule": gettext_lazy("Schedules"),
    "occurrence": gettext_lazy("Runs"),
    "delivery": gettext_lazy("Runs"),
    "template": gettext_lazy("Templates and translations"),
    "catalogue": gettext_lazy("Templates and translations"),
    "topic": gettext_lazy("Topics"),
    "client": gettext_lazy("Programs"),
    "recipient": gettext_lazy("People"),
    "suppression": gettext_lazy("Addresses"),
    "sending": gettext_lazy("Stop switch"),
    "circuit": gettext_lazy("Providers"),
    "account": gettext_lazy("Accounts"),
    "export": gettext_lazy("Files"),
    "clock": gettext_lazy("The service's clock"),
    "endpoint": gettext_lazy("Endpoints"),
}


class WallTime(forms.CharField):
    """A reading of the viewer's clock, such as ``2026-11-22T09:00``; None where it is empty."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")

    def clean(self, value: Any) -> datetime | None:
        text: str = super().clean(value)
        try:
            return datetime.fromisoformat(text).replace(tzinfo=None) if text else None
        except ValueError:
            raise forms.ValidationError(_("Write a date and a time, such as 2026-11-22 09:00.")) from None


class FilterForm(forms.Form):
    actor = forms.ChoiceField(required=False, label=gettext_lazy("Who"))
    action = forms.ChoiceField(required=False, label=gettext_lazy("What"))
    schedule = forms.IntegerField(
        required=False, min_value=1, max_value=2**63 - 1, label=gettext_lazy("Schedule number")
    )
    since = WallTime(required=False, label=gettext_lazy("From"))
    until = WallTime(required=False, label=gettext_lazy("Until"))
    request = forms.CharField(
        required=False,
        max_length=100,
        label=gettext_lazy("Request id"),
        help_text=gettext_lazy("As an error message shows it, or how it begins"),
    )

    def __init__(self, data: QueryDict | None, *, zones: Zones) -> None:
        super().__init__(data)
        self._zone = zones.of()
        clock = _("by the clock of %(zone)s") % {"zone": self._zone}
        self.fields["since"].help_text = self.fields["until"].help_text = clock
        cast(forms.ChoiceField, self.fields["actor"]).choices = _actors(data.get("actor", "") if data else "")
        cast(forms.ChoiceField, self.fields["action"]).choices = _actions()

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        for name in ("since", "until"):
            if data.get(name):
                try:
                    data[name] = due_instant(data[name], self._zone)
                except (ValueError, OverflowError):
                    self.add_error(name, _("Choose a date within this century."))
        if data.get("since") and data.get("until") and data["since"] >= data["until"]:
            self.add_error("until", _("Choose a time after the one in “From”."))
        return data

    def filters(self) -> Filters:
        data = self.cleaned_data
        return Filters(
            data["actor"], data["action"], data["schedule"], data["since"], data["until"], data["request"].strip()
        )


def _actors(asked: str) -> list[tuple[str, Any]]:
    """Everybody who may do something today, the service itself, and whoever is asked for though he is gone."""
    people = [
        (f"user:{pk}", name) for pk, name in User.objects.order_by("username").values_list("pk", "username")[:_NAMED]
    ]
    programs = [
        (f"client:{pk}", name) for pk, name in Client.objects.order_by("name").values_list("pk", "name")[:_NAMED]
    ]
    known = {value for value, _name in (*people, *programs)}
    choices: list[tuple[str, Any]] = [("", _("Anybody")), (_("People"), people), (_("Programs"), programs)]
    choices.append(("system", _("The service itself")))
    if asked and asked not in known and asked != "system":
        choices.append((asked, actor_name(asked)))
    return [choice for choice in choices if choice[1]]


def _actions() -> list[tuple[str, Any]]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for action in Action:
        groups.setdefault(str(_NOUNS[action.partition(".")[0]]), []).append((action.value, str(ACTIONS[action])))
    return [("", _("Anything")), *groups.items()]


@dataclass(frozen=True)
class Listed:
    """A page of events. ``mark`` tells it from one that shows others; ``following`` is the cursor of the next."""

    told: list[Told]
    following: str | None

    @property
    def mark(self) -> str:
        ids = [told.event.pk for told in self.told]
        return f"{max(ids, default=0)}-{sum(ids)}"


@needs(Ability.READ)
def audit(request: HttpRequest) -> HttpResponse:
    """The latest events that fit, or those older than a cursor. By htmx, with a mark: what is new, or 204."""
    zones = zones_of(request)
    form = FilterForm(request.GET or None, zones=zones)
    listed, problem = Listed([], None), ""
    if not form.is_bound or form.is_valid():
        try:
            listed = _read(form.filters() if form.is_bound else Filters(), cursor=request.GET.get("before"))
        except keysets.BrokenCursor:
            problem = _("This page can't be found. Go back to the latest events.")
    mark = request.GET.get("mark", "")
    if is_htmx(request) and mark == listed.mark:
        return HttpResponse(status=204)
    context = {
        "title": _("Audit"),
        "subtitle": _("Who did what, and what it changed. Nothing here can be altered."),
        "form": form,
        "listed": listed,
        "problem": problem,
        **_news(listed, mark),
        **_links(request, listed),
    }
    if is_htmx(request):
        return render(request, "frontend/audit_events.html", {**frame(request), **context})
    return framed(request, "frontend/audit.html", context)


def _read(filters: Filters, *, cursor: str | None) -> Listed:
    found, following = keysets.read(events(filters), _ORDER, cursor=cursor, limit=PAGE)
    return Listed(tell(found), following)


def _news(listed: Listed, mark: str) -> dict[str, Any]:
    """Which events the viewer has not seen yet, by the mark of what he has."""
    seen = mark.partition("-")[0]
    if not seen.isdigit():
        return {"newer_than": None}
    new = sum(told.event.pk > int(seen) for told in listed.told)
    words = ngettext("%(n)s new event at the top.", "%(n)s new events at the top.", new) % {"n": new} if new else ""
    return {"newer_than": int(seen), "news": words}


def _links(request: HttpRequest, listed: Listed) -> dict[str, Any]:
    """Of the first page alone something new can appear."""
    is_first, is_live = "before" not in request.GET, request.GET.get("live") != "off"
    asked = request.GET.copy()
    asked.pop("mark", None)
    asked.pop("before", None)
    switched = asked.copy()
    switched.pop("live", None)
    if is_live:
        switched["live"] = "off"
    live = asked.copy()
    live["mark"] = listed.mark
    here = reverse("audit")
    return {
        "is_first": is_first,
        "is_live": is_live,
        "switch": f"{here}?{switched.urlencode()}",
        "poll": f"{here}?{live.urlencode()}" if is_first and is_live else "",
        "csv": f"{reverse('audit-csv')}?{asked.urlencode()}",
        "first": f"{here}?{asked.urlencode()}",
        "following": f"{here}?{_with(asked, 'before', listed.following)}" if listed.following else "",
    }


def _with(asked: QueryDict, name: str, value: str) -> str:
    query = asked.copy()
    query[name] = value
    return query.urlencode()


# --- The file ---------------------------------------------------------------------------------------------------------


@needs(Ability.READ)
def audit_csv(request: HttpRequest) -> HttpResponseBase:
    """Every event that fits, the latest first."""
    form = FilterForm(request.GET or None, zones=zones_of(request))
    if form.is_bound and not form.is_valid():
        return HttpResponse(
            _("The filter can't be read: go back and correct it."), status=400, content_type="text/plain"
        )
    filters = form.filters() if form.is_bound else Filters()
    return streamed(request, _rows(filters, zones_of(request).of(), get_language() or "en"), name="audit")


def _rows(filters: Filters, zone_name: str, language: str) -> Iterator[list[object]]:
    with override(language):
        yield [
            _("When"), _("When (UTC)"), _("What happened"), _("Action"), _("Actor"), _("Schedule number"),
            _("What changed"), _("Request id"), _("Name at the time"), _("Correlation id"),
        ]  # fmt: skip
    cursor: str | None = None
    while True:
        found, cursor = keysets.read(events(filters), _ORDER, cursor=cursor, limit=_AT_ONCE)
        with override(language):
            rows = [_row(told, zone_name) for told in tell(found)]
        yield from rows
        if cursor is None:
            return


def _row(told: Told, zone_name: str) -> list[object]:
    event = told.event
    return [
        show(event.created_at, zone_name),
        instant(event.created_at) or "",
        told.plain,
        event.action,
        event.actor_id,
        event.schedule_id or "",
        "; ".join(_line(change) for change in told.changes),
        event.request_id,
        event.actor_label,
        event.correlation_id,
    ]


def _line(change: Change) -> str:
    if change.before is None:
        return f"{change.label}: {change.after}"
    return f"{change.label}: {change.before} → {change.after}"

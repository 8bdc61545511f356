"""Endpoints: who is told what happens, and what came of telling them."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from delivery.endpoint_models import Endpoint, Posting
from delivery.subscribers import listing as found
from delivery.subscribers import operations
from delivery.subscribers.operations import EndpointIsOff, InvalidEndpoint, NoSuchEndpoint
from frontend import keysets
from frontend.access import actor, needs
from frontend.pages.frame import framed
from frontend.pages.paging import PAGE
from frontend.wording import number
from frontend.wording.endpoints import FLAWS, OFF, OUTCOMES, STATES, TYPES
from frontend.wording.sayings import translated
from frontend.zones import zones_of
from schedules import clock
from schedules.outgoing.targets import MAX_LENGTH
from schedules.permissions import Ability
from schedules.recurrence import due_instant

_MANAGE = Ability.MANAGE_ENDPOINTS


class EndpointForm(forms.Form):
    url = forms.CharField(
        max_length=MAX_LENGTH,
        label=gettext_lazy("Address"),
        help_text=gettext_lazy("https, at a public address, such as https://shop.example.com/hooks."),
        widget=forms.TextInput(attrs={"inputmode": "url", "autocomplete": "off", "spellcheck": "false"}),
    )
    description = forms.CharField(
        required=False, max_length=operations.LONGEST_DESCRIPTION, label=gettext_lazy("Description")
    )
    types = forms.MultipleChoiceField(
        required=False,
        choices=[(each, TYPES[each]) for each in operations.TYPES],
        widget=forms.CheckboxSelectMultiple,
        label=gettext_lazy("It is told when"),
        help_text=gettext_lazy("None chosen: everything."),
    )

    def add_problems(self, error: InvalidEndpoint) -> None:
        for problem in error.problems:
            words = FLAWS.get(problem.code) or translated(problem.message)
            self.add_error(problem.field, str(words))


class _Since(forms.Form):
    """A reading of the viewer's clock."""

    since = forms.DateTimeField(
        label=gettext_lazy("From"),
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"],
    )


@needs(_MANAGE)
def listing(request: HttpRequest) -> HttpResponse:
    endpoints = list(Endpoint.objects.all())
    health = found.health(endpoints)
    context = {
        "title": _("Endpoints"),
        "subtitle": _("Programs that are told what happens here"),
        "rows": [(each, health[each.pk], OFF.get(each.off_reason, "")) for each in endpoints],
    }
    return framed(request, "frontend/endpoints/list.html", context)


@never_cache
@needs(_MANAGE)
def new(request: HttpRequest) -> HttpResponse:
    form = EndpointForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            made = operations.create(**form.cleaned_data, by=actor(request.user), now=clock.now())
        except InvalidEndpoint as error:
            form.add_problems(error)
        else:
            return _secret(request, made)
    return _form(request, form, _("New endpoint"))


@needs(_MANAGE)
def edit(request: HttpRequest, endpoint_id: int) -> HttpResponse:
    endpoint = _found_or_404(endpoint_id)
    said = {"url": str(endpoint.url), "description": endpoint.description, "types": endpoint.types}
    form = EndpointForm(request.POST if request.method == "POST" else None, initial=said)
    if form.is_bound and form.is_valid():
        try:
            operations.update(
                endpoint_id=endpoint.pk, changes=form.cleaned_data, by=actor(request.user), now=clock.now()
            )
        except InvalidEndpoint as error:
            form.add_problems(error)
        else:
            messages.success(request, _("The endpoint is saved."))
            return HttpResponseRedirect(reverse("endpoint", args=[endpoint.pk]))
    return _form(request, form, _("Change the endpoint"), endpoint=endpoint)


@needs(_MANAGE)
def endpoint(request: HttpRequest, endpoint_id: int) -> HttpResponse:
    """One endpoint: how it is, what was sent to it, each attempt."""
    shown = _found_or_404(endpoint_id)
    state = request.GET.get("state", "")
    state = state if state in Posting.State.values else ""
    cursor = request.GET.get("from") or None
    try:
        rows, following = keysets.read(
            found.postings(shown.pk, state=state), keysets.Order(), cursor=cursor, limit=PAGE
        )
    except keysets.BrokenCursor:
        raise Http404(_("There is no such page.")) from None
    here = reverse("endpoint", args=[shown.pk])
    asked = f"state={state}&" if state else ""
    context = {
        "title": _name(shown),
        "crumbs": [(_("Endpoints"), reverse("endpoints"))],
        "endpoint": shown,
        "health": found.health([shown])[shown.pk],
        "off": OFF.get(shown.off_reason, ""),
        "types": [TYPES[each] for each in shown.types],
        "rows": [_row(each) for each in rows],
        "state": state,
        "states": STATES.items(),
        "since": _Since(),
        "first": f"{here}?{asked}",
        "following": f"{here}?{asked}from={following}" if following else "",
        "is_first": cursor is None,
    }
    return framed(request, "frontend/endpoints/endpoint.html", context)


@require_POST
@needs(_MANAGE)
def switch(request: HttpRequest, endpoint_id: int) -> HttpResponse:
    """On, or off where ``to`` says so."""
    _found_or_404(endpoint_id)
    if request.POST.get("to") == "off":
        operations.switch_off(endpoint_id=endpoint_id, by=actor(request.user), now=clock.now())
        messages.success(request, _("It is switched off: nothing is sent to it."))
    else:
        operations.switch_on(endpoint_id=endpoint_id, by=actor(request.user), now=clock.now())
        messages.success(request, _("It is switched on: what waits goes on."))
    return _back(endpoint_id)


@never_cache
@require_POST
@needs(_MANAGE)
def rotate(request: HttpRequest, endpoint_id: int) -> HttpResponse:
    _found_or_404(endpoint_id)
    return _secret(request, operations.rotate(endpoint_id=endpoint_id, by=actor(request.user), now=clock.now()))


@require_POST
@needs(_MANAGE)
def delete(request: HttpRequest, endpoint_id: int) -> HttpResponse:
    gone = _found_or_404(endpoint_id)
    operations.delete(endpoint_id=endpoint_id, by=actor(request.user), now=clock.now())
    messages.success(request, _("“%(name)s” is told nothing more.") % {"name": _name(gone)})
    return HttpResponseRedirect(reverse("endpoints"))


@require_POST
@needs(_MANAGE)
def send(request: HttpRequest, endpoint_id: int) -> HttpResponse:
    """Again: the event that ``posting`` names, or all that failed ``since``. Without either a test."""
    _found_or_404(endpoint_id)
    by, now, posting = actor(request.user), clock.now(), request.POST.get("posting", "")
    try:
        if "since" in request.POST:
            _send_since(request, endpoint_id, by=by)
        elif posting.isascii() and posting.isdigit() and len(posting) < 19:
            operations.replay(posting_id=int(posting), endpoint_id=endpoint_id, by=by, now=now)
            messages.success(request, _("The event is on its way again."))
        else:
            operations.test(endpoint_id=endpoint_id, now=now)
            messages.success(request, _("A test is on its way: load the page again in a moment."))
    except EndpointIsOff:
        messages.warning(request, _("The endpoint is switched off: switch it on first."))
    except NoSuchEndpoint:
        raise Http404(_("There is no such event.")) from None
    return _back(endpoint_id)


def _send_since(request: HttpRequest, endpoint_id: int, *, by: str) -> None:
    form = _Since(request.POST)
    if not form.is_valid():
        messages.warning(request, _("Say from when on, as date and time."))
        return
    since = due_instant(form.cleaned_data["since"].replace(tzinfo=None), zones_of(request).of())
    events = operations.replay_failed(endpoint_id=endpoint_id, since=since, by=by, now=clock.now())
    words = ngettext("%(n)s event is on its way again.", "%(n)s events are on their way again.", events)
    messages.success(request, words % {"n": number(events)})


def _row(posting: Posting) -> dict[str, Any]:
    tries = [(each, OUTCOMES.get(each.outcome, each.outcome)) for each in posting.tries.all()]
    return {
        "posting": posting,
        "type": TYPES.get(posting.event.type, posting.event.type),
        "state": STATES[posting.state],
        "tries": tries,
        "last": tries[-1] if tries else None,
    }


def _secret(request: HttpRequest, endpoint: Endpoint) -> HttpResponse:
    """Shown once, in the answer itself: nothing keeps it but the database, encrypted."""
    context = {"title": _("The endpoint's secret"), "endpoint": endpoint, "secret": str(endpoint.secret)}
    return framed(request, "frontend/endpoints/secret.html", context)


def _form(request: HttpRequest, form: EndpointForm, title: str, *, endpoint: Endpoint | None = None) -> HttpResponse:
    back = reverse("endpoint", args=[endpoint.pk]) if endpoint else reverse("endpoints")
    context = {"title": title, "crumbs": [(_("Endpoints"), reverse("endpoints"))], "form": form, "back": back}
    return framed(request, "frontend/endpoints/form.html", context, status=422 if form.is_bound else 200)


def _name(endpoint: Endpoint) -> str:
    return endpoint.description or _("Endpoint %(id)s") % {"id": endpoint.pk}


def _back(endpoint_id: int) -> HttpResponse:
    return HttpResponseRedirect(reverse("endpoint", args=[endpoint_id]))


def _found_or_404(endpoint_id: int) -> Endpoint:
    try:
        return operations.find(endpoint_id)
    except NoSuchEndpoint:
        raise Http404(_("There is no such endpoint.")) from None

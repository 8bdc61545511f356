"""What is done with schedules from the list and from their own pages. Everything is asked once more, in words."""

from collections.abc import Iterable, Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from audit import trail
from audit.models import Action
from delivery import books
from delivery.models import State
from frontend import actors
from frontend.access import actor, needs
from frontend.pages.frame import framed, is_htmx
from frontend.pages.paging import PAGE
from frontend.pages.schedules.verbs import VERBS, Verb, is_offered, means
from frontend.wording import number
from frontend.wording.audiences import size_in_words
from frontend.wording.problems import problem_in_words
from frontend.wording.sayings import translated
from frontend.wording.schedules import STATUSES
from schedules import clock
from schedules.definition import InvalidDefinition
from schedules.models import Occurrence, Schedule, ScheduleStatus
from schedules.operations import NotAllowed, VersionConflict
from schedules.permissions import Ability
from schedules.stops import InvalidReason
from schedules.user_service import counting

_LARGEST_ID = 2**63 - 1
# Of so many runs at most the people are added up.
_RUNS = 500


class ReasonForm(forms.Form):
    reason = forms.CharField(
        required=False,
        max_length=500,
        label=gettext_lazy("Reason"),
        help_text=gettext_lazy("For your colleagues; it may be left empty."),
    )


class NameForm(forms.Form):
    """Before many people get something at once, the schedule's name is typed."""

    name = forms.CharField(label=gettext_lazy("Type the schedule's name to send it"), strip=True)

    def __init__(self, data: Any, *, schedule: Schedule) -> None:
        super().__init__(data)
        self._name = schedule.name.strip()
        self.fields["name"].widget.attrs["autocomplete"] = "off"

    def clean_name(self) -> str:
        if self.cleaned_data["name"] != self._name:
            raise forms.ValidationError(_("Type the name as it stands above: “%(name)s”.") % {"name": self._name})
        return self._name


class ChosenForm(forms.Form):
    """The ticked rows and what is to be done with them."""

    verb = forms.ChoiceField(choices=[(verb.name, verb.in_bulk) for verb in VERBS.values() if verb.in_bulk])
    schedule = forms.TypedMultipleChoiceField(coerce=int)

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        ids = [each for each in data.getlist("schedule") if each.isascii() and each.isdigit() and len(each) < 19]
        self.fields["schedule"].choices = [(each, each) for each in ids]  # type: ignore[attr-defined]

    def clean_schedule(self) -> list[int]:
        return list(self.cleaned_data["schedule"])[:PAGE]


class VersionForm(forms.Form):
    """Which version was seen when it was asked."""

    version = forms.IntegerField(required=False, min_value=1, max_value=2**31 - 1)


def find(schedule_id: int) -> Schedule:
    """A schedule that is not deleted, with its template. Raises ``Http404``."""
    rows = Schedule.objects.live().select_related("template")
    found = rows.filter(pk=schedule_id).first() if schedule_id <= _LARGEST_ID else None
    if found is None:
        raise Http404(_("There is no schedule %(id)s. It may have been deleted.") % {"id": schedule_id})
    return found


@require_http_methods(["GET", "POST"])
@needs(Ability.EDIT_SCHEDULES)
def do(request: HttpRequest, schedule_id: int, verb: str) -> HttpResponse:
    """GET tells what would happen, POST does it."""
    asked = VERBS.get(verb)
    if asked is None:
        raise Http404
    schedule = find(schedule_id)
    if verb == "activate" and schedule.status == ScheduleStatus.DRAFT:
        return HttpResponseRedirect(reverse("wizard-step", args=[schedule.pk, "review"]))
    form = _form(request, schedule, asked)
    if request.method == "POST" and (form is None or form.is_valid()):
        return _done(request, schedule, asked, reason=form.cleaned_data.get("reason", "") if form else "")
    return _asked(request, schedule, asked, form)


def _form(request: HttpRequest, schedule: Schedule, verb: Verb) -> forms.Form | None:
    data = request.POST if request.method == "POST" else None
    if verb.takes_reason:
        return ReasonForm(data)
    if data is not None and verb.name == "run-now" and schedule.status in verb.states:
        return _name_form(schedule, counting.size(schedule.audience_query, now=clock.now()), data)
    return None


def _name_form(schedule: Schedule, people: int | None, data: Any = None) -> NameForm | None:
    return NameForm(data, schedule=schedule) if counting.is_large(people) else None


@never_cache
@require_GET
@needs(Ability.EDIT_SCHEDULES)
def people(request: HttpRequest, schedule_id: int) -> HttpResponse:
    """What the question before a run at once asks for by itself, since counting may take seconds."""
    schedule = find(schedule_id)
    size = counting.size(schedule.audience_query, now=clock.now())
    context = {"title": schedule.name, "counted": size_in_words(size), "form": _name_form(schedule, size)}
    template = "people_body.html" if is_htmx(request) else "people.html"
    return framed(request, f"frontend/schedules/{template}", context)


def _asked(request: HttpRequest, schedule: Schedule, verb: Verb, form: forms.Form | None) -> HttpResponse:
    context = {
        "title": verb.title % {"name": schedule.name},
        "schedule": schedule,
        "verb": verb,
        "means": means(verb, schedule),
        "going_on": _going_on([schedule]),
        "refused": "" if is_offered(verb, schedule) else refusal(schedule),
        "form": form,
        "counts": verb.name == "run-now" and form is None,
        "next": _next(request, schedule),
        "crumbs": [(_("Schedules"), reverse("schedules")), (schedule.name, reverse("schedule", args=[schedule.pk]))],
        "is_modal": is_htmx(request),
    }
    template = "confirm_body.html" if is_htmx(request) else "confirm.html"
    status = 422 if form is not None and form.errors else 200
    return framed(request, f"frontend/schedules/{template}", context, status=status)


def _going_on(schedules: Iterable[Schedule]) -> str:
    """How many people still wait in their runs going on."""
    runs = list(Occurrence.objects.open().filter(schedule__in=[schedule.pk for schedule in schedules])[:_RUNS])
    if not runs:
        return _("No run is going on at present.")
    counted = books.counted(runs)
    left = sum(counted[run.pk][state.label] for run in runs for state in State if not state.is_outcome)
    words = ngettext(
        "A run is going on at present; people who have not got it yet: %(left)s.",
        "%(runs)s runs are going on at present; people who have not got it yet: %(left)s.",
        len(runs),
    )
    return words % {"runs": number(len(runs)), "left": number(left)}


def refusal(schedule: Schedule) -> str:
    return _("It is %(status)s, so this can't be done.") % {"status": STATUSES[schedule.status]}


def _done(request: HttpRequest, schedule: Schedule, verb: Verb, *, reason: str) -> HttpResponse:
    seen = VersionForm(request.POST)
    version = seen.cleaned_data["version"] if seen.is_valid() else None
    try:
        result = carry_out(verb, schedule_id=schedule.pk, by=actor(request.user), reason=reason, version=version)
    except Refused as refused:
        for words in refused.sentences:
            messages.error(request, words)
        return HttpResponseRedirect(_next(request, schedule))
    messages.success(request, verb.done % {"name": schedule.name})
    if verb.name == "duplicate":
        return HttpResponseRedirect(reverse("schedule", args=[result.pk]))
    if isinstance(result, Occurrence):
        return HttpResponseRedirect(reverse("occurrence", args=[result.pk]))
    return HttpResponseRedirect(reverse("schedules") if verb.name == "delete" else _next(request, schedule))


class Refused(Exception):
    """Why it could not be done, a sentence each."""

    def __init__(self, sentences: Sequence[str]) -> None:
        super().__init__(" ".join(sentences))
        self.sentences = sentences


def carry_out(verb: Verb, *, schedule_id: int, by: str, reason: str = "", version: int | None = None) -> Any:
    """One operation, with its refusals in words. ``version``: the one that was seen."""
    options: dict[str, Any] = {"reason": reason} if verb.takes_reason else {}
    if verb.takes_version:
        options["expected_version"] = version
    if verb.name == "duplicate":
        options["called"] = _("Copy of %(name)s")
    try:
        return verb.operation(schedule_id=schedule_id, by=by, now=clock.now(), **options)
    except InvalidDefinition as error:
        raise Refused([problem_in_words(problem) for problem in error.problems]) from error
    except Schedule.DoesNotExist as error:
        raise Refused([_("It is not there any more.")]) from error
    except NotAllowed as error:
        standing = Schedule.objects.get(pk=schedule_id)
        raise Refused([translated(str(error)) if is_offered(verb, standing) else refusal(standing)]) from error
    except VersionConflict as error:
        words = _("Nothing was done: %(who)s has changed it meanwhile (version %(version)s). Look at it, then decide.")
        raise Refused([words % {"who": actors.name(error.by), "version": error.current}]) from error
    except InvalidReason as error:
        raise Refused([translated(str(error))]) from error


def _next(request: HttpRequest, schedule: Schedule) -> str:
    """Back to where it was asked from: a page of ours, else the schedule's own."""
    asked = request.POST.get("next") or request.headers.get("HX-Current-URL") or request.GET.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(asked, {request.get_host()}, require_https=request.is_secure())
    return asked if is_ours else reverse("schedule", args=[schedule.pk])


@require_POST
@needs(Ability.EDIT_SCHEDULES)
def bulk(request: HttpRequest) -> HttpResponse:
    """The same for several at once: asked first, then done one by one, and whatever can't be done is said."""
    form = ChosenForm(request.POST)
    back = _back(request)
    if not form.is_valid():
        messages.warning(request, _("Nothing was changed: tick the schedules first, then choose what to do."))
        return HttpResponseRedirect(back)
    verb = VERBS[form.cleaned_data["verb"]]
    chosen = list(Schedule.objects.live().filter(pk__in=form.cleaned_data["schedule"]).order_by("name", "pk"))
    is_sure = bool(request.POST.get("sure"))
    why = ReasonForm(request.POST if is_sure else None) if verb.takes_reason else None
    if is_sure and (why is None or why.is_valid()):
        _carry_out_each(request, verb, chosen, reason=why.cleaned_data["reason"] if why else "")
        return HttpResponseRedirect(back)
    fitting = [schedule for schedule in chosen if is_offered(verb, schedule)]
    words = ngettext("%(do)s: %(n)s schedule", "%(do)s: %(n)s schedules", len(chosen))
    if len(fitting) < len(chosen):
        words = ngettext("%(do)s: %(fit)s of %(n)s schedule", "%(do)s: %(fit)s of %(n)s schedules", len(chosen))
    context = {
        "title": words % {"do": verb.in_bulk, "n": number(len(chosen)), "fit": number(len(fitting))},
        "verb": verb,
        "fitting": fitting,
        "others": [(schedule, STATUSES[schedule.status]) for schedule in chosen if not is_offered(verb, schedule)],
        "going_on": _going_on(fitting) if fitting else "",
        "form": why,
        "next": back,
        "crumbs": [(_("Schedules"), reverse("schedules"))],
    }
    return framed(request, "frontend/schedules/bulk.html", context, status=422 if is_sure else 200)


def _carry_out_each(request: HttpRequest, verb: Verb, chosen: Sequence[Schedule], *, reason: str) -> None:
    """One transaction per schedule: what can't be done keeps nobody else from it."""
    done = []
    for schedule in chosen:
        try:
            carry_out(verb, schedule_id=schedule.pk, by=actor(request.user), reason=reason)
            done.append(schedule.name)
        except Refused as refused:
            messages.error(request, _("“%(name)s”: %(why)s") % {"name": schedule.name, "why": refused})
    changes = {"verb": verb.name, "schedules": [schedule.pk for schedule in chosen], "done": len(done)}
    trail.record(action=Action.SCHEDULE_BULK, by=actor(request.user), now=clock.now(), changes=changes)
    if done:
        words = ngettext("%(do)s: done for %(n)s schedule.", "%(do)s: done for %(n)s schedules.", len(done))
        messages.success(request, words % {"do": verb.in_bulk, "n": number(len(done))})


def _back(request: HttpRequest) -> str:
    asked = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(asked, {request.get_host()}, require_https=request.is_secure())
    return asked if is_ours else reverse("schedules")

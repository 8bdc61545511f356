"""The wizard: a schedule step by step, each step a saved draft, as a page of its own or in the list's modal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from delivery import test_sends
from delivery.test_sends import InvalidTestSend
from frontend.access import actor, needs
from frontend.pages.frame import frame, framed, is_htmx
from frontend.wizard import drafts, looks, review
from frontend.wizard.drafts import FORMS, STEPS, TITLES, Meanwhile
from frontend.wizard.finding import find
from frontend.wizard.forms import Around, BasicsForm, MessageForm, StepForm
from frontend.wizard.panels import test_context
from frontend.wording.problems import problem_in_words
from frontend.wording.sayings import translated
from schedules import clock, operations
from schedules.definition import Definition, InvalidDefinition
from schedules.models import Channel, Schedule, ScheduleStatus
from schedules.operations import NotAllowed, VersionConflict
from schedules.permissions import Ability

_REFUSED = 422


@dataclass
class Page:
    """One answer of the wizard. ``schedule`` is None before the draft exists."""

    request: HttpRequest
    step: str
    around: Around
    form: StepForm | None
    schedule: Schedule | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    meanwhile: Meanwhile | None = None

    @property
    def in_modal(self) -> bool:
        asked = self.request.POST.get("modal") or self.request.GET.get("modal")
        return bool(asked) or self.request.headers.get("HX-Target") == "modal-content"

    def answer(self, status: int = 200) -> HttpResponse:
        number = STEPS.index(self.step)
        context = {
            **frame(self.request),
            "title": self.schedule.name if self.schedule else _("New schedule"),
            "crumbs": [(_("Schedules"), reverse("schedules"))],
            "step": self.step,
            "step_title": TITLES[self.step],
            "number": number + 1,
            "steps": self._steps(),
            "previous": STEPS[number - 1] if number else None,
            "form": self.form,
            "token": self.request.POST.get("token") or uuid4().hex,
            "schedule": self.schedule,
            "version": self.schedule.version if self.schedule else None,
            "meanwhile": self.meanwhile,
            "in_modal": self.in_modal,
            "is_fragment": is_htmx(self.request),
            "address": self._address(),
            "step_template": f"frontend/wizard/step_{self.step}.html",
            **self.more,
        }
        if is_htmx(self.request):
            return render(self.request, "frontend/wizard/wizard.html", context, status=status)
        return framed(self.request, "frontend/wizard/page.html", context, status=status)

    def _address(self) -> str:
        return reverse("wizard-step", args=[self.schedule.pk, self.step]) if self.schedule else reverse("wizard")

    def _steps(self) -> list[dict[str, Any]]:
        if self.schedule is None:
            problems = dict.fromkeys(FORMS, True)
        else:
            wrong = drafts.problems_by_step(Definition.of(self.schedule), self.around)
            kept = drafts.unsaved(self.request, self.schedule.pk)
            problems = {step: step in wrong or step in kept for step in FORMS}
            problems["limits"] |= not drafts.are_limits_chosen(self.request, self.schedule, self.around)
        return [
            {
                "slug": step,
                "title": TITLES[step],
                "number": number,
                "is_here": step == self.step,
                "is_done": step in problems and not problems[step],
            }
            for number, step in enumerate(STEPS, start=1)
        ]


@needs(Ability.EDIT_SCHEDULES)
@never_cache
@require_http_methods(["GET", "POST"])
def new(request: HttpRequest) -> HttpResponseBase:
    """The first step: a name and a channel make a draft, and one only, however often the button is pressed."""
    around = drafts.around(request)
    blank = drafts.blank(around)
    form = BasicsForm(request.POST or None, definition=blank, around=around)
    form.fields["name"].widget.attrs["autofocus"] = True
    page = Page(request, "basics", around, form)
    if request.method != "POST":
        return page.answer()
    if not form.is_valid():
        return page.answer(_REFUSED)
    definition = drafts.merged(blank, form.changes())
    try:
        schedule_id, is_new = drafts.make_once(request, definition)
    except InvalidDefinition as error:
        form.add_problems(error.problems)
        return page.answer(_REFUSED)
    if not is_new:
        return build(request, schedule_id, "basics")
    return _go(request, find(schedule_id), request.POST.get("go", "next"), "basics")


@needs(Ability.EDIT_SCHEDULES)
@never_cache
@require_http_methods(["GET", "POST"])
def build(request: HttpRequest, schedule_id: int, step: str) -> HttpResponse:
    """One step of a draft."""
    if step not in STEPS:
        raise Http404(_("There is no such step."))
    schedule = find(schedule_id)
    if schedule.status != ScheduleStatus.DRAFT:
        return _leave(request, reverse("schedule" if request.method == "POST" else "schedule-edit", args=[schedule_id]))
    around = drafts.around(request)
    if request.method == "POST" and step == "review":
        return _decide(request, schedule, around)
    if request.method == "POST":
        return _post(request, schedule, step, around)
    return _show(request, schedule, step, around)


def _show(request: HttpRequest, schedule: Schedule, step: str, around: Around) -> HttpResponse:
    """A step as it is kept, or as it was left when it could not be."""
    if step == "review":
        return _review_page(request, schedule, around).answer()
    kept = drafts.unsaved(request, schedule.pk).get(step)
    form = FORMS[step](kept, definition=Definition.of(schedule), around=around)
    if kept is not None:
        form.is_valid()
    return _page(request, schedule, step, form, around).answer()


def _page(request: HttpRequest, schedule: Schedule, step: str, form: StepForm, around: Around, **more: Any) -> Page:
    extra: dict[str, Any] = {**more}
    if isinstance(form, MessageForm):
        extra |= looks.offered(schedule, form)
    if step == "message" and "told" not in extra:
        extra |= looks.message(request, schedule, form, around)
    return Page(request, step, around, form, schedule, extra)


def _post(request: HttpRequest, schedule: Schedule, step: str, around: Around) -> HttpResponse:
    seen_version = _version(request)
    seen = drafts.definition_at(schedule, seen_version)
    form = FORMS[step](request.POST, definition=seen, around=around)
    go, action = request.POST.get("go", ""), request.POST.get("do", "")
    if action:
        form.act(action)
        form.is_quiet = action != "look"
        more = looks.LOOKS[step](request, schedule, form, around) if action == "look" and step in looks.LOOKS else {}
        return _page(request, schedule, step, form, around, acted=True, **more).answer()
    form.is_valid()
    try:
        saved = _save(request, schedule, form, seen, seen_version)
    except VersionConflict as conflict:
        current = find(schedule.pk)
        if form.errors or drafts.own_changes(form, Definition.of(current)):
            rebased, version = drafts.rebased(form, seen, current, seen_version)
            page = _page(request, current, step, rebased, around, version=version)
            page.meanwhile = drafts.meanwhile(request, conflict, seen=seen, current=Definition.of(current))
            return page.answer(_REFUSED)
        saved = current  # the same was saved before: a button was pressed twice
    except NotAllowed as error:
        messages.error(request, translated(str(error)))
        return _leave(request, reverse("schedule", args=[schedule.pk]))
    if saved is not None:
        schedule = saved
        form.add_problems(
            [
                problem
                for problem in drafts.problems_by_step(Definition.of(schedule), around).get(step, [])
                if problem.field.partition("/")[0]
            ]
        )
    if form.errors:
        drafts.keep_unsaved(request, schedule.pk, step)
    else:
        drafts.forget_unsaved(request, schedule.pk, step)
        if step == "limits":
            drafts.note_limits(request, schedule.pk)
    if go == "test":
        return _test(request, schedule, step, form, around)
    if form.errors and go in ("", "next"):
        return _page(request, schedule, step, form, around).answer(_REFUSED)
    if form.errors:
        messages.warning(
            request, _("“%(step)s” is not complete yet. What you typed there is kept.") % {"step": TITLES[step]}
        )
    return _go(request, schedule, go or "next", step)


def _save(
    request: HttpRequest, schedule: Schedule, form: StepForm, seen: Definition, version: int | None
) -> Schedule | None:
    """Keep what the form says otherwise than its reader saw; None where the draft can't hold it."""
    try:
        edit = operations.update(
            schedule_id=schedule.pk,
            changes=drafts.own_changes(form, seen),
            by=actor(request.user),
            now=clock.now(),
            expected_version=version,
        )
    except InvalidDefinition as error:
        form.add_problems(error.problems)
        if not form.errors:
            form.add_error(None, " ".join(problem_in_words(problem) for problem in error.problems))
        return None
    return edit.schedule


# Review


def _review_page(request: HttpRequest, schedule: Schedule, around: Around, **more: Any) -> Page:
    return Page(request, "review", around, None, schedule, {**review.told(request, schedule, around), **more})


def _decide(request: HttpRequest, schedule: Schedule, around: Around) -> HttpResponse:
    """Activate it, if it is whole and its name was typed where it is for many, who are counted here once more."""
    go, typed = request.POST.get("go", ""), request.POST.get("confirm", "")
    if go != "activate" and not (go == "review" and typed):  # Enter in the one field that there is
        return _go(request, schedule, go if go in (*STEPS, "back", "later") else "review", "review")
    page = _review_page(request, schedule, around)
    if not page.more["can_activate"]:
        return page.answer(_REFUSED)
    people = review.people(schedule, now=around.now)
    if people["confirms"] and typed.strip() != schedule.name.strip():
        words = _("Type the schedule's name as it stands above: it goes to many people.")
        return _review_page(request, schedule, around, **people, confirm_error=words, typed=typed).answer(_REFUSED)
    try:
        operations.activate(
            schedule_id=schedule.pk, by=actor(request.user), now=clock.now(), expected_version=_version(request)
        )
    except VersionConflict as conflict:
        seen = drafts.definition_at(schedule, _version(request))
        page = _review_page(request, find(schedule.pk), around)
        page.meanwhile = drafts.meanwhile(request, conflict, seen=seen, current=Definition.of(find(schedule.pk)))
        return page.answer(_REFUSED)
    except InvalidDefinition:  # somebody has changed what it needs, or time has passed
        return _review_page(request, find(schedule.pk), around).answer(_REFUSED)
    except NotAllowed as error:
        messages.error(request, translated(str(error)))
        return _leave(request, reverse("schedule", args=[schedule.pk]))
    drafts.forget_unsaved(request, schedule.pk)
    messages.success(request, _("“%(name)s” is active.") % {"name": schedule.name})
    return _leave(request, reverse("schedule", args=[schedule.pk]))


# On the way


def _version(request: HttpRequest) -> int | None:
    raw = request.POST.get("version", "")
    return int(raw) if raw.isdecimal() and len(raw) < 10 else None


def _go(request: HttpRequest, schedule: Schedule, go: str, step: str) -> HttpResponse:
    """On to where a button leads."""
    if go == "later":
        words = _("“%(name)s” is kept as a draft. You find it in the list, and go on where you stopped.")
        messages.success(request, words % {"name": schedule.name})
        return _leave(request, reverse("schedules"))
    number = STEPS.index(step)
    target = {"next": STEPS[min(number + 1, len(STEPS) - 1)], "back": STEPS[max(number - 1, 0)]}.get(go, go)
    if target not in STEPS:
        target = step
    if is_htmx(request):
        response = _show(request, find(schedule.pk), target, drafts.around(request))
        if not request.POST.get("modal"):
            response["HX-Push-Url"] = reverse("wizard-step", args=[schedule.pk, target])
        return response
    return HttpResponseRedirect(reverse("wizard-step", args=[schedule.pk, target]))


def _leave(request: HttpRequest, address: str) -> HttpResponse:
    """Out of the wizard, the modal included."""
    if is_htmx(request):
        return HttpResponse(headers={"HX-Redirect": address})
    return HttpResponseRedirect(address)


# A test


def _test(request: HttpRequest, schedule: Schedule, step: str, form: StepForm, around: Around) -> HttpResponse:
    """Send the message to one address to be looked at; the step has been saved."""
    to = request.POST.get("to", "")[:320]
    more: dict[str, Any] = {"to": to}
    status = _REFUSED
    try:
        wish = test_sends.ask(
            schedule_id=schedule.pk,
            external_id=request.POST.get("test_reader", "")[:200],
            to=to if schedule.channel == Channel.EMAIL else "",
            locale=request.POST.get("locale", "")[:35],
            by=actor(request.user),
            now=clock.now(),
        )
        more |= test_context(wish)
        status = 200
    except InvalidTestSend as error:
        more["test_error"] = " ".join(problem_in_words(problem) for problem in error.problems)
    except NotAllowed as error:
        more["test_error"] = translated(str(error))
    return _page(request, schedule, step, form, around, **more).answer(status)

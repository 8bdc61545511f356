"""A schedule that runs, or could: its definition on one page, what a change would do, and then the change.

The forms are the wizard's. What a change would touch is found by doing it and taking it back, below the doors.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from delivery import touches
from delivery.touches import Touch
from frontend.access import actor, needs
from frontend.pages.frame import frame, framed, is_htmx
from frontend.wizard import drafts, looks
from frontend.wizard.drafts import FORMS, TITLES, Meanwhile
from frontend.wizard.finding import find
from frontend.wizard.forms import Around, MessageForm, StepForm
from frontend.wording import timings
from frontend.wording.problems import problem_in_words
from frontend.wording.sayings import translated
from schedules import clock, operations
from schedules.definition import Definition, InvalidDefinition
from schedules.models import Schedule, ScheduleStatus
from schedules.occurrences import ApplyTo, Effect
from schedules.operations import NotAllowed, VersionConflict
from schedules.permissions import Ability
from schedules.user_service import counting

_EDITABLE = (ScheduleStatus.ACTIVE, ScheduleStatus.PAUSED, ScheduleStatus.BROKEN)
_REFUSED = 422
EFFECTS = {
    Effect.UNTOUCHED: gettext_lazy("has begun, and ends as it began"),
    Effect.REPINNED: gettext_lazy("goes out with the change"),
    Effect.REMATERIALISED: gettext_lazy("finds its people anew"),
    Effect.RETIMED: gettext_lazy("keeps its people, at their new time"),
    Effect.POSTPONED: gettext_lazy("waits for its new time"),
    Effect.CANCELLED: gettext_lazy("is cancelled: the new times no longer name it"),
}


@dataclass(frozen=True)
class Touched:
    """A run that is open, and what the change does to it."""

    run: Touch
    wall: str
    words: str
    done: int


@dataclass(frozen=True)
class Preview:
    """What a change would do. ``seal``: what it was made for, so that nothing else is saved in its name."""

    changes: list[drafts.Change]
    touched: list[Touched]
    next_run_at: datetime | None
    before: int | None
    after: int | None
    audience_changes: bool
    has_begun: bool
    apply_to: str
    seal: str


@needs(Ability.EDIT_SCHEDULES)
@never_cache
@require_http_methods(["GET", "POST"])
def edit(request: HttpRequest, schedule_id: int) -> HttpResponse:
    schedule = find(schedule_id)
    if schedule.status == ScheduleStatus.DRAFT:
        return HttpResponseRedirect(reverse("wizard-step", args=[schedule_id, _where_left(request, schedule)]))
    if schedule.status not in _EDITABLE:
        messages.warning(request, _("This schedule has ended and can't be changed: duplicate it to send again."))
        return HttpResponseRedirect(reverse("schedule", args=[schedule_id]))
    around = drafts.around(request, locked=_locked(schedule))
    if request.method != "POST":
        forms = {step: form(None, definition=Definition.of(schedule), around=around) for step, form in FORMS.items()}
        return _answer(request, schedule, forms, around)
    raw = request.POST.get("version", "")
    version = int(raw) if raw.isdecimal() and len(raw) < 10 else schedule.version
    seen = drafts.definition_at(schedule, version)
    forms = {step: form(request.POST, definition=seen, around=around) for step, form in FORMS.items()}
    return _Posted(request, schedule, forms, around, seen, version).answer()


def _where_left(request: HttpRequest, schedule: Schedule) -> str:
    """The first step of a draft that is not complete yet; of a whole one the review."""
    wrong = drafts.problems_by_step(Definition.of(schedule), drafts.around(request))
    left = drafts.unsaved(request, schedule.pk)
    return next((step for step in FORMS if step in wrong or step in left), "review")


def _locked(schedule: Schedule) -> set[str]:
    return {"channel", "schedule_type"} if schedule.occurrences.exists() else {"channel"}


@dataclass
class _Posted:
    """The page as somebody sent it, who saw ``seen``, which was the ``version``."""

    request: HttpRequest
    schedule: Schedule
    forms: dict[str, StepForm]
    around: Around
    seen: Definition
    version: int

    def answer(self) -> HttpResponse:
        action, go = self.request.POST.get("do", ""), self.request.POST.get("go", "preview")
        if action:
            for form in self.forms.values():
                form.act(action)
                form.is_quiet = True
            return self._page()
        changes: dict[str, Any] = {}
        for form in self.forms.values():
            form.is_valid()
            changes |= drafts.own_changes(form, self.seen)
        if any(form.errors for form in self.forms.values()):
            return self._page(status=_REFUSED)
        if not changes:
            return self._page(unchanged=True)
        try:
            return self._save(changes) if go == "save" else self._preview(changes)
        except InvalidDefinition as error:
            self._tell(error)
            return self._page(status=_REFUSED)
        except VersionConflict as conflict:
            self.schedule = find(self.schedule.pk)
            if go == "save" and drafts.merged(Definition.of(self.schedule), changes) == Definition.of(self.schedule):
                return _leave(self.request, reverse("schedule", args=[self.schedule.pk]))  # pressed twice
            told = drafts.meanwhile(self.request, conflict, seen=self.seen, current=Definition.of(self.schedule))
            based = [drafts.rebased(form, self.seen, self.schedule, self.version) for form in self.forms.values()]
            self.forms = dict(zip(self.forms, [form for form, _version in based], strict=True))
            return self._page(status=_REFUSED, meanwhile=told, version=self.schedule.version)
        except NotAllowed as error:
            messages.error(self.request, translated(str(error)))
            return _leave(self.request, reverse("schedule", args=[self.schedule.pk]))

    def _apply_to(self) -> ApplyTo:
        return ApplyTo.UNSENT if self.request.POST.get("apply_to") == ApplyTo.UNSENT else ApplyTo.NEXT

    def _preview(self, changes: dict[str, Any], *, again: bool = False) -> HttpResponse:
        tried = touches.try_update(
            schedule_id=self.schedule.pk,
            changes=changes,
            by=actor(self.request.user),
            now=self.around.now,
            expected_version=self.version,
            apply_to=self._apply_to(),
        )
        after = drafts.merged(self.seen, changes)
        asks = "audience_query" in changes
        preview = Preview(
            changes=drafts.changes_in_words(self.seen, after),
            touched=[_touched(each, self.schedule.time_zone_mode) for each in tried.touched],
            next_run_at=tried.schedule.next_run_at,
            before=counting.size(self.seen.audience_query, now=self.around.now) if asks else None,
            after=counting.size(after.audience_query, now=self.around.now) if asks else None,
            audience_changes=asks,
            has_begun=self.schedule.occurrences.open().filter(begun_at__isnull=False).exists(),
            apply_to=self._apply_to(),
            seal=self._seal(changes),
        )
        return self._page(preview=preview, looked_again=again)

    def _save(self, changes: dict[str, Any]) -> HttpResponse:
        if self.request.POST.get("seal") != self._seal(changes):
            return self._preview(changes, again=True)
        operations.update(
            schedule_id=self.schedule.pk,
            changes=changes,
            by=actor(self.request.user),
            now=clock.now(),
            expected_version=self.version,
            apply_to=self._apply_to(),
        )
        messages.success(self.request, _("The change is saved."))
        return _leave(self.request, reverse("schedule", args=[self.schedule.pk]))

    def _seal(self, changes: dict[str, Any]) -> str:
        text = json.dumps([self.version, self._apply_to(), changes], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _tell(self, error: InvalidDefinition) -> None:
        for form in self.forms.values():
            form.add_problems(error.problems)
        if not any(form.errors for form in self.forms.values()):
            words = " ".join(problem_in_words(problem) for problem in error.problems)
            self.forms["basics"].add_error(None, words)

    def _page(self, status: int = 200, **more: Any) -> HttpResponse:
        return _answer(self.request, self.schedule, self.forms, self.around, status=status, **more)


def _touched(run: Touch, mode: str) -> Touched:
    return Touched(run, timings.wall(run.occurrence_at, mode), str(EFFECTS[Effect(run.effect)]), sum(run.done.values()))


def _answer(
    request: HttpRequest,
    schedule: Schedule,
    forms: dict[str, StepForm],
    around: Around,
    *,
    status: int = 200,
    meanwhile: Meanwhile | None = None,
    preview: Preview | None = None,
    **more: Any,
) -> HttpResponse:
    message = forms["message"]
    assert isinstance(message, MessageForm)
    context = {
        **frame(request),
        "title": _("Change “%(name)s”") % {"name": schedule.name},
        "crumbs": [(_("Schedules"), reverse("schedules")), (schedule.name, reverse("schedule", args=[schedule.pk]))],
        "schedule": schedule,
        "address": reverse("schedule-edit", args=[schedule.pk]),
        "sections": [(step, TITLES[step], form, f"frontend/wizard/{step}_fields.html") for step, form in forms.items()],
        "version": request.POST.get("version", schedule.version),
        "has_errors": any(form.errors for form in forms.values()),
        **looks.offered(schedule, message),
        "meanwhile": meanwhile,
        "preview": preview,
        "choices": _apply_choices(),
        **more,
    }
    if is_htmx(request):
        return render(request, "frontend/wizard/edit_form.html", context, status=status)
    return framed(request, "frontend/wizard/edit.html", context, status=status)


def _apply_choices() -> list[tuple[str, str, str]]:
    return [
        (ApplyTo.NEXT, _("Let what has begun end as it began"), _("The change holds from the next run on.")),
        (
            ApplyTo.UNSENT,
            _("Change it for everybody who has not got it yet"),
            _("Whoever has it keeps the old one; the rest get the new one."),
        ),
    ]


def _leave(request: HttpRequest, address: str) -> HttpResponse:
    if is_htmx(request):
        return HttpResponse(headers={"HX-Redirect": address})
    return HttpResponseRedirect(address)

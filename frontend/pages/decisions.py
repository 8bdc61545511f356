"""What a person decides about a run: try again what has failed, let go on what is held, pause, resume and cancel the
schedule that it belongs to. Each is asked twice."""

from collections.abc import Callable
from dataclasses import dataclass

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from delivery import reopening
from delivery.reopening import NotReopened
from frontend.access import actor, needs
from frontend.wording import number
from frontend.wording.sayings import translated
from schedules import clock, operations
from schedules.models import Occurrence, OccurrenceState, Schedule, ScheduleStatus
from schedules.operations import NotAllowed
from schedules.permissions import Ability
from schedules.stops import InvalidReason


@dataclass(frozen=True)
class Again:
    """A button that tries again; ``people`` of whom ``maybe`` may have the message. Empty fields leave all in."""

    occurrence_id: int
    people: int
    maybe: int
    label: str
    reason: str = ""
    recipient_id: int | None = None

    @property
    def confirmation(self) -> str:
        if self.recipient_id is not None:
            if self.maybe:
                return _("Nobody knows whether the first one arrived, so it may arrive twice.")
            return _("The person did not get it. It is tried at once, up to four times.")
        if not self.maybe:
            words = ngettext(
                "%(people)s person did not get it. It is tried at once, up to four times.",
                "%(people)s people did not get it. They are tried at once, up to four times each.",
                self.people,
            )
        elif self.maybe == self.people:
            words = ngettext(
                "%(people)s person may have it already, which nobody knows, and so may get it twice.",
                "These %(people)s may have it already, which nobody knows, and so may get it twice.",
                self.people,
            )
        else:
            words = ngettext(
                "%(maybe)s of these %(people)s people may have it already, which nobody knows, and may get it twice.",
                "%(maybe)s of these %(people)s people may have it already, which nobody knows, and may get it twice.",
                self.maybe,
            )
        return words % {"people": number(self.people), "maybe": number(self.maybe)}


class AgainForm(forms.Form):
    reason = forms.RegexField(r"^[a-z_]{1,60}$", required=False)
    recipient = forms.IntegerField(required=False, min_value=1, max_value=2**63 - 1)


def is_reopenable(occurrence: Occurrence) -> bool:
    """Whether asking makes sense; the operation has the last word."""
    return (
        occurrence.state in (OccurrenceState.RUNNING, OccurrenceState.FINISHED)
        and occurrence.ends_at > clock.now()
        and occurrence.outcomes is None
        and occurrence.schedule.status not in (ScheduleStatus.CANCELLED, ScheduleStatus.DELETED)
    )


@require_POST
@needs(Ability.EDIT_SCHEDULES)
def again(request: HttpRequest, occurrence_id: int) -> HttpResponse:
    """Try again one person, the people of one reason, or all who have failed."""
    form = AgainForm(request.POST)
    if not form.is_valid():
        return HttpResponse(_("What is to be tried again can't be read."), status=400)
    recipient_id, reason = form.cleaned_data["recipient"], form.cleaned_data["reason"]
    try:
        done = reopening.retry_failed(
            occurrence_id=occurrence_id,
            recipient_ids=None if recipient_id is None else [recipient_id],
            reason=reason,
            by=actor(request.user),
            now=clock.now(),
        )
    except Occurrence.DoesNotExist:
        raise Http404(_("There is no run %(id)s.") % {"id": occurrence_id}) from None
    except NotReopened as error:
        messages.error(request, translated(str(error)))
    else:
        _say(request, done.people)
    if recipient_id is not None:
        return HttpResponseRedirect(reverse("delivery", args=[occurrence_id, recipient_id]))
    return _back(occurrence_id)


def _say(request: HttpRequest, people: int) -> None:
    if people:
        words = ngettext("%(people)s person is being tried again.", "%(people)s people are being tried again.", people)
        messages.success(request, words % {"people": number(people)})
    else:
        messages.warning(request, _("Nothing was changed: nobody of them is failed any more."))


def _back(occurrence_id: int) -> HttpResponse:
    return HttpResponseRedirect(reverse("occurrence", args=[occurrence_id]))


@require_POST
@needs(Ability.EDIT_SCHEDULES)
def release(request: HttpRequest, occurrence_id: int) -> HttpResponse:
    """Let a held run go on."""
    _found(occurrence_id)
    if operations.release_occurrence(occurrence_id=occurrence_id, by=actor(request.user), now=clock.now()):
        messages.success(request, _("The run goes on where it stopped."))
    else:
        messages.warning(request, _("Nothing was changed: this run is not held."))
    return _back(occurrence_id)


def _found(occurrence_id: int) -> Occurrence:
    found = Occurrence.objects.select_related("schedule").filter(pk=occurrence_id).first()
    if found is None:
        raise Http404(_("There is no run %(id)s.") % {"id": occurrence_id})
    return found


# --- The schedule at hand ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verb:
    """Something done to a run's schedule; ``asked`` is what it means, told before anybody says yes."""

    name: str
    label: str
    asked: str
    sure: str
    is_dangerous: bool = False
    takes_reason: bool = False


class ReasonForm(forms.Form):
    reason = forms.CharField(required=False, max_length=500)


_OPERATIONS: dict[str, Callable[..., Schedule]] = {
    "pause": operations.pause,
    "resume": operations.resume,
    "cancel": operations.cancel,
}
_DONE = {
    "pause": gettext_lazy("The schedule is paused: no call to the provider starts any more. Who is left waits."),
    "resume": gettext_lazy("The schedule goes on where it stopped. Nobody gets anything twice."),
    "cancel": gettext_lazy("The schedule is cancelled, and what of it was open with it."),
}


def verbs(occurrence: Occurrence) -> list[Verb]:
    """What may be decided about the schedule of a run that is not over; the operations have the last word."""
    if occurrence.closed_at is not None or occurrence.state == OccurrenceState.CANCELLED:
        return []
    name = {"name": occurrence.schedule.name}
    cancel = Verb(
        "cancel",
        _("Cancel"),
        _(
            "Cancelling belongs to the schedule “%(name)s”: this run ends, and no further one ever begins."
            " Who has it keeps it; who waits does not get it. There is no way back."
        )
        % name,
        _("Yes, cancel the schedule"),
        is_dangerous=True,
    )
    if occurrence.schedule.status == ScheduleStatus.PAUSED:
        resume = Verb(
            "resume",
            _("Resume"),
            _("The schedule “%(name)s” goes on: who still waits and is due gets it at once, nobody twice.") % name,
            _("Yes, resume the schedule"),
        )
        return [resume, cancel]
    if occurrence.schedule.status in (ScheduleStatus.ACTIVE, ScheduleStatus.BROKEN):
        pause = Verb(
            "pause",
            _("Pause"),
            _(
                "Pausing belongs to the schedule “%(name)s”: this run and its later ones wait until"
                " somebody resumes it. Within five seconds no call to the provider starts any more."
            )
            % name,
            _("Yes, pause the schedule"),
            takes_reason=True,
        )
        return [pause, cancel] if occurrence.schedule.status == ScheduleStatus.ACTIVE else [cancel]
    return []


@require_POST
@needs(Ability.EDIT_SCHEDULES)
def decide(request: HttpRequest, occurrence_id: int, verb: str) -> HttpResponse:
    """Pause, resume or cancel the schedule of a run."""
    schedule_id = _found(occurrence_id).schedule_id
    if verb not in _OPERATIONS:
        raise Http404
    options = {}
    if verb == "pause":
        form = ReasonForm(request.POST)
        if not form.is_valid():
            words = _("Nothing was changed: the reason may have at most 500 characters.")
            if not form.has_error("reason", "max_length"):
                words = f"{form['reason'].label}: {form.errors['reason'][0]}"
            messages.error(request, words)
            return _back(occurrence_id)
        options["reason"] = form.cleaned_data["reason"]
    try:
        _OPERATIONS[verb](schedule_id=schedule_id, by=actor(request.user), now=clock.now(), **options)
    except (NotAllowed, InvalidReason) as error:
        messages.error(request, translated(str(error)))
    else:
        messages.success(request, _DONE[verb])
    return _back(occurrence_id)

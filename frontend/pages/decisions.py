"""What a person decides about a run: try again what has failed, let go on what is held. Each is asked twice."""

from dataclasses import dataclass

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from delivery import reopening
from delivery.reopening import NotReopened
from frontend.access import actor, needs
from frontend.wording import count
from schedules import clock, operations
from schedules.models import Occurrence, OccurrenceState, ScheduleStatus
from schedules.permissions import Ability


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
                return "Nobody knows whether the first one arrived, so it may arrive twice."
            return "The person did not get it. It is tried at once, up to four times."
        whom = count(self.people, "person", "people")
        if not self.maybe:
            return f"{whom} did not get it. They are tried at once, up to four times each."
        which = "They" if self.maybe == self.people else f"{self.maybe:,} of these {whom}"
        return f"{which} may have it already, which nobody knows, and so may get it twice."


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
        return HttpResponse("What is to be tried again can't be read.", status=400)
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
        raise Http404(f"There is no run {occurrence_id}.") from None
    except NotReopened as error:
        messages.error(request, str(error))
    else:
        _say(request, done.people)
    if recipient_id is not None:
        return HttpResponseRedirect(reverse("delivery", args=[occurrence_id, recipient_id]))
    return HttpResponseRedirect(reverse("occurrence", args=[occurrence_id]))


def _say(request: HttpRequest, people: int) -> None:
    if people:
        messages.success(request, f"{count(people, 'person is', 'people are')} being tried again.")
    else:
        messages.warning(request, "Nothing was changed: nobody of them is failed any more.")


@require_POST
@needs(Ability.EDIT_SCHEDULES)
def release(request: HttpRequest, occurrence_id: int) -> HttpResponse:
    """Let a held run go on."""
    if not Occurrence.objects.filter(pk=occurrence_id).exists():
        raise Http404(f"There is no run {occurrence_id}.")
    if operations.release_occurrence(occurrence_id=occurrence_id, by=actor(request.user), now=clock.now()):
        messages.success(request, "The run goes on where it stopped.")
    else:
        messages.warning(request, "Nothing was changed: this run is not held.")
    return HttpResponseRedirect(reverse("occurrence", args=[occurrence_id]))

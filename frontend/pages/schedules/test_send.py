"""``/schedules/<id>/test/``: the schedule's message, sent once to be looked at, and what became of it."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods

from delivery import previews, test_sends
from delivery.models import TestSend
from delivery.test_sends import InvalidTestSend
from frontend.access import actor, needs
from frontend.pages.frame import framed, is_htmx
from frontend.pages.schedules.actions import find
from frontend.wording import reason
from frontend.wording.sayings import translated
from schedules import clock
from schedules.models import Channel, Schedule
from schedules.operations import NotAllowed
from schedules.permissions import Ability

_UNDER_WAY = (TestSend.State.WAITING, TestSend.State.SENDING)
_FIELDS = {"recipient": "external_id", "to": "to"}
STATES = {
    TestSend.State.WAITING: gettext_lazy("It waits for a worker, a second or two."),
    TestSend.State.SENDING: gettext_lazy("It is being handed to the provider."),
    TestSend.State.SENT: gettext_lazy("It was sent."),
    TestSend.State.FAILED: gettext_lazy("It could not be sent."),
    TestSend.State.UNANSWERED: gettext_lazy("The provider did not answer, so nobody knows whether it arrives."),
}


class TestForm(forms.Form):
    external_id = forms.CharField(
        max_length=200,
        label=gettext_lazy("With whose data"),
        help_text=gettext_lazy("External id of the person whose name and attributes are filled in."),
    )
    to = forms.EmailField(
        max_length=320,
        label=gettext_lazy("To this e-mail address"),
        help_text=gettext_lazy("Your own, so that the person whose data is used gets nothing."),
    )
    locale = forms.CharField(
        required=False,
        max_length=35,
        label=gettext_lazy("In this language"),
        help_text=gettext_lazy("Such as de or en-GB. Empty: the person's own."),
    )

    def __init__(self, *args: Any, channel: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if channel != Channel.EMAIL:
            del self.fields["to"]
            self.fields["external_id"].label = _("To whom")
            self.fields["external_id"].help_text = _("External id of a person, who gets it: yourself or a colleague.")


@require_http_methods(["GET", "POST"])
@needs(Ability.EDIT_SCHEDULES)
def test_send(request: HttpRequest, schedule_id: int) -> HttpResponse:
    schedule = find(schedule_id)
    form = TestForm(request.POST or None, channel=schedule.channel, initial=_initial(request, schedule.channel))
    if request.method == "POST" and form.is_valid():
        try:
            wish = test_sends.ask(schedule_id=schedule_id, **form.cleaned_data, by=actor(request.user), now=clock.now())
        except InvalidTestSend as error:
            for problem in error.problems:
                form.add_error(_FIELDS.get(problem.field), translated(problem.message))
        except NotAllowed as error:
            form.add_error(None, translated(str(error)))
        else:
            return _result(request, schedule, wish)
    context = {**_context(schedule), "form": form, "is_modal": is_htmx(request)}
    template = "test_body.html" if is_htmx(request) else "test.html"
    return framed(request, f"frontend/schedules/{template}", context, status=422 if form.errors else 200)


def _initial(request: HttpRequest, channel: str) -> dict[str, str]:
    """An e-mail goes to oneself, with the data of somebody."""
    if request.method != "GET":
        return {}
    somebody = previews.reader(external_id=None, locale=None)
    is_email = channel == Channel.EMAIL
    return {
        "to": getattr(request.user, "email", ""),
        "external_id": somebody.external_id if is_email and somebody else "",
    }


def _context(schedule: Schedule) -> dict[str, Any]:
    return {
        "title": _("Send a test"),
        "schedule": schedule,
        "crumbs": [(_("Schedules"), reverse("schedules")), (schedule.name, reverse("schedule", args=[schedule.pk]))],
    }


def _result(request: HttpRequest, schedule: Schedule, wish: TestSend) -> HttpResponse:
    if is_htmx(request):
        return _shown(request, schedule, wish)
    messages.success(request, _("The test is on its way."))
    return HttpResponseRedirect(reverse("schedule-test-result", args=[schedule.pk, wish.pk]))


@needs(Ability.EDIT_SCHEDULES)
def result(request: HttpRequest, schedule_id: int, test_send_id: int) -> HttpResponse:
    """What has become of a test so far; the page asks again while it is under way."""
    schedule = find(schedule_id)
    wish = TestSend.objects.filter(pk=test_send_id, schedule_id=schedule_id).first()
    if wish is None:
        raise Http404(_("There is no such test."))
    return _shown(request, schedule, wish)


def _shown(request: HttpRequest, schedule: Schedule, wish: TestSend) -> HttpResponse:
    context = {
        **_context(schedule),
        "wish": wish,
        "words": STATES[TestSend.State(wish.state)],
        "reason": reason(wish.reason) if wish.reason else "",
        "is_under_way": wish.state in _UNDER_WAY,
        "is_modal": is_htmx(request) and (request.method == "POST" or "modal" in request.GET),
    }
    template = "test_result_body.html" if is_htmx(request) else "test_result.html"
    return framed(request, f"frontend/schedules/{template}", context)

"""Parts of a step that are asked for by themselves: what it would be, a message as a document, a test's answer."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods

from delivery.models import TestSend
from frontend import policies
from frontend.access import needs
from frontend.pages.frame import frame, framed, is_htmx
from frontend.wizard import drafts, looks, review
from frontend.wizard.drafts import FORMS
from frontend.wizard.finding import find
from frontend.wizard.forms import MessageForm
from frontend.wording import reason
from frontend.wording.problems import problem_in_words
from schedules import clock
from schedules import definition as definitions
from schedules.definition import Definition
from schedules.permissions import Ability
from schedules.templates import InvalidTemplate


@needs(Ability.EDIT_SCHEDULES)
@never_cache
@require_http_methods(["GET", "POST"])
def look(request: HttpRequest, schedule_id: int, step: str) -> HttpResponse:
    """What a step's answers, saved or not, would come to."""
    schedule, around = find(schedule_id), drafts.around(request)
    if step == "review":
        definition = Definition.of(schedule)
        whole = not definitions.check(definition, now=around.now)
        context = looks.forecast(definition, schedule, around) if whole else {"missing": True}
    elif step in looks.LOOKS:
        data = request.POST if request.method == "POST" else None
        form = FORMS[step](data, definition=Definition.of(schedule), around=around)
        context = looks.LOOKS[step](request, schedule, form, around)
    else:
        raise Http404(_("There is nothing to look at for this step."))
    return _part(request, f"frontend/wizard/look_{step}.html", {"schedule": schedule, **context})


@needs(Ability.EDIT_SCHEDULES)
@never_cache
@require_GET
def people(request: HttpRequest, schedule_id: int) -> HttpResponse:
    """How many the draft is for, and its name's field where they are many."""
    schedule = find(schedule_id)
    return _part(request, "frontend/wizard/review_people.html", review.people(schedule, now=clock.now()))


@needs(Ability.EDIT_SCHEDULES)
@never_cache
@require_GET
def offered(request: HttpRequest, schedule_id: int) -> HttpResponse:
    """The templates that match what is typed."""
    schedule = find(schedule_id)
    form = MessageForm(request.GET, definition=Definition.of(schedule), around=drafts.around(request))
    context = {"schedule": schedule, "form": form, **looks.offered(schedule, form)}
    return _part(request, "frontend/wizard/templates.html", context)


@needs(Ability.EDIT_SCHEDULES)
@never_cache
@require_GET
def body(request: HttpRequest, schedule_id: int) -> HttpResponse:
    """A message's HTML as one reader would get it, for a frame."""
    schedule = find(schedule_id)
    raw = request.GET.get("template_id", "")
    try:
        told = looks.rendered(
            request,
            template_id=int(raw) if raw.isdecimal() and len(raw) < 19 else schedule.template_id or 0,
            channel=schedule.channel,
            reader=request.GET.get("reader") or None,
            locale=request.GET.get("locale", "")[:35],
            now=clock.now(),
        )
    except InvalidTemplate as error:
        raise Http404(" ".join(problem_in_words(problem) for problem in error.problems)) from error
    document: HttpResponse = policies.foreign(told.rendered.html)
    return document


@needs(Ability.EDIT_SCHEDULES)
@never_cache
@require_GET
def test_state(request: HttpRequest, schedule_id: int, test_send_id: int) -> HttpResponse:
    """What became of a test send; asks again by itself until it is settled."""
    wish = TestSend.objects.filter(pk=test_send_id, schedule_id=schedule_id).first()
    if wish is None:
        raise Http404(_("There is no such test."))
    return _part(request, "frontend/wizard/test_state.html", test_context(wish))


def test_context(wish: TestSend) -> dict[str, Any]:
    settled = wish.state not in (TestSend.State.WAITING, TestSend.State.SENDING)
    return {"wish": wish, "is_settled": settled, "why": reason(wish.reason) if wish.reason else ""}


def _part(request: HttpRequest, template: str, context: dict[str, Any]) -> HttpResponse:
    """A fragment; by itself, where somebody opens its address, inside the frame."""
    if is_htmx(request):
        return render(request, "frontend/part.html", {**frame(request), **context, "part": template})
    return framed(request, "frontend/wizard/part.html", {"title": _("Preview"), "part": template, **context})

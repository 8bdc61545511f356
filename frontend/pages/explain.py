"""Why did somebody get a schedule's message, or why not? Asked for one person, answered in words with the facts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from delivery import explain as explaining
from delivery import listing
from delivery.explain import Audience, Explanation, NotKnown, Reachable
from delivery.listing import Filters
from frontend import wording
from frontend.access import needs
from frontend.instants import show
from frontend.pages.frame import framed
from frontend.pages.ledger import Row, with_company
from frontend.pages.paging import RecipientField, link
from frontend.pages.story import told_of
from frontend.wording import audiences
from frontend.wording import feedback as wording_of_feedback
from frontend.zones import Zones, zones_of
from schedules import clock
from schedules.audience.matching import Verdict
from schedules.audience.tree import Clause
from schedules.models import Channel, Schedule
from schedules.permissions import Ability, can, shown_address

# Of what a person got lately, and of schedules with such a name.
_LATEST, _ALIKE = 10, 6


class PersonForm(forms.Form):
    """One person, in a run that is known."""

    person = RecipientField()

    def __init__(self, data: Any = None) -> None:
        super().__init__(data)
        self.fields["person"].label = _("Person")


class ExplainForm(forms.Form):
    recipient = RecipientField()
    schedule = forms.CharField(
        required=False,
        max_length=200,
        label=gettext_lazy("Schedule"),
        help_text=gettext_lazy("Its name, or its number. Empty: everything lately"),
    )
    occurrence = forms.IntegerField(required=False, min_value=1, max_value=2**63 - 1, widget=forms.HiddenInput)

    def clean_recipient(self) -> int:
        found: int | None = self.cleaned_data["recipient"]
        if found is None:
            raise forms.ValidationError(_("Say who is meant: the external id, or #number."))
        return found


@dataclass(frozen=True)
class Test:
    """A clause of the audience, and whether it holds for the profile as it is today."""

    words: str
    holds: bool
    decides: bool
    held: str


@dataclass(frozen=True)
class Answer:
    """``told``: the parts of the story where the ledger has a row; ``problem`` where nobody is known."""

    sentence: str = ""
    found: Explanation | None = None
    told: Mapping[str, Any] | None = None
    tests: Sequence[Test] = ()
    reachable: Sequence[str] = ()
    problem: str = ""


@needs(Ability.READ)
def explain(request: HttpRequest) -> HttpResponse:
    form = ExplainForm(request.GET or None)
    answer, alike, latest = None, list[Schedule](), list[Row]()
    if form.is_bound and form.is_valid():
        asked = form.cleaned_data
        if asked["schedule"]:
            alike = _schedules(asked["schedule"])
            if len(alike) == 1:
                answer = answer_about(request, asked["recipient"], alike[0].pk, occurrence_id=asked["occurrence"])
            elif not alike:
                form.add_error("schedule", _("No schedule is called so. Use a part of its name, or its number."))
        else:
            latest = _latest(asked["recipient"])
    context = {
        "title": _("Why did somebody get it, or not?"),
        "form": form,
        "answer": answer,
        "heading": "h2",
        "alike": [(each, link(request, "explain", parameter="schedule", start=each.pk)) for each in alike]
        if len(alike) > 1
        else [],
        "latest": latest,
        "is_asked": form.is_bound and form.is_valid(),
        "ledger": f"{reverse('ledger')}?recipient=%23{form.cleaned_data['recipient']}" if latest else "",
    }
    return framed(request, "frontend/explain.html", context)


def _schedules(text: str) -> list[Schedule]:
    """The one that is meant, or those that may be: by number, by name, by a part of the name."""
    if text.isascii() and text.isdigit():
        return list(Schedule.objects.filter(pk=int(text))) if len(text) < 19 else []
    named = Schedule.objects.live().filter(name=text)[:_ALIKE]
    return list(named) or list(Schedule.objects.live().filter(name__icontains=text)[:_ALIKE])


def _latest(recipient_id: int) -> list[Row]:
    return with_company(listing.page(Filters(recipient_id=recipient_id), now=clock.now(), limit=_LATEST).rows)


def answer_about(
    request: HttpRequest, recipient_id: int, schedule_id: int, *, occurrence_id: int | None = None
) -> Answer:
    """Why the person got the schedule's message, or not, in that run or the latest that has opened."""
    zones = zones_of(request)
    try:
        found = explaining.explain(
            schedule_id=schedule_id, recipient_id=recipient_id, occurrence_id=occurrence_id, now=clock.now()
        )
    except NotKnown as error:
        words = {
            "recipient": _("Nobody is known by this name. Somebody erased is found by #number only."),
            "occurrence": _("The schedule has no such run."),
        }
        return Answer(problem=words.get(error.what, _("There is no such schedule.")))
    in_clear = can(request.user, Ability.SEE_ADDRESSES)
    return Answer(
        wording.explanation(found, zones=zones),
        found,
        told_of(request, found.story, person=found.person) if found.story else None,
        _tests(found.audience, in_clear=in_clear, zones=zones),
        _reachable(found.reachable, in_clear=in_clear) if found.reachable else (),
    )


def _tests(audience: Audience | None, *, in_clear: bool, zones: Zones) -> list[Test]:
    return [
        _test(each, each.node, in_clear=in_clear, zones=zones)
        for each in (audience.verdicts if audience else ())
        if isinstance(each.node, Clause)
    ]


def _test(verdict: Verdict, clause: Clause, *, in_clear: bool, zones: Zones) -> Test:
    held = _held(verdict.held, in_clear=in_clear, zones=zones)
    return Test(audiences.clause_in_words(clause), verdict.holds, verdict.decides, held)


def _held(value: Any, *, in_clear: bool, zones: Zones) -> str:
    """What the profile has there. What an attribute holds may be an address, whatever it is called."""
    match value:
        case None:
            return _("nothing")
        case bool():
            return _("yes") if value else _("no")
        case datetime():
            return show(value, zones.of())
        case str() if "@" in value:
            return shown_address(value, in_clear=in_clear)
        case str():
            return value or _("nothing")
        case list() | tuple() | set() | frozenset():
            told = [_held(each, in_clear=in_clear, zones=zones) for each in value]
            return ", ".join(sorted(told)) or _("nothing")
        case dict():
            return ", ".join(f"{key}: {_held(each, in_clear=in_clear, zones=zones)}" for key, each in value.items())
    return str(value)


def _reachable(found: Reachable, *, in_clear: bool) -> list[str]:
    """Whether the channel reaches the person today, a sentence each."""
    channel = Channel(found.channel).label
    told = []
    if found.channel == Channel.EMAIL and found.has_address:
        address = shown_address(found.address, in_clear=in_clear)
        told.append(_("The profile has the address %(address)s.") % {"address": address})
    elif found.channel == Channel.EMAIL:
        told.append(_("The profile has no e-mail address."))
    elif found.channel == Channel.PUSH and found.has_address:
        told.append(_("The profile has devices that can be reached."))
    elif found.channel == Channel.PUSH:
        told.append(_("The profile has no device that can be reached."))
    if found.suppression:
        why = wording_of_feedback.why_suppressed(found.suppression.reason)
        told.append(_("The address is not written to. %(why)s") % {"why": why})
    if found.objection and not found.is_opted_out:
        told.append(wording.reason(found.objection))
    elif found.is_opted_out:
        told.append(_("The person has opted out of %(channel)s.") % {"channel": channel})
    return told

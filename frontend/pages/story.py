"""The story of one delivery: what was promised to a person, each attempt, and what became of it, in plain words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from delivery import explain
from delivery.explain import DeviceFact, Reach, Story
from delivery.models import CONFIRMED, OUTCOME_UNKNOWN, Delivery, Feedback, News, State
from delivery.retry import MAX_RETRIES
from frontend import wording
from frontend.access import needs
from frontend.pages.decisions import Again, is_reopenable
from frontend.pages.frame import framed
from frontend.pages.ledger import with_company
from frontend.wording import STATES, feedback, reason
from frontend.zones import zones_of
from schedules import clock
from schedules.models import Channel, Occurrence, Recipient
from schedules.permissions import Ability, can, masked, shown_address

_OF_VERDICT = {
    "permanent": gettext_lazy("refused"),
    "unknown": gettext_lazy("no answer"),
    "sent": STATES[State.SENT],
    CONFIRMED: gettext_lazy("taken after all"),
}
_CSS_OF_VERDICT = {"unknown": "unknown", "sent": State.SENT.label, CONFIRMED: State.SENT.label}


@dataclass(frozen=True)
class Attempt:
    """A provider call for this person. ``asked_again``: the first one after somebody had it tried again."""

    number: int
    at: datetime | None
    label: str
    css: str
    words: str
    own_words: str = ""
    asked_again: bool = False


@dataclass(frozen=True)
class Heard:
    """Something that the provider told of the message afterwards."""

    at: datetime
    label: str
    css: str
    own_words: str


@dataclass(frozen=True)
class Used:
    """A message that uses up the person's limit; ``link`` leads to its story, empty where the ledger lost it."""

    name: str
    at: datetime | None
    state: str
    css: str
    link: str


@dataclass(frozen=True)
class Limit:
    """The cap that stood in the way. ``free_at``: when there is room again, where that is known."""

    words: str
    used: list[Used]
    free_at: datetime | None


@dataclass(frozen=True)
class DeviceLine:
    name: str
    words: str
    css: str


@needs(Ability.READ)
def story(request: HttpRequest, occurrence_id: int, recipient_id: int) -> HttpResponse:
    occurrence = Occurrence.objects.select_related("schedule").filter(pk=occurrence_id).first()
    delivery = _delivery(occurrence, recipient_id) if occurrence else None
    if occurrence is None or delivery is None:
        raise Http404(_("The ledger has no such delivery: it never was, or its day is past the ledger's retention."))
    person = Recipient.objects.prefetch_related("devices").filter(pk=recipient_id).first()
    told = explain.of_delivery(delivery, occurrence=occurrence, person=person, now=clock.now())
    whom = person.external_id if person else _("erased person #%(id)s") % {"id": recipient_id}
    context = {
        "title": _("%(schedule)s to %(person)s") % {"schedule": occurrence.schedule.name, "person": whom},
        "crumbs": [
            (_("Runs"), reverse("occurrences")),
            (occurrence.schedule.name, reverse("occurrence", args=[occurrence_id])),
        ],
        "heading": "h2",
        **told_of(request, told, person=person),
    }
    return framed(request, "frontend/story.html", context)


def _delivery(occurrence: Occurrence, recipient_id: int) -> Delivery | None:
    rows = Delivery.objects.filter(day=occurrence.day, occurrence_id=occurrence.pk, recipient_id=recipient_id)
    return rows.first()


def told_of(request: HttpRequest, told: Story, *, person: Recipient | None) -> Mapping[str, Any]:
    """What the parts of a story show, on its own page and wherever somebody is looked up."""
    delivery, occurrence = told.delivery, told.occurrence
    assert occurrence is not None  # nobody is looked up in a run that is gone
    (row,) = with_company([delivery])
    attempts = [_attempt(each) for each in told.attempts]
    is_push = occurrence.schedule.channel == Channel.PUSH
    return {
        "row": row,
        "occurrence": occurrence,
        "schedule": occurrence.schedule,
        "channel": Channel(occurrence.schedule.channel).label,
        "address": _address(person, occurrence.schedule.channel, request),
        "sentence": wording.story(told, zones=zones_of(request)),
        "attempts": attempts,
        "heard": _heard(told.feedback) if told.feedback else [],
        "at_most": MAX_RETRIES + 1,
        "limit": _limit(told.limit) if told.limit else None,
        "asked_again": explain.is_asked_again(delivery, told.attempts),
        "is_ahead": told.is_ahead,
        "last_words": "" if attempts and attempts[-1].words == row.reason else row.reason,
        "devices": [_device(each) for each in explain.devices(delivery, person)] if is_push else [],
        "again": _again(delivery, occurrence),
    }


def _address(person: Recipient | None, channel: str, request: HttpRequest) -> str:
    if person is None or channel != Channel.EMAIL:
        return ""
    return shown_address(person.email, in_clear=can(request.user, Ability.SEE_ADDRESSES))


def _again(delivery: Delivery, occurrence: Occurrence) -> Again | None:
    if delivery.state != State.FAILED or not is_reopenable(occurrence):
        return None
    maybe = int(delivery.reason == OUTCOME_UNKNOWN)
    return Again(occurrence.pk, 1, maybe, _("Send again"), recipient_id=delivery.recipient_id)


def _attempt(made: explain.Attempt) -> Attempt:
    is_sent = made.verdict == "sent"
    return Attempt(
        made.number,
        made.at,
        str(_OF_VERDICT.get(made.verdict, STATES[State.FAILED])),
        _CSS_OF_VERDICT.get(made.verdict, "failed"),
        _("Accepted.") if is_sent else reason(made.reason),
        _("Its id there: %(id)s") % {"id": made.provider_id} if made.provider_id else made.detail,
        made.asked_again,
    )


def _heard(row: Feedback) -> list[Heard]:
    """Everything that was told; the codes belong to the gravest of it."""
    return [
        Heard(at, str(feedback.NEWS[news]), feedback.CSS[news], row.detail if news is News(row.news) else "")
        for news, at in feedback.all_news(row)
    ]


def _limit(found: explain.Limit) -> Limit:
    return Limit(wording.limit(found), _used(found.used), found.free_at)


def _used(used: Sequence[explain.Used]) -> list[Used]:
    rows = {row.delivery.pk: row for row in with_company([each.row for each in used if each.row])}
    lines = []
    for each in used:
        row = rows.get(each.row.pk) if each.row else None
        if row is None or row.occurrence is None:
            words = _("run %(id)s of %(day)s, no longer in the ledger")
            lines.append(Used(words % {"id": each.occurrence_id, "day": each.day}, None, "", "", ""))
        else:
            name = _("“%(name)s”") % {"name": row.occurrence.schedule.name}
            lines.append(Used(name, each.at, row.state, row.css, row.story))
    return lines


_REACH = {
    Reach.HAS_IT: (gettext_lazy("has the message"), "sent"),
    Reach.HANDED_OVER: (gettext_lazy("was handed over"), "sent"),
    Reach.UNREGISTERED: (gettext_lazy("is no longer registered with the provider"), "unaddressable"),
    Reach.FAILED: (gettext_lazy("did not get it"), "failed"),
    Reach.WAITS: (gettext_lazy("has not got it yet"), "pending"),
}


def _device(fact: DeviceFact) -> DeviceLine:
    words, css = _REACH[fact.reach]
    if fact.device is None:
        return DeviceLine(_("A device that is gone since"), str(words), css)
    return DeviceLine(f"{fact.device.get_platform_display()} {masked(fact.device.token)}", str(words), css)

"""The story of one delivery: what was promised to a person, each attempt, and what became of it, in plain words."""

from dataclasses import dataclass
from datetime import datetime

from django.http import Http404, HttpRequest, HttpResponse

from delivery import explain
from delivery.explain import DeviceFact, Reach
from delivery.models import OUTCOME_UNKNOWN, Delivery, State
from delivery.retry import MAX_RETRIES
from frontend import wording
from frontend.access import needs
from frontend.pages.decisions import Again, is_reopenable
from frontend.pages.frame import framed
from frontend.pages.ledger import with_company
from frontend.wording import STATES, reason
from schedules import clock
from schedules.models import Channel, Occurrence, Recipient
from schedules.permissions import Ability, can, masked, shown_address

_OF_VERDICT = {"permanent": "refused", "unknown": "no answer", "sent": STATES[State.SENT]}
_CSS_OF_VERDICT = {"unknown": "unknown", "sent": State.SENT.label}


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
        raise Http404("The ledger has no such delivery: it never was, or its day is past the ledger's retention.")
    (row,) = with_company([delivery])
    told = explain.of_delivery(delivery, occurrence=occurrence, person=row.person, now=clock.now())
    attempts = [_attempt(each) for each in told.attempts]
    context = {
        "title": f"{occurrence.schedule.name} to {row.person or f'erased person #{recipient_id}'}",
        "row": row,
        "occurrence": occurrence,
        "schedule": occurrence.schedule,
        "channel": Channel(occurrence.schedule.channel).label,
        "address": _address(row.person, occurrence.schedule.channel, request),
        "sentence": wording.story(told),
        "attempts": attempts,
        "at_most": MAX_RETRIES + 1,
        "limit": _limit(told.limit) if told.limit else None,
        "asked_again": explain.is_asked_again(delivery, told.attempts),
        "is_ahead": told.is_ahead,
        "last_words": "" if attempts and attempts[-1].words == row.reason else row.reason,
        "devices": _devices(delivery, row.person) if occurrence.schedule.channel == Channel.PUSH else [],
        "again": _again(delivery, occurrence),
    }
    return framed(request, "frontend/story.html", context)


def _delivery(occurrence: Occurrence, recipient_id: int) -> Delivery | None:
    rows = Delivery.objects.filter(day=occurrence.day, occurrence_id=occurrence.pk, recipient_id=recipient_id)
    return rows.first()


def _address(person: Recipient | None, channel: str, request: HttpRequest) -> str:
    if person is None or channel != Channel.EMAIL:
        return ""
    return shown_address(person.email, in_clear=can(request.user, Ability.SEE_ADDRESSES))


def _again(delivery: Delivery, occurrence: Occurrence) -> Again | None:
    if delivery.state != State.FAILED or not is_reopenable(occurrence):
        return None
    maybe = int(delivery.reason == OUTCOME_UNKNOWN)
    return Again(occurrence.pk, 1, maybe, "Send again", recipient_id=delivery.recipient_id)


def _attempt(made: explain.Attempt) -> Attempt:
    is_sent = made.verdict == "sent"
    return Attempt(
        made.number,
        made.at,
        _OF_VERDICT.get(made.verdict, "failed"),
        _CSS_OF_VERDICT.get(made.verdict, "failed"),
        "Accepted." if is_sent else reason(made.reason),
        f"Its id there: {made.provider_id}" if made.provider_id else made.detail,
        made.asked_again,
    )


def _limit(found: explain.Limit) -> Limit:
    return Limit(wording.limit(found), _used(found.used), found.free_at)


def _used(used: list[explain.Used]) -> list[Used]:
    rows = {row.delivery.pk: row for row in with_company([each.row for each in used if each.row])}
    lines = []
    for each in used:
        row = rows.get(each.row.pk) if each.row else None
        if row is None or row.occurrence is None:
            name = f"run {each.occurrence_id} of {each.day}, no longer in the ledger"
            lines.append(Used(name, None, "", "", ""))
        else:
            lines.append(Used(row.occurrence.schedule.name, each.at, row.state, row.css, row.story))
    return lines


_REACH = {
    Reach.HAS_IT: ("has the message", "sent"),
    Reach.HANDED_OVER: ("was handed over", "sent"),
    Reach.UNREGISTERED: ("is no longer registered with the provider", "unaddressable"),
    Reach.FAILED: ("did not get it", "failed"),
    Reach.WAITS: ("has not got it yet", "pending"),
}


def _devices(delivery: Delivery, person: Recipient | None) -> list[DeviceLine]:
    return [DeviceLine(_device_name(each), *_REACH[each.reach]) for each in explain.devices(delivery, person)]


def _device_name(fact: DeviceFact) -> str:
    if fact.device is None:
        return "A device that is gone since"
    return f"{fact.device.get_platform_display()} {masked(fact.device.token)}"

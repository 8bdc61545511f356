"""The story of one delivery: what was promised to a person, each attempt, and what became of it, in plain words."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from delivery import caps
from delivery.models import OUTCOME_UNKNOWN, Circuit, Delivery, FailedAttempt, State
from delivery.retry import MAX_RETRIES
from frontend.access import needs
from frontend.admin_site import site
from frontend.instants import show
from frontend.pages.decisions import Again, is_reopenable
from frontend.pages.ledger import Row, with_company
from frontend.wording import STATES, count, reason
from schedules import clock
from schedules.models import Channel, Occurrence, Recipient, ScheduleStatus
from schedules.permissions import Ability, can, masked, shown_address

_WINDOWS = {caps.DAILY: (caps.DAY, "24 hours"), caps.WEEKLY: (caps.WEEK, "7 days")}
_OF_VERDICT = {"permanent": "refused", "unknown": "no answer"}


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
    attempts = _attempts(delivery)
    limit = _limit(delivery)
    context = {
        **site.each_context(request),
        "title": f"{occurrence.schedule.name} to {row.person or f'erased person #{recipient_id}'}",
        "row": row,
        "occurrence": occurrence,
        "schedule": occurrence.schedule,
        "channel": Channel(occurrence.schedule.channel).label,
        "address": _address(row.person, occurrence.schedule.channel, request),
        "sentence": sentence(row, attempts, limit),
        "attempts": attempts,
        "at_most": MAX_RETRIES + 1,
        "limit": limit,
        "asked_again": bool(attempts) and delivery.attempt < attempts[-1].number,
        "is_ahead": delivery.due_at > clock.now(),
        "last_words": "" if attempts and attempts[-1].words == row.reason else row.reason,
        "devices": _devices(row) if occurrence.schedule.channel == Channel.PUSH else [],
        "again": _again(delivery, occurrence),
    }
    return render(request, "frontend/story.html", context)


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


# --- The sentence -----------------------------------------------------------------------------------------------------


def sentence(row: Row, attempts: Sequence[Attempt], limit: Limit | None) -> str:
    """What became of it, or what it waits for; every instant with its zone."""
    delivery, zone_name = row.delivery, row.zone_name
    settled = show(delivery.settled_at, zone_name)
    state = State(delivery.state)
    why = reason(delivery.reason, state) if delivery.reason else ""
    if state is State.SENT:
        return f"{_sent(row)} {settled}" + (f", at attempt {delivery.attempt}." if delivery.attempt > 1 else ".")
    if state is State.PENDING:
        return _waits(row, attempts, limit, why)
    if state is State.SENDING:
        return "It is being sent at this moment."
    if state is State.UNKNOWN:
        until = f" until {show(delivery.leased_until + clock.shift(), zone_name)}" if delivery.leased_until else ""
        return (
            "The provider had the message and did not answer, so nobody knows whether it arrived."
            f" It waits{until}: a late answer still counts. Then it has failed."
        )
    if state is State.FAILED:
        return _failed(delivery, attempts, why)
    if state is State.RATE_LIMITED and limit:
        return f"Not sent, at {settled}: {limit.words[:1].lower()}{limit.words[1:]}"
    return f"Not sent. {why}"


def _sent(row: Row) -> str:
    channel = row.occurrence.schedule.channel if row.occurrence else ""
    if channel == Channel.IN_APP:
        return "It lies in the person's inbox since"
    return "The provider took it at" if row.delivery.provider_id or row.delivery.reached else "It was sent at"


def _failed(delivery: Delivery, attempts: Sequence[Attempt], why: str) -> str:
    if delivery.reason == OUTCOME_UNKNOWN:
        return (
            "Nobody knows whether it arrived: the provider had the message and never answered for it."
            " So it was not repeated, and counts as failed."
        )
    tries = delivery.attempt
    if tries > MAX_RETRIES:
        return f"Failed after {count(tries, 'attempt')}. The last time: {why[:1].lower()}{why[1:]}"
    return f"Failed, and trying again by itself would not help. {why}"


def _waits(row: Row, attempts: Sequence[Attempt], limit: Limit | None, why: str) -> str:
    delivery = row.delivery
    if held_up := _obstacle(row):
        return held_up
    is_ahead = delivery.due_at > clock.now()
    if not why:
        return "It waits for its time." if is_ahead else "It is due, and is about to be sent."
    if limit:
        return f"It waits. {limit.words}"
    next_try = f"The next try is at {show(delivery.due_at, row.zone_name)}." if is_ahead else "The next try is due now."
    if attempts and attempts[-1].number == delivery.attempt:
        return f"Attempt {delivery.attempt} of {MAX_RETRIES + 1} failed. {why} {next_try}"
    return f"It waits. {why} {next_try}"


def _obstacle(row: Row) -> str:
    """What keeps the whole run waiting, whoever it is."""
    occurrence = row.occurrence
    if occurrence is None:
        return ""
    if occurrence.held_reason:
        return "It waits with the whole run, which is held until somebody lets it go on."
    if occurrence.schedule.status == ScheduleStatus.PAUSED:
        return "It waits: the schedule is paused."
    if row.delivery.due_at <= clock.now() and Circuit.objects.filter(channel=occurrence.schedule.channel).exists():
        return "It waits with the whole channel: the provider refuses the account at present."
    return ""


# --- Attempts ---------------------------------------------------------------------------------------------------------


def _attempts(delivery: Delivery) -> list[Attempt]:
    """Every call for this person, the first one first; of those that were put off, no row is kept."""
    kept = FailedAttempt.objects.filter(
        day=delivery.day, occurrence_id=delivery.occurrence_id, recipient_id=delivery.recipient_id
    ).order_by("at")
    attempts: list[Attempt] = []
    for row in kept:
        attempts.append(
            Attempt(
                number=row.attempt,
                at=row.at,
                label=_OF_VERDICT.get(row.verdict, "failed"),
                css="unknown" if row.verdict == "unknown" else "failed",
                words=reason(row.reason),
                own_words=row.detail,
                asked_again=bool(attempts) and row.attempt <= attempts[-1].number,
            )
        )
    if delivery.state == State.SENT and delivery.attempt:
        asked_again = bool(attempts) and delivery.attempt <= attempts[-1].number
        attempts.append(
            Attempt(
                delivery.attempt,
                delivery.called_at or delivery.settled_at,
                STATES[State.SENT],
                State.SENT.label,
                "Accepted.",
                f"Its id there: {delivery.provider_id}" if delivery.provider_id else "",
                asked_again,
            )
        )
    return attempts


# --- The limit --------------------------------------------------------------------------------------------------------


def _limit(delivery: Delivery) -> Limit | None:
    """The cap that ``detail`` tells of; None where another reason stands, or nothing readable."""
    if delivery.reason not in _WINDOWS:
        return None
    window, words = _WINDOWS[delivery.reason]
    try:
        detail = json.loads(delivery.detail)
        most, keys = int(detail["limit"]), [_key(name) for name in detail["used"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return Limit(f"The person is at the limit of messages in {words}.", [], None)
    deliveries = _used_by(delivery.recipient_id, keys)
    used = [_used(key, deliveries.get(key)) for key in keys]
    free_at = _free_at([deliveries.get(key) for key in keys], window)
    if delivery.state == State.PENDING:
        free_at = delivery.due_at
    return Limit(f"The person is at the limit of {count(most, 'message')} in {words}.", used, free_at)


def _key(name: str) -> tuple[date, int]:
    day, _, occurrence_id = name.partition("-")
    return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).date(), int(occurrence_id)


def _used_by(recipient_id: int, keys: Sequence[tuple[date, int]]) -> dict[tuple[date, int], Row]:
    rows = Delivery.objects.filter(
        day__in=[day for day, _ in keys], occurrence_id__in=[pk for _, pk in keys], recipient_id=recipient_id
    )
    return {(row.delivery.day, row.delivery.occurrence_id): row for row in with_company(rows)}


def _used(key: tuple[date, int], row: Row | None) -> Used:
    if row is None or row.occurrence is None:
        return Used(f"run {key[1]} of {key[0]}, no longer in the ledger", None, "", "", "")
    at = row.delivery.claimed_at or row.delivery.called_at
    return Used(row.occurrence.schedule.name, at, row.state, row.css, row.story)


def _free_at(rows: Sequence[Row | None], window: timedelta) -> datetime | None:
    """When the oldest of them leaves the window."""
    claims = [row.delivery.claimed_at for row in rows if row and row.delivery.claimed_at]
    return min(claims) + window if claims and len(claims) == len(rows) else None


# --- Devices ----------------------------------------------------------------------------------------------------------


def _devices(row: Row) -> list[DeviceLine]:
    """Each device of the person's, and whether it has the message. Of a person erased none is known."""
    reached = {int(pk) for pk in row.delivery.reached.split(",") if pk}
    lines = []
    for device in row.person.devices.order_by("pk") if row.person else ():
        words, css = _of_device(device.pk in reached, device.active, State(row.delivery.state), bool(reached))
        lines.append(DeviceLine(f"{device.get_platform_display()} {masked(device.token)}", words, css))
        reached.discard(device.pk)
    return lines + [DeviceLine("A device that is gone since", "has the message", "sent") for _ in reached]


def _of_device(has_it: bool, is_active: bool, state: State, knows_any: bool) -> tuple[str, str]:
    if has_it:
        return "has the message", "sent"
    if not is_active:
        return "is no longer registered with the provider", "unaddressable"
    if state is State.SENT and not knows_any:
        return "was handed over", "sent"
    return ("did not get it", "failed") if state.is_outcome else ("has not got it yet", "pending")

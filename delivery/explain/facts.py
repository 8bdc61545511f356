"""What the ledger knows of one delivery: its attempts, the cap in its way, what its run waits for, its devices."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum

from delivery import caps, circuits
from delivery.models import CONFIRMED, Circuit, Delivery, FailedAttempt, Feedback, State, ZoneSource
from schedules import stops
from schedules.models import Device, Occurrence, Recipient, ScheduleStatus
from schedules.recurrence import ZONE_NAMES

_WINDOWS = {caps.DAILY: caps.DAY, caps.WEEKLY: caps.WEEK}


@dataclass(frozen=True)
class Attempt:
    """A provider call for this person. ``verdict`` is ``sent`` or why it was in vain, in the words of ``providers``;
    ``confirmed`` is what the provider told afterwards of a call that it had not answered.

    ``detail`` are the provider's own words. ``asked_again``: the first one after somebody had it tried again.
    """

    number: int
    at: datetime | None
    verdict: str
    reason: str = ""
    detail: str = ""
    provider_id: str = ""
    asked_again: bool = False


@dataclass(frozen=True)
class Used:
    """A message that uses up the person's cap; ``row`` and ``occurrence`` are empty where the ledger lost it."""

    day: date
    occurrence_id: int
    row: Delivery | None
    occurrence: Occurrence | None

    @property
    def at(self) -> datetime | None:
        """When it began to count."""
        return (self.row.claimed_at or self.row.called_at) if self.row else None


@dataclass(frozen=True)
class Limit:
    """The cap that stood in the way; ``most`` is None where nothing more is known of it than which it was.

    ``free_at``: when there is room again, where that is known.
    """

    cap: str
    most: int | None
    used: list[Used]
    free_at: datetime | None

    @property
    def hours(self) -> int:
        return round(_WINDOWS[self.cap].total_seconds() / 3600)


class Obstacle(StrEnum):
    """What keeps the whole run waiting, whoever it is."""

    HELD = "run_held"
    PAUSED = "schedule_paused"
    STOPPED = "sending_stopped"
    REFUSED = "provider_refuses"
    TEMPLATES_AWAY = "template_service_away"
    TEMPLATES_REFUSED = "template_service_refused"


class Reach(StrEnum):
    """What became of a message on one device."""

    HAS_IT = "has_it"
    HANDED_OVER = "handed_over"
    UNREGISTERED = "unregistered"
    FAILED = "failed"
    WAITS = "waits"


@dataclass(frozen=True)
class DeviceFact:
    """``device`` is empty where it has the message and is gone since."""

    device: Device | None
    reach: Reach


def attempts(delivery: Delivery) -> list[Attempt]:
    """Every call for this person, the first one first; of those that were put off, no row is kept."""
    kept = FailedAttempt.objects.filter(
        day=delivery.day, occurrence_id=delivery.occurrence_id, recipient_id=delivery.recipient_id
    ).order_by("at")
    found: list[Attempt] = []
    for row in kept:
        again = bool(found) and row.attempt <= found[-1].number
        found.append(Attempt(row.attempt, row.at, row.verdict, row.reason, row.detail, asked_again=again))
    if delivery.state == State.SENT and delivery.reason == CONFIRMED:
        # The same call, of which the provider told afterwards.
        found.append(
            Attempt(delivery.attempt, delivery.settled_at, CONFIRMED, delivery.reason, provider_id=delivery.provider_id)
        )
    elif delivery.state == State.SENT and delivery.attempt:
        again = bool(found) and delivery.attempt <= found[-1].number
        at = delivery.called_at or delivery.settled_at
        found.append(Attempt(delivery.attempt, at, "sent", provider_id=delivery.provider_id, asked_again=again))
    return found


def is_asked_again(delivery: Delivery, attempts: Sequence[Attempt]) -> bool:
    """Somebody had it tried again, and no attempt has followed yet."""
    return bool(attempts) and delivery.attempt < attempts[-1].number


# --- The cap ----------------------------------------------------------------------------------------------------------


def limit(delivery: Delivery) -> Limit | None:
    """The cap that ``detail`` tells of; None where another reason stands."""
    if delivery.reason not in _WINDOWS:
        return None
    try:
        detail = json.loads(delivery.detail)
        most, keys = int(detail["limit"]), [_key(name) for name in detail["used"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return Limit(delivery.reason, None, [], None)
    used = _used(delivery.recipient_id, keys)
    free_at = delivery.due_at if delivery.state == State.PENDING else _free_at(used, _WINDOWS[delivery.reason])
    return Limit(delivery.reason, most, used, free_at)


def _key(name: str) -> tuple[date, int]:
    day, _, occurrence_id = name.partition("-")
    return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).date(), int(occurrence_id)


def _used(recipient_id: int, keys: Sequence[tuple[date, int]]) -> list[Used]:
    ids = [occurrence_id for _, occurrence_id in keys]
    found = Delivery.objects.filter(day__in=[day for day, _ in keys], occurrence_id__in=ids, recipient_id=recipient_id)
    rows = {(row.day, row.occurrence_id): row for row in found}
    occurrences = Occurrence.objects.select_related("schedule").in_bulk(ids)
    return [Used(*key, rows.get(key), occurrences.get(key[1])) for key in keys]


def _free_at(used: Sequence[Used], window: timedelta) -> datetime | None:
    """When the oldest of them leaves the window."""
    claims = [each.row.claimed_at for each in used if each.row and each.row.claimed_at]
    return min(claims) + window if claims and len(claims) == len(used) else None


# --- What was told afterwards -----------------------------------------------------------------------------------------


def feedback(delivery: Delivery) -> Feedback | None:
    """What the provider has told of the message since it was called."""
    key = {"day": delivery.day, "occurrence_id": delivery.occurrence_id, "recipient_id": delivery.recipient_id}
    return Feedback.objects.filter(**key).first()


def suppressed_since(delivery: Delivery) -> datetime | None:
    """Of a delivery that was suppressed with its address: since when that one was."""
    try:
        since = json.loads(delivery.detail)["since"] if delivery.detail else None
        return datetime.fromisoformat(since) if since else None
    except (ValueError, KeyError, TypeError):
        return None


# --- The run ----------------------------------------------------------------------------------------------------------


def obstacle(occurrence: Occurrence, *, is_due: bool) -> Obstacle | None:
    """What an occurrence with its schedule waits for; provider and template are in the way of the due alone."""
    schedule = occurrence.schedule
    if occurrence.held_reason:
        return Obstacle.HELD
    if schedule.status == ScheduleStatus.PAUSED:
        return Obstacle.PAUSED
    if stops.over(schedule):
        return Obstacle.STOPPED
    if is_due:
        of_template = circuits.of_template(schedule.template_id or 0)
        found = dict(Circuit.objects.filter(scope__in=[schedule.channel, of_template]).values_list("pk", "reason"))
        if schedule.channel in found:
            return Obstacle.REFUSED
        if of_template in found:
            return Obstacle(found[of_template])
    return None


def zone_name(delivery: Delivery, *, person: Recipient | None, occurrence: Occurrence | None) -> str:
    """Whose clock the promise was made on. The zone of somebody erased is gone with the profile."""
    if delivery.zone_source == ZoneSource.PROFILE:
        return person.time_zone if person and person.time_zone in ZONE_NAMES else "UTC"
    return occurrence.schedule.time_zone if occurrence else "UTC"


# --- Devices ----------------------------------------------------------------------------------------------------------


def devices(delivery: Delivery, person: Recipient | None) -> list[DeviceFact]:
    """Each device of the person's, and whether it has the message. Of a person erased none is known."""
    reached = {int(pk) for pk in delivery.reached.split(",") if pk}
    knows_any = any(reached)
    found = []
    for device in sorted(person.devices.all(), key=lambda each: each.pk) if person else ():
        found.append(DeviceFact(device, _reach(device, delivery, has_it=device.pk in reached, knows_any=knows_any)))
        reached.discard(device.pk)
    return found + [DeviceFact(None, Reach.HAS_IT) for pk in reached if pk]


def _reach(device: Device, delivery: Delivery, *, has_it: bool, knows_any: bool) -> Reach:
    if has_it:
        return Reach.HAS_IT
    if not device.active:
        return Reach.UNREGISTERED
    if delivery.state == State.SENT and not knows_any:
        return Reach.HANDED_OVER
    return Reach.FAILED if State(delivery.state).is_outcome else Reach.WAITS

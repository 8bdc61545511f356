"""What makes the service, or a run, behave otherwise than its schedule says: stops, open circuits, held runs."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Sum

from delivery import brake
from delivery.models import Batch, Circuit
from frontend.instants import show, show_seconds
from frontend.wording import HELD, count, reason
from schedules import clock
from schedules.models import Channel, Occurrence, OccurrenceState, StopSwitch

# More stops than that are summed up, so that the banners stay banners.
_STOPS_SHOWN = 3
_HELD_SHOWN = 5


@dataclass(frozen=True)
class Held:
    """A run that waits for a person's decision. ``waiting``: people who get it once it goes on."""

    occurrence: Occurrence
    words: str
    waiting: int

    @property
    def confirmation(self) -> str:
        whom = count(self.waiting, "person", "people")
        if self.occurrence.held_reason == brake.GREW:
            return f"It goes out to {whom}. Is this really the audience that is meant?"
        return f"It goes on with the {whom} who wait. Is the cause gone? If most of them fail again, it is held again."


def banners() -> list[str]:
    """What concerns everybody, as sentences."""
    shift = clock.shift()
    found = _stops() + [_circuit(each, shift=shift) for each in Circuit.objects.order_by("channel")]
    if shift:
        ahead = show_seconds(shift.total_seconds())
        found.append(f"Test clock: it is taken to be {show(clock.now())}, {ahead} ahead of the real time.")
    return found


def _stops() -> list[str]:
    found = []
    stops = list(StopSwitch.objects.order_by("created_at")[: _STOPS_SHOWN + 1])
    for stop in stops[:_STOPS_SHOWN]:
        what = "All sending is" if stop.scope == StopSwitch.ALL else f"Sending for {stop.scope.replace(':', ' ')} is"
        why = f" Reason: {stop.reason}" if stop.reason else ""
        found.append(f"{what} stopped since {show(stop.created_at)}.{why}")
    if len(stops) > _STOPS_SHOWN:
        found.append("More stop switches are on: see Stop switch.")
    return found


def _circuit(circuit: Circuit, *, shift: timedelta) -> str:
    """``probe_at`` is real time; everything shown is business time."""
    next_try = circuit.probe_at + shift
    when = f"at {show(next_try)}" if next_try > clock.now() else "at any moment"
    return (
        f"{Channel(circuit.channel).label} waits: the provider refuses the account since {show(circuit.opened_at)}."
        f" {reason(circuit.reason)} The next try is made {when}. Nothing is lost meanwhile, and no attempt is used up."
    )


def held(*, schedule_id: int | None = None, occurrence: Occurrence | None = None) -> list[Held]:
    """The held runs, of a schedule or this one alone where named, the latest first."""
    if occurrence is not None:
        return _told([occurrence]) if occurrence.held_reason else []
    found = Occurrence.objects.open().exclude(held_reason="").select_related("schedule").order_by("-held_at")
    if schedule_id is not None:
        found = found.filter(schedule=schedule_id)
    return _told(found[:_HELD_SHOWN])


def _told(occurrences: Iterable[Occurrence]) -> list[Held]:
    return [_tell(occurrence) for occurrence in occurrences]


def _tell(occurrence: Occurrence) -> Held:
    sums = Batch.objects.filter(occurrence=occurrence).aggregate(
        **{name: Sum(name, default=0) for name in ("pending", "sent", "failed", "unknown")}
    )
    since = f"Held since {show(occurrence.held_at)}."
    words = f"{since} {HELD.get(occurrence.held_reason, occurrence.held_reason)} {_figures(occurrence, sums)}"
    return Held(occurrence, words, sums["pending"])


def _figures(occurrence: Occurrence, sums: dict[str, int]) -> str:
    waiting = count(sums["pending"], "person waits", "people wait")
    if occurrence.held_reason != brake.GREW:
        failed = sums["failed"] + sums["unknown"]
        return f"Of {count(failed + sums['sent'], 'person', 'people')} it was tried for, {failed:,} failed; {waiting}."
    before = Occurrence.objects.filter(
        schedule=occurrence.schedule_id, state=OccurrenceState.FINISHED, occurrence_at__lt=occurrence.occurrence_at
    ).first()
    than = f", the run before {before.targeted:,}" if before else ""
    return f"It has {count(occurrence.targeted, 'person', 'people')}{than}; {waiting}."

"""What makes the service, or a run, behave otherwise than its schedule says: stops, open circuits, held runs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from delivery import books, brake, continuity
from delivery.endpoint_models import Endpoint
from delivery.models import Circuit
from frontend.instants import show
from frontend.wording import HELD, number, reason, timings
from frontend.wording.endpoints import OFF
from frontend.zones import Display, Zones
from schedules import clock
from schedules.encryption import UnknownKey
from schedules.models import Channel, MessageTemplate, Occurrence, OccurrenceState, StopSwitch

# More stops than that are summed up, so that the banners stay banners.
_STOPS_SHOWN = 3
_HELD_SHOWN = 5
# For who has chosen nothing: each instant in the zone of what it belongs to.
_OWN = Zones(Display.SCHEDULE, "UTC")


@dataclass(frozen=True)
class Held:
    """A run that waits for a person's decision. ``waiting``: people who get it once it goes on."""

    occurrence: Occurrence
    words: str
    waiting: int

    @property
    def confirmation(self) -> str:
        if self.occurrence.held_reason == brake.GREW:
            words = ngettext(
                "It goes out to %(people)s person. Is this really the audience that is meant?",
                "It goes out to %(people)s people. Is this really the audience that is meant?",
                self.waiting,
            )
        else:
            words = ngettext(
                "It goes on with the %(people)s person who waits. Is the cause gone?"
                " If most of them fail again, it is held again.",
                "It goes on with the %(people)s people who wait. Is the cause gone?"
                " If most of them fail again, it is held again.",
                self.waiting,
            )
        return words % {"people": number(self.waiting)}


def banners(zones: Zones = _OWN) -> list[str]:
    """What concerns everybody, as sentences."""
    shift = clock.shift()
    found = _stops(zones) + [_circuit(each, zones, shift=shift) for each in Circuit.objects.order_by("scope")]
    if shift:
        words = _("Test clock: it is taken to be %(now)s, %(ahead)s ahead of the real time.")
        found.append(words % {"now": show(clock.now(), zones.of()), "ahead": timings.how_long(shift.total_seconds())})
    return found


def endpoints_off(zones: Zones = _OWN) -> list[str]:
    """The endpoints that the service itself has switched off, for who may switch them on."""
    off = Endpoint.objects.exclude(off_reason__in=["", Endpoint.Off.PERSON]).order_by("off_at")
    words = _("The endpoint “%(name)s” is told nothing since %(since)s.")
    return [f"{words % {'name': each, 'since': show(each.off_at, zones.of())}} {OFF[each.off_reason]}" for each in off]


def _restored(zones: Zones) -> list[str]:
    kept = continuity.restored()
    if kept is None:
        return []
    words = _(
        "This database was restored, or another has taken its place: it knows nothing of what happened after %(at)s. "
        "Nothing is sent, so that nobody gets a message twice, until whoever runs the service has settled it with "
        "“manage.py settle_restored” (docs/runbooks/database-restored.md) and lets it go on."
    )
    return [words % {"at": show(kept.restored_to, zones.of())}]


def _stops(zones: Zones) -> list[str]:
    stops = list(StopSwitch.objects.order_by("created_at")[: _STOPS_SHOWN + 1])
    found = [_stop(stop, zones) for stop in stops[:_STOPS_SHOWN]]
    # One stop of everything stands at least while a database waits to be settled; each page would ask for nothing else.
    if len(stops) > _STOPS_SHOWN or any(stop.scope == StopSwitch.ALL for stop in stops):
        found = _restored(zones) + found
    if len(stops) > _STOPS_SHOWN:
        found.append(_("More stop switches are on: see Stop switch."))
    return found


def _stop(stop: StopSwitch, zones: Zones) -> str:
    since = show(stop.created_at, zones.of())
    kind, _colon, name = stop.scope.partition(":")
    if kind == StopSwitch.ALL:
        words = _("All sending is stopped since %(since)s.") % {"since": since}
    elif kind == "channel":
        words = _("Sending by %(channel)s is stopped since %(since)s.") % {
            "channel": Channel(name).label,
            "since": since,
        }
    else:
        words = _("Sending of schedule %(id)s is stopped since %(since)s.") % {"id": name, "since": since}
    why = _("the database was restored") if stop.reason == continuity.REASON else stop.reason
    return f"{words} {_('Reason:')} {why}" if why else words


def _circuit(circuit: Circuit, zones: Zones, *, shift: timedelta) -> str:
    """``probe_at`` is real time; everything shown is business time."""
    next_try = circuit.probe_at + shift
    if next_try > clock.now():
        again = _("The next try is made at %(at)s.") % {"at": show(next_try, zones.of())}
    else:
        again = _("The next try is made at any moment.")
    channel, _colon, provider = circuit.scope.partition(":")
    if channel not in Channel.values:
        words = _("Template %(name)s waits since %(since)s.") % {
            "name": _quoted_name(provider),
            "since": show(circuit.opened_at, zones.of()),
        }
        return f"{words} {reason(circuit.reason)} {again}"
    facts = {
        "channel": Channel(channel).label,
        "provider": provider,
        "since": show(circuit.opened_at, zones.of()),
    }
    if provider:
        words = _("%(channel)s goes by another provider: %(provider)s is passed over since %(since)s.") % facts
        return f"{words} {reason(circuit.reason)} {again}"
    if circuit.reason == UnknownKey.reason:
        words = _("%(channel)s waits: a key is missing here since %(since)s.")
    elif circuit.reason in ("unreachable", "provider_error", "no_answer"):
        words = _("%(channel)s waits: none of its providers answers since %(since)s.")
    else:
        words = _("%(channel)s waits: the provider refuses the account since %(since)s.")
    begin = words % facts
    end = _(
        "Meanwhile no attempt is used up. People whose time passes by more than the schedule's grace expire with a "
        "reason, as in any outage, unless their wave had begun."
    )
    return f"{begin} {reason(circuit.reason)} {again} {end}"


def _quoted_name(template_id: str) -> str:
    found = MessageTemplate.objects.filter(pk=template_id).values_list("name", flat=True).first()
    return _("“%(name)s”") % {"name": found} if found else f"#{template_id}"


def held(*, schedule_id: int | None = None, occurrence: Occurrence | None = None, zones: Zones = _OWN) -> list[Held]:
    """The held runs, of a schedule or this one alone where named, the latest first."""
    if occurrence is not None:
        return _told([occurrence], zones) if occurrence.held_reason else []
    found = Occurrence.objects.open().exclude(held_reason="").select_related("schedule").order_by("-held_at")
    if schedule_id is not None:
        found = found.filter(schedule=schedule_id)
    return _told(found[:_HELD_SHOWN], zones)


def _told(occurrences: Iterable[Occurrence], zones: Zones) -> list[Held]:
    occurrences = list(occurrences)
    counted = books.counted(occurrences)
    return [_tell(occurrence, counted[occurrence.pk], zones) for occurrence in occurrences]


def _tell(occurrence: Occurrence, counted: Mapping[str, int], zones: Zones) -> Held:
    since = _("Held since %(since)s.") % {"since": show(occurrence.held_at, zones.of(occurrence.schedule.time_zone))}
    why = HELD.get(occurrence.held_reason, occurrence.held_reason)
    return Held(occurrence, f"{since} {why} {_figures(occurrence, counted)}", counted["pending"])


def _figures(occurrence: Occurrence, counted: Mapping[str, int]) -> str:
    waiting = ngettext("%(people)s person waits.", "%(people)s people wait.", counted["pending"]) % {
        "people": number(counted["pending"])
    }
    if occurrence.held_reason != brake.GREW:
        failed = counted["failed"] + counted["unknown"]
        tried = failed + counted["sent"]
        words = ngettext(
            "Of %(people)s person it was tried for, %(failed)s failed;",
            "Of %(people)s people it was tried for, %(failed)s failed;",
            tried,
        )
        return f"{words % {'people': number(tried), 'failed': number(failed)}} {waiting}"
    before = Occurrence.objects.filter(
        schedule=occurrence.schedule_id, state=OccurrenceState.FINISHED, occurrence_at__lt=occurrence.occurrence_at
    ).first()
    has = ngettext("It has %(people)s person", "It has %(people)s people", occurrence.targeted)
    has %= {"people": number(occurrence.targeted)}
    than = _(", the run before %(people)s") % {"people": number(before.targeted)} if before else ""
    return f"{has}{than}; {waiting}"

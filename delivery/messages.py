"""From a claim to its messages: what the occurrence is pinned to, rendered for each person who still belongs to it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from delivery import renderers
from delivery.caps import Limits
from delivery.ledger import Claim, Outcome, Person
from delivery.models import OUTSIDE_WINDOW, QUIET_HOURS, WINDOW_IS_QUIET, State
from delivery.providers.base import Message, run_of
from delivery.remote_rendering import Blame, Result, Unrendered
from delivery.renderers import Renderer
from delivery.rendering import Rendered, Shared
from delivery.rendering_limits import RenderError
from delivery.windows import allowed_in
from schedules import links, quiet_hours
from schedules.audience.matching import Profile, matches, reachable_channels
from schedules.audience.parser import parse
from schedules.audience.tree import Node
from schedules.consents import Asked, asked_by, objection
from schedules.content import Catalogues, read_catalogues
from schedules.definition import Definition
from schedules.encryption import Undecryptable, UnknownKey
from schedules.models import Catalogue, Channel, ScheduleVersion
from schedules.occurrences import EDITED

# Real seconds for which a process keeps the catalogues: a corrected translation reaches a run within that time.
_CATALOGUES_S = 10
# Business seconds after which people are tried again whose address is encrypted under a key that is missing, and whom
# the template service, which answers for others, was too slow for.
_KEYLESS_S = 60.0
_SLOW_S = 5.0


@dataclass(frozen=True)
class Pinned:
    """What all claims of one version of an occurrence have in common. ``recheck``: the audience to ask again.

    ``asked``: what its messages need of consent; a topic's part of it never changes.
    """

    definition: Definition
    renderer: Renderer
    recheck: Node | None
    limits: Limits
    asked: Asked


@dataclass(frozen=True)
class Composed:
    """The messages of a claim, and the people who turned out not to get one. ``limits``: the schedule's.

    ``spoilt``: for whom alone the template service fails; that is an attempt.
    """

    messages: list[Message]
    settled: list[Outcome]
    limits: Limits
    spoilt: Sequence[tuple[Person, Unrendered]] = ()


@dataclass(frozen=True)
class Meant:
    """Those of a claim who still belong to the occurrence, with what their messages need.

    ``recipients``: the people as they are rendered for.
    """

    pinned: Pinned
    people: Sequence[Person]
    settled: list[Outcome]
    shared: Shared
    recipients: Sequence[dict[str, Any]]


def meant(claim: Claim, *, now: datetime) -> Meant:
    """Who of a claim gets a message."""
    read_pinned([claim])
    pinned = _known[_key(claim)]
    claim, waiting = _reached_now(claim, pinned.definition, now=now)
    willing, objecting = _willing(claim, pinned.asked)
    legible, unread = _legible(claim, willing, pinned, now=now)
    people, settled = _still_meant(claim, legible, pinned, now=now)
    shared = Shared(
        schedule_name=pinned.definition.name,
        schedule_zone=pinned.definition.time_zone,
        occurrence_at=claim.occurrence_at,
        default_locale=pinned.renderer.default_locale,
        catalogues=catalogues(),
    )
    recipients = [_tokens(person, pinned.asked) for person in people]
    return Meant(pinned, people, settled + unread + objecting + waiting, shared, recipients)


def _reached_now(claim: Claim, definition: Definition, *, now: datetime) -> tuple[Claim, list[Outcome]]:
    """The claim of those who may be written to at this hour; the others wait for theirs, without an attempt.

    Whoever has the message on one device gets it on the others at whatever hour.
    """
    heeds_quiet = definition.heeds_quiet_hours and any(person.quiet_hours for person in claim.people)
    if definition.window is None and not heeds_quiet:
        return claim, []
    people, waiting = [], []
    for person in claim.people:
        outcome = None if any(person.reached) else _put_off(person, definition, now=now)
        if outcome is None:
            people.append(person)
        else:
            waiting.append(outcome)
    return replace(claim, people=people), waiting


def _put_off(person: Person, definition: Definition, *, now: datetime) -> Outcome | None:
    """Until the hour at which both the schedule and the person allow it; None where that is now."""
    open_at = allowed_in(person.time_zone, now, definition=definition)
    quiet = quiet_hours.awake(person.quiet_hours)
    allowed = open_at if quiet is None else allowed_in(person.time_zone, now, definition=definition, quiet=quiet)
    if allowed is None:
        return Outcome(person.recipient_id, State.EXPIRED, WINDOW_IS_QUIET, is_attempt=False)
    if allowed <= now:
        return None
    reason = QUIET_HOURS if allowed != open_at else OUTSIDE_WINDOW
    return Outcome(person.recipient_id, State.PENDING, reason, due_at=allowed, is_attempt=False)


def renderer_of(claim: Claim) -> Renderer:
    """Who renders what the claim is pinned to."""
    read_pinned([claim])
    return _known[_key(claim)].renderer


def compose(claim: Claim, *, now: datetime, ahead: tuple[Meant, Sequence[Result]] | None = None) -> Composed:
    """Render the messages of a claim. One person's failure is that person's outcome alone.

    ``ahead``: what is rendered already, by who was asked for several claims at once.
    """
    if ahead is None:
        found = meant(claim, now=now)
        channel = claim.work.channel
        ahead = (
            found,
            found.pinned.renderer.render_many(channel=channel, recipients=found.recipients, shared=found.shared),
        )
    found, rendered = ahead
    return _composed(claim, found, rendered, now=now)


def _composed(claim: Claim, found: Meant, rendered: Sequence[Result], *, now: datetime) -> Composed:
    channel = claim.work.channel
    prefix = f"{claim.work.day:%Y%m%d}-{claim.work.occurrence_id}-"
    run = run_of(claim.schedule_id, claim.occurrence_at)
    messages, settled, spoilt = [], list(found.settled), []
    for person, recipient, result in zip(found.people, found.recipients, rendered, strict=True):
        if isinstance(result, Rendered):
            to = person.email if channel == "email" else ""
            key = f"{prefix}{person.recipient_id}"
            targets = tuple(target for target in person.targets if target.device_id not in person.reached)
            messages.append(
                Message(
                    key,
                    person.recipient_id,
                    to,
                    result.subject,
                    result.text,
                    result.html,
                    targets=targets,
                    unsubscribe_url=recipient.get("unsubscribe_url", ""),
                    run=run,
                )
            )
        elif isinstance(result, RenderError):
            settled.append(_not_rendered(person, result))
        elif result.blame is Blame.PERSON:
            spoilt.append((person, result))
        else:
            settled.append(_waits(person, result, now=now))
    return Composed(messages, settled, found.pinned.limits, spoilt)


def _tokens(person: Person, asked: Asked) -> dict[str, Any]:
    """Links stand in e-mail alone."""
    urls = links.urls_of(person.recipient_id, asked) if asked.channel == Channel.EMAIL else links.NONE
    return {
        "external_id": person.external_id,
        "email": person.email,
        "locale": person.locale,
        "time_zone": person.time_zone,
        "attributes": person.attributes,
        "at": person.wave_at,
        **urls.tokens(),
    }


def _not_rendered(person: Person, error: RenderError) -> Outcome:
    return Outcome(person.recipient_id, State.FAILED, error.reason, verdict="permanent", detail=error.detail)


def _waits(person: Person, unrendered: Unrendered, *, now: datetime) -> Outcome:
    """Nobody was asked to send anything, and no attempt is used up. While the service answers nobody, people stay due
    when they were: should that last, they are late by the grace of their wave, as in any outage.
    """
    later = now + timedelta(seconds=_SLOW_S) if unrendered.blame is Blame.TIME else None
    return Outcome(
        person.recipient_id,
        State.PENDING,
        unrendered.reason,
        due_at=later,
        is_attempt=False,
        detail=unrendered.detail,
    )


def _willing(claim: Claim, asked: Asked) -> tuple[Sequence[Person], list[Outcome]]:
    """Who may be written to, by what the claim read of their consent."""
    if asked.is_transactional:
        return claim.people, []
    willing, settled = [], []
    for person in claim.people:
        if reason := objection(person.consent, asked):
            settled.append(Outcome(person.recipient_id, State.SUPPRESSED, reason))
        else:
            willing.append(person)
    return willing, settled


def _legible(
    claim: Claim, people: Sequence[Person], pinned: Pinned, *, now: datetime
) -> tuple[Sequence[Person], list[Outcome]]:
    """Of whom all can be read that the message needs, and what becomes of the others."""
    if not any(person.address_fault or person.device_fault for person in people):
        return people, []
    channel = claim.work.channel
    needs_address = channel == "email" or pinned.renderer.reads("email", channel=channel)
    legible, settled = [], []
    for person in people:
        if fault := _fault(person, needs_address=needs_address):
            settled.append(_not_read(person, fault, now=now))
        else:
            legible.append(person)
    return legible, settled


def _fault(person: Person, *, needs_address: bool) -> Undecryptable | None:
    """A damaged device is left out where there are others; one whose key is missing will be reached with the others."""
    if person.device_fault and (isinstance(person.device_fault, UnknownKey) or not person.targets):
        return person.device_fault
    return person.address_fault if needs_address else None


def _not_read(person: Person, fault: Undecryptable, *, now: datetime) -> Outcome:
    """A missing key is this service's settings, not the person, who waits for it."""
    if isinstance(fault, UnknownKey):
        later = now + timedelta(seconds=_KEYLESS_S)
        return Outcome(person.recipient_id, State.PENDING, fault.reason, due_at=later, is_attempt=False)
    return Outcome(person.recipient_id, State.FAILED, fault.reason, verdict="permanent")


def _still_meant(
    claim: Claim, people: Sequence[Person], pinned: Pinned, *, now: datetime
) -> tuple[Sequence[Person], list[Outcome]]:
    """Who gets the message. An edit of the audience has not asked those who were being sent to at that moment."""
    query = pinned.definition.audience_query
    others = {person.version for person in people} - {claim.version}
    unasked = {version for version in others if _audience(claim.schedule_id, version) != query}
    if pinned.recheck is None and not unasked:
        return people, []
    audience = pinned.recheck or parse(query)
    staying, settled = [], []
    for person in people:
        is_unasked = person.version in unasked
        if not (pinned.recheck or is_unasked) or matches(audience, _profile(person), now=now):
            staying.append(person)
        elif is_unasked:
            settled.append(Outcome(person.recipient_id, State.CANCELLED, EDITED))
        else:
            settled.append(Outcome(person.recipient_id, State.SUPPRESSED, "left_audience"))
    return staying, settled


@lru_cache(maxsize=1024)
def _audience(schedule_id: int, version: int) -> Mapping[str, Any]:
    """The audience query of a version; only an erasure changes one, and whom it named there has no profile any more."""
    return Definition.from_json(_versions([schedule_id], [version])[schedule_id, version]).audience_query


def _versions(schedule_ids: Sequence[int], versions: Sequence[int]) -> dict[tuple[int, int], dict[str, Any]]:
    """The definitions kept of these versions of these schedules."""
    kept = ScheduleVersion.objects.filter(schedule__in=schedule_ids, version__in=versions)
    return {row[:2]: row[2] for row in kept.values_list("schedule_id", "version", "definition")}


def _profile(person: Person) -> Profile:
    has_email = bool(person.email or person.address_fault)
    return Profile(
        external_id=person.external_id,
        locale=person.locale,
        time_zone=person.time_zone,
        created_at=person.created_at,
        tags=person.tags,
        channels=reachable_channels(has_email=has_email, has_device=person.has_device, consent=person.consent),
        attributes=person.attributes,
    )


def read_pinned(claims: Iterable[Claim]) -> None:
    """Read at once what several claims are pinned to, as far as this process does not know it."""
    missing = {key for claim in claims if (key := _key(claim)) not in _known}
    if not missing:
        return
    if len(_known) > _MOST_KNOWN:
        _known.clear()
    schedules, versions, _ = zip(*missing, strict=True)
    definitions = _versions(schedules, versions)
    for schedule_id, version, template_version in missing:
        _known[schedule_id, version, template_version] = _pinned(definitions[schedule_id, version], template_version)


_Key = tuple[int, int, int]
_MOST_KNOWN = 1024
# What was read once stays true: only an erasure changes a version, and whom it named there has no profile any more.
_known: dict[_Key, Pinned] = {}


def _key(claim: Claim) -> _Key:
    return claim.schedule_id, claim.version, claim.template_version


def _pinned(kept: dict[str, Any], template_version: int) -> Pinned:
    definition = Definition.from_json(kept)
    return Pinned(
        definition,
        renderers.of_version(definition.template_id or 0, template_version),
        parse(definition.audience_query) if definition.rechecks_audience else None,
        Limits(definition.max_per_user_per_day, definition.max_per_user_per_week, definition.counts_toward_caps),
        asked_by(channel=definition.channel, topic=definition.topic, purpose=definition.purpose),
    )


def catalogues() -> Catalogues:
    """Every locale's translations, as they were at most ``_CATALOGUES_S`` ago."""
    return _catalogues(int(time.monotonic() // _CATALOGUES_S))


@lru_cache(maxsize=1)
def _catalogues(_period: int) -> Catalogues:
    return read_catalogues(Catalogue.objects.values_list("locale", "messages"))

"""Why somebody got a message or did not: one code for every answer, decided from the ledger and what stands around it.

A delivery's row tells what became of it. Where the run has none for the person, it is told from the run, the schedule
and the audience, whose query is judged clause by clause on the profile as it is today.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from delivery.explain import facts, hours
from delivery.explain.codes import OF_REASON, OF_SEARCH, OF_STATE, OF_STATUS, Code
from delivery.explain.facts import Attempt, Limit, Obstacle
from delivery.explain.hours import Promise, Quieted
from delivery.models import OUTCOME_UNKNOWN, OUTSIDE_WINDOW, QUIET_HOURS, Delivery, Feedback, State, ZoneSource
from delivery.retry import MAX_RETRIES
from schedules import suppressions
from schedules.audience.matching import Profile, Verdict, reachable_channels, verdicts
from schedules.audience.parser import InvalidAudience, parse
from schedules.audience.tree import Clause
from schedules.consents import asked_by, objection
from schedules.definition import Definition
from schedules.models import (
    Channel,
    MirroredPerson,
    Occurrence,
    OccurrenceState,
    Recipient,
    Schedule,
    ScheduleStatus,
    Suppression,
)


class NotKnown(LookupError):
    """There is nothing to explain: ``what`` (recipient, schedule or occurrence) is not known; the text says more."""

    def __init__(self, what: str, words: str) -> None:
        super().__init__(words)
        self.what = what


@dataclass(frozen=True)
class Story:
    """What became of one delivery, or what it waits for. ``zone_name``: on whose clock it was promised.

    ``feedback``: what the provider told afterwards. ``since``: when its address was suppressed, where it was for that.
    ``quieted``: the person's quiet hours, where they kept it back.
    """

    code: Code
    delivery: Delivery
    occurrence: Occurrence | None
    zone_name: str
    is_ahead: bool
    attempts: list[Attempt]
    limit: Limit | None
    feedback: Feedback | None = None
    since: datetime | None = None
    quieted: Quieted | None = None


@dataclass(frozen=True)
class Audience:
    """The query of that version, judged on the profile as it is today, as if it were ``as_of``.

    ``verdicts`` begins with the whole query. ``changed_at``: the profile's last change, where that is later than the
    run's finding of its people. ``mirrored_at``: when the user service last told of the person, if ever.
    """

    version: int
    as_of: datetime
    verdicts: list[Verdict]
    changed_at: datetime | None
    mirrored_at: datetime | None

    @property
    def matches(self) -> bool:
        return self.verdicts[0].holds

    @property
    def decisive(self) -> list[Verdict]:
        """The clauses on which the answer hangs."""
        return [each for each in self.verdicts if each.decides and isinstance(each.node, Clause)]


@dataclass(frozen=True)
class Reachable:
    """Whether the channel reaches the person today. ``address`` is the e-mail address, on other channels empty.

    ``objection``: why the person's consent keeps this message back, as ``schedules.consents`` has it; empty: it does
    not. ``suppression``: what keeps that address from being written to.
    """

    channel: str
    address: str
    devices: int
    is_opted_out: bool
    objection: str = ""
    suppression: Suppression | None = None

    @property
    def has_address(self) -> bool:
        return {Channel.EMAIL: bool(self.address), Channel.PUSH: self.devices > 0}.get(Channel(self.channel), True)


@dataclass(frozen=True)
class Explanation:
    """``story`` where the ledger has a row; ``audience`` and ``reachable`` where the profile still stands.

    ``quieted``: quiet hours that keep the message back, or did.
    """

    code: Code
    recipient_id: int
    person: Recipient | None
    schedule: Schedule
    occurrence: Occurrence | None
    story: Story | None = None
    promise: Promise | None = None
    audience: Audience | None = None
    reachable: Reachable | None = None
    devices: list[facts.DeviceFact] = field(default_factory=list)
    quieted: Quieted | None = None


# --- Of a row ---------------------------------------------------------------------------------------------------------


def of_delivery(delivery: Delivery, *, occurrence: Occurrence | None, person: Recipient | None, now: datetime) -> Story:
    """``occurrence`` with its schedule."""
    attempts, limit = facts.attempts(delivery), facts.limit(delivery)
    code = _code(delivery, occurrence, attempts, limit, now=now)
    quieted = hours.quieted(delivery, occurrence=occurrence, person=person)
    if code is Code.NOT_DUE_YET and quieted:
        code = Code.WAITS_FOR_QUIET_HOURS
    zone_name = facts.zone_name(delivery, person=person, occurrence=occurrence)
    since = facts.suppressed_since(delivery) if delivery.state == State.SUPPRESSED else None
    told = facts.feedback(delivery)
    return Story(code, delivery, occurrence, zone_name, delivery.due_at > now, attempts, limit, told, since, quieted)


def _code(
    delivery: Delivery,
    occurrence: Occurrence | None,
    attempts: Sequence[Attempt],
    limit: Limit | None,
    *,
    now: datetime,
) -> Code:
    state = State(delivery.state)
    if state is State.PENDING:
        return _waits(delivery, occurrence, attempts, limit, is_ahead=delivery.due_at > now)
    if state is State.FAILED:
        if delivery.reason == OUTCOME_UNKNOWN:
            return Code.OUTCOME_UNKNOWN
        return Code.FAILED_AFTER_RETRIES if delivery.attempt > MAX_RETRIES else Code.FAILED
    return OF_STATE.get(state) or OF_REASON.get((state, delivery.reason), Code.OTHERWISE)


def _waits(
    delivery: Delivery,
    occurrence: Occurrence | None,
    attempts: Sequence[Attempt],
    limit: Limit | None,
    *,
    is_ahead: bool,
) -> Code:
    if occurrence is not None:
        if code := _of_run(occurrence):
            return code
        if held_up := facts.obstacle(occurrence, is_due=not is_ahead):
            return _of_obstacle(held_up)
    if not delivery.reason:
        return Code.NOT_DUE_YET if is_ahead else Code.ABOUT_TO_BE_SENT
    if limit:
        return Code.WAITS_FOR_CAP
    if delivery.reason == OUTSIDE_WINDOW:
        return Code.WAITS_FOR_WINDOW
    if delivery.reason == QUIET_HOURS:
        return Code.WAITS_FOR_QUIET_HOURS
    return Code.WILL_BE_RETRIED if attempts and attempts[-1].number == delivery.attempt else Code.PUT_OFF


def _of_obstacle(obstacle: Obstacle) -> Code:
    return Code(obstacle.value)


def _of_run(occurrence: Occurrence) -> Code | None:
    """What an occurrence is in the middle of, so that nobody of it is sent to; None where it runs or is over."""
    match OccurrenceState(occurrence.state):
        case OccurrenceState.WAITING:
            return Code.POSTPONED
        case OccurrenceState.CANCELLED:
            return Code.RUN_CANCELLED
        case OccurrenceState.MATERIALISING if occurrence.schedule.status == ScheduleStatus.PAUSED:
            return Code.SCHEDULE_PAUSED
        case OccurrenceState.MATERIALISING:
            return OF_SEARCH.get(occurrence.reason, Code.FINDING_RECIPIENTS)
    return None


# --- Of a person and a schedule ---------------------------------------------------------------------------------------


def explain(
    *,
    schedule_id: int,
    now: datetime,
    external_id: str | None = None,
    recipient_id: int | None = None,
    occurrence_id: int | None = None,
) -> Explanation:
    """Why the person did or did not get the schedule's message, at an occurrence of it or the latest that has opened.

    The person is named by the external id, or, as somebody erased has none, by the ledger's ``recipient_id``. A dozen
    statements at most, each by a key. Raises ``NotKnown``.
    """
    schedule = Schedule.objects.select_related("template").filter(pk=schedule_id).first()
    if schedule is None:
        raise NotKnown("schedule", f"There is no schedule {schedule_id}.")
    occurrence = _occurrence(schedule, occurrence_id, now=now)
    person = _person(external_id, recipient_id)
    pk = person.pk if person else recipient_id
    row = _row(occurrence, pk) if occurrence and pk is not None else None
    if pk is None or (person is None and row is None):
        raise NotKnown(
            "recipient", "Nobody is known by this name: nobody ever was, or the person has been erased with the name."
        )
    version, definition = hours.definition_of(schedule, occurrence)
    audience = _audience(person, occurrence, version, definition, now=now) if person else None
    known = Explanation(
        Code.OTHERWISE,
        pk,
        person,
        schedule,
        occurrence,
        audience=audience,
        reachable=_reachable(person, definition) if person else None,
    )
    if row is not None:
        return _with_row(known, row, now=now)
    return _without_row(known, definition, now=now)


def _occurrence(schedule: Schedule, occurrence_id: int | None, *, now: datetime) -> Occurrence | None:
    runs = Occurrence.objects.filter(schedule=schedule)
    if occurrence_id is None:
        opened = runs.filter(opens_at__lte=now).order_by("-occurrence_at", "-id").first()
        found = opened or runs.order_by("occurrence_at", "id").first()
    else:
        found = runs.filter(pk=occurrence_id).first()
        if found is None:
            raise NotKnown("occurrence", f"Schedule {schedule.pk} has no occurrence {occurrence_id}.")
    if found:
        found.schedule = schedule
    return found


def _person(external_id: str | None, recipient_id: int | None) -> Recipient | None:
    people = Recipient.objects.prefetch_related("devices")
    if external_id is not None:
        return people.filter(external_id=external_id).first()
    return people.filter(pk=recipient_id).first() if recipient_id is not None else None


def _row(occurrence: Occurrence, recipient_id: int) -> Delivery | None:
    return Delivery.objects.filter(day=occurrence.day, occurrence_id=occurrence.pk, recipient_id=recipient_id).first()


def _with_row(known: Explanation, row: Delivery, *, now: datetime) -> Explanation:
    story = of_delivery(row, occurrence=known.occurrence, person=known.person, now=now)
    is_push = known.schedule.channel == Channel.PUSH
    return Explanation(
        story.code,
        known.recipient_id,
        known.person,
        known.schedule,
        known.occurrence,
        story,
        Promise(row.wave_at, story.zone_name, ZoneSource(row.zone_source)),
        known.audience,
        known.reachable,
        facts.devices(row, known.person) if is_push else [],
        story.quieted,
    )


def _without_row(known: Explanation, definition: Definition, *, now: datetime) -> Explanation:
    occurrence, audience = known.occurrence, known.audience
    if occurrence is None:
        code = OF_STATUS[ScheduleStatus(known.schedule.status)]
    else:
        code = _of_absence(occurrence, known.person, audience)
    promise, quieted = None, None
    is_meant = audience is not None and audience.matches
    if code in (Code.NOT_DUE_YET, Code.POSTPONED, Code.FINDING_RECIPIENTS) and known.person and is_meant:
        at = occurrence.occurrence_at if occurrence else known.schedule.next_occurrence_at
        promise, quieted = hours.promise(definition, known.person, definition.run_at or at)
    return Explanation(
        code,
        known.recipient_id,
        known.person,
        known.schedule,
        occurrence,
        promise=promise,
        audience=audience,
        reachable=known.reachable,
        quieted=quieted,
    )


def _of_absence(occurrence: Occurrence, person: Recipient | None, audience: Audience | None) -> Code:
    if occurrence.outcomes is not None:
        return Code.PAST_RETENTION
    if code := _of_run(occurrence):
        return code
    if occurrence.state == OccurrenceState.MISSED:
        return Code.RUN_MISSED
    found_at = occurrence.materialised_at
    if person and found_at and person.created_at > found_at:
        return Code.CREATED_LATER
    if audience is None or not audience.matches:
        return Code.NOT_MATCHED
    return Code.CHANGED_LATER if audience.changed_at else Code.NOT_FOUND_THEN


def _audience(
    person: Recipient, occurrence: Occurrence | None, version: int, definition: Definition, *, now: datetime
) -> Audience | None:
    """None for a draft's query that can't be read yet."""
    try:
        query = parse(definition.audience_query)
    except InvalidAudience:
        return None
    found_at = occurrence.materialised_at if occurrence else None
    changed_at = person.updated_at if found_at and person.updated_at > found_at else None
    as_of = found_at or now
    mirrored = MirroredPerson.objects.filter(pk=person.pk).first()
    mirrored_at = mirrored.mirrored_at if mirrored else None
    return Audience(version, as_of, verdicts(query, _profile(person), now=as_of), changed_at, mirrored_at)


def _profile(person: Recipient) -> Profile:
    has_device = any(device.active for device in person.devices.all())
    return Profile(
        external_id=person.external_id,
        locale=person.locale,
        time_zone=person.time_zone,
        created_at=person.created_at,
        tags=person.tags,
        channels=reachable_channels(has_email=bool(person.email), has_device=has_device, consent=person.consent),
        attributes=person.attributes,
    )


def _reachable(person: Recipient, definition: Definition) -> Reachable:
    channel = definition.channel
    asked = asked_by(channel=channel, topic=definition.topic, purpose=definition.purpose)
    return Reachable(
        channel,
        person.email if channel == Channel.EMAIL else "",
        sum(device.active for device in person.devices.all()),
        person.consent.get(channel) is False,
        objection(person.consent, asked),
        suppressions.of_person(person) if channel == Channel.EMAIL else None,
    )

"""What a schedule would do at its next firing, told before it is kept.

Zones and instants are those that materialising will use, and people are judged as a claim judges them; the numbers hold
for the recipients, and what else is planned, as of the moment of asking.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings

from delivery import cap_forecast
from delivery.placing import Group, Placed, Wave, ZoneShare, asked_of, due_and_sent, groups_of, place, zones_of
from schedules.audience.compiler import is_indexable
from schedules.audience.parser import parse
from schedules.audience.sources import LocalSource
from schedules.audience.tree import Node
from schedules.definition import Definition, InvalidDefinition
from schedules.models import ScheduleType, TimeZoneMode
from schedules.problems import Problem, say
from schedules.recurrence import ZONE_NAMES, Firing, Note, describe, first_firing, next_firing, next_runs, notes
from schedules.recurrence.timing import YEARS

# Runs ahead that are looked at for clock changes.
NOTED_RUNS = 10
# Larger audiences are judged under the caps by a sample of so many.
EXACT = 5_000
SAMPLE = 2_000
# A firing that far in a cron's list of runs is not looked for.
_MOST_RUNS = 1_000
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Capped:
    """How many would be turned away by a cap; from ``sample`` people where it is an estimate."""

    people: int
    is_estimate: bool
    sample: int | None


@dataclass(frozen=True)
class Duration:
    """``seconds`` of sending at ``rate`` people a second; ``ends_at``: when the last wave would be through."""

    rate: float
    seconds: float
    ends_at: datetime | None


@dataclass(frozen=True)
class Forecast:
    """``targeted`` = people of ``past`` who are skipped + ``expiring`` + people of all waves.

    ``expiring``: the send window opens, or their quiet hours end, later than they may wait for it.
    Of the waves' people ``suppressed``, ``unaddressable`` and ``capped`` get nothing. ``past``: those whose hour has
    passed already; with ``on_past`` ``send_now`` they are a wave at ``as_of``, else they expire. ``missing`` and
    ``invalid`` zones fall back to the schedule's; ``invalid_names`` tells the most frequent.
    """

    as_of: datetime
    sentence: str
    firing: Firing
    targeted: int
    waves: tuple[Wave, ...]
    on_past: str
    past: tuple[ZoneShare, ...]
    expiring: int
    missing: int
    invalid: int
    invalid_names: tuple[tuple[str, int], ...]
    suppressed: int
    unaddressable: int
    capped: Capped
    duration: Duration
    notes: tuple[Note, ...]
    is_scan: bool

    @property
    def attempted(self) -> int:
        """People for whom the provider would be asked."""
        due = sum(wave.people for wave in self.waves)
        return max(due - self.suppressed - self.unaddressable - self.capped.people, 0)


def forecast(
    *, definition: Definition, now: datetime, occurrence_at: datetime | None = None, editing: int | None = None
) -> Forecast:
    """Forecast the next firing of ``definition``, which must be valid, or of a cron the one at ``occurrence_at``.

    ``editing``: the schedule that the definition is to replace. Raises ``InvalidDefinition`` for an ``occurrence_at``
    at which nothing fires, and ``AudienceTooSlow``.
    """
    firing = _firing(definition, occurrence_at, now=now)
    node = parse(definition.audience_query)
    found_at = _found_at(firing, now=now)
    groups = groups_of(node, definition, now=found_at)
    placed = place(groups, definition=definition, firing=firing, now=now)
    targeted = sum(group.people for group in groups)
    capped = _capped(
        node,
        placed,
        total=targeted,
        definition=definition,
        firing=firing,
        found_at=found_at,
        now=now,
        editing=editing,
    )
    timing = definition.timing()
    is_local = definition.time_zone_mode == TimeZoneMode.USER_LOCAL
    invalid = [group for group in groups if is_local and group.zone != "" and group.zone not in ZONE_NAMES]
    return Forecast(
        as_of=now,
        sentence=describe(timing),
        firing=firing,
        targeted=targeted,
        waves=placed.waves,
        on_past=definition.on_past,
        past=placed.past,
        expiring=placed.expiring,
        missing=sum(group.people for group in groups if is_local and group.zone == ""),
        invalid=sum(group.people for group in invalid),
        invalid_names=_most_frequent(invalid),
        suppressed=placed.suppressed,
        unaddressable=placed.unaddressable,
        capped=capped,
        duration=_duration(placed, definition),
        notes=tuple(notes(timing, next_runs(timing, now=now, count=NOTED_RUNS))),
        is_scan=not is_indexable(node),
    )


def past_zones(*, definition: Definition, now: datetime) -> tuple[ZoneShare, ...]:
    """What ``forecast`` tells as ``past``, alone and so the sooner: those whose hour of the next firing has passed.

    Raises ``InvalidAudience``, ``InvalidDefinition`` and ``AudienceTooSlow``.
    """
    firing = _firing(definition, None, now=now)
    groups = zones_of(parse(definition.audience_query), definition, now=_found_at(firing, now=now))
    return place(groups, definition=definition, firing=firing, now=now).past


def _most_frequent(groups: Sequence[Group]) -> tuple[tuple[str, int], ...]:
    """By name of the zone, as far as it is told."""
    people: Counter[str] = Counter()
    for group in groups:
        if group.zone is not None:
            people[group.zone] += group.people
    return tuple(people.most_common())


def _found_at(firing: Firing, *, now: datetime) -> datetime:
    """When people are found: as the occurrence is materialised, so long before anyone is due."""
    return max(now, firing.opens_at - timedelta(seconds=settings.MATERIALISE_AHEAD_S))


def _firing(definition: Definition, occurrence_at: datetime | None, *, now: datetime) -> Firing:
    timing = definition.timing()
    grace = timedelta(minutes=definition.misfire_grace_minutes)
    following = first_firing(timing, now=now, grace=grace)
    if occurrence_at is None:
        if following is None:
            raise InvalidDefinition([Problem("endAt", "no_firing", say("Nothing fires any more."))])
        return following
    if definition.schedule_type == ScheduleType.ONCE:
        message = say("A one-off has one occurrence: leave it out.")
        raise InvalidDefinition([Problem("occurrenceAt", "not_applicable", message)])
    asked = next_firing(timing, after=occurrence_at - _TICK) if occurrence_at.year in YEARS else None
    is_one = asked is not None and asked.occurrence_at == occurrence_at and asked.closes_at > now
    if asked is None or not is_one or not _within_runs(definition, asked, now=now):
        message = say("The cron does not fire at that instant, or did so already: see its next runs.")
        raise InvalidDefinition([Problem("occurrenceAt", "no_firing", message)])
    return asked


def _within_runs(definition: Definition, firing: Firing, *, now: datetime) -> bool:
    if definition.max_runs is None:
        return True
    count = min(definition.max_runs, _MOST_RUNS)
    return firing in next_runs(definition.timing(), now=now, count=count)


# Caps and time


def _capped(
    node: Node,
    placed: Placed,
    *,
    total: int,
    definition: Definition,
    firing: Firing,
    found_at: datetime,
    now: datetime,
    editing: int | None,
) -> Capped:
    limits = cap_forecast.limits_of(definition)
    reached = placed.people - placed.suppressed - placed.unaddressable
    if not reached or (limits.per_day is None and limits.per_week is None):
        return Capped(0, is_estimate=False, sample=None)
    ids = LocalSource().sample(node, now=found_at, n=EXACT if total <= EXACT else SAMPLE)
    waves = {}
    sampled = cap_forecast.people(ids, asked=asked_of(definition))
    found = [person for person in sampled if definition.channel in person.channels]
    for person in found:
        _, at = due_and_sent(person.zone, person.quiet, definition=definition, firing=firing, now=now)
        if at is not None:
            waves[person.pk] = at
    judged = [person for person in found if person.pk in waves]
    crowded = cap_forecast.judge(judged, waves=waves, definition=definition, firing=firing, now=now, editing=editing)
    if total <= EXACT and crowded.is_whole:
        return Capped(crowded.capped, is_estimate=False, sample=None)
    people = round(crowded.capped / crowded.judged * reached) if crowded.judged else 0
    return Capped(people, is_estimate=True, sample=crowded.judged)


def _duration(placed: Placed, definition: Definition) -> Duration:
    """Waves are sent one after the other, each from its instant on."""
    rate = settings.SEND_RATE_PER_S[definition.channel]
    if definition.max_per_minute:
        rate = min(rate, definition.max_per_minute / 60)
    ends_at = None
    for wave in placed.waves:
        ends_at = max(wave.at, ends_at or wave.at) + timedelta(seconds=wave.people / rate)
    return Duration(rate, placed.people / rate, ends_at)

"""What a schedule would do at its next firing, told before it is kept.

Zones and instants are those that materialising will use, and people are judged as a claim judges them; the numbers hold
for the recipients, and what else is planned, as of the moment of asking.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.db import connection
from django.db.models import BigIntegerField, Count, Value

from delivery import cap_forecast
from delivery.cap_forecast import allowed_in, due_in, meant_in
from schedules.audience.compiler import has_address, is_indexable, suppressed
from schedules.audience.parser import parse
from schedules.audience.sources import LocalSource, limited
from schedules.audience.tree import Node
from schedules.consents import Asked, asked_by, objecting
from schedules.definition import Definition, InvalidDefinition
from schedules.models import Channel, OnPast, ScheduleType, TimeZoneMode
from schedules.occurrences import LIFE
from schedules.problems import Problem, say
from schedules.recurrence import ZONE_NAMES, Firing, Note, describe, first_firing, next_firing, next_runs, notes
from schedules.recurrence.timing import YEARS

# Runs ahead that are looked at for clock changes.
NOTED_RUNS = 10
# Larger audiences are judged under the caps by a sample of so many.
EXACT = 5_000
SAMPLE = 2_000
# Names of invalid zones that are told, the most frequent first.
TOLD_INVALID = 20
# A firing that far in a cron's list of runs is not looked for.
_MOST_RUNS = 1_000
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class ZoneShare:
    """People of one zone; ``at`` is the instant of their own clock."""

    zone: str
    people: int
    at: datetime


@dataclass(frozen=True)
class Wave:
    """People due at one instant, by zone. Whoever has no valid zone stands under the schedule's."""

    at: datetime
    people: int
    zones: tuple[ZoneShare, ...]


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

    ``expiring``: their send window opens later than they may wait for it.
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


class _Group(NamedTuple):
    """People of one zone: a valid name, ``""``, an invalid name, or None for the invalid ones too rare to be told."""

    zone: str | None
    people: int
    suppressed: int
    unaddressable: int


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
    groups = _groups(node, _asked(definition), now=found_at)
    placed = _place(groups, definition=definition, firing=firing, now=now)
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
        invalid_names=tuple((group.zone, group.people) for group in invalid if group.zone is not None),
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
    people = LocalSource().zones(parse(definition.audience_query), now=_found_at(firing, now=now))
    groups = [_Group(zone, count, 0, 0) for zone, count in people.items()]
    return _place(groups, definition=definition, firing=firing, now=now).past


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


# The audience, by zone and by what a claim would find


# Names that are no zones may be as many as people: all but the most frequent are one group.
_GROUPS = """
WITH found AS MATERIALIZED (
    SELECT time_zone, sum(people) AS people, sum(silent) AS silent, sum(reached) AS reached
    FROM (__COUNTED__) AS counted GROUP BY time_zone
), known AS (
    SELECT f.*, time_zone = '' OR time_zone = ANY(%s::text[]) AS is_known FROM found f
), ranked AS (
    SELECT k.*, row_number() OVER (PARTITION BY is_known ORDER BY people DESC, time_zone) AS rank FROM known k
)
SELECT CASE WHEN is_known OR rank <= %s THEN time_zone END, sum(people)::bigint AS people, sum(silent)::bigint,
       sum(people - silent - reached)::bigint
FROM ranked GROUP BY 1 ORDER BY people DESC, 1
"""


def _asked(definition: Definition) -> Asked:
    return asked_by(channel=definition.channel, topic=definition.topic, purpose=definition.purpose)


def _groups(node: Node, asked: Asked, *, now: datetime) -> list[_Group]:
    """The audience in one statement."""
    source, channel, none = LocalSource(), Channel(asked.channel), Value(0, output_field=BigIntegerField())
    by_zone = source.queryset(node, now=now).values_list("time_zone")
    objects, is_suppressed = objecting(asked), suppressed(channel)
    reaches = has_address(channel) & ~objects
    people, silent = Count("pk"), Count("pk", filter=objects | is_suppressed)
    if channel is Channel.PUSH:  # all devices are joined at once, where a count's filter would look each person's up
        found = by_zone.annotate(people=people, silent=silent, reached=none)
        parts = [found, by_zone.filter(reaches).annotate(people=none, silent=none, reached=Count("pk"))]
    else:
        reached = Count("pk", filter=reaches & ~is_suppressed)
        parts = [by_zone.annotate(people=people, silent=silent, reached=reached)]
    columns = ("time_zone", "people", "silent", "reached")
    statements = [part.values_list(*columns).query.sql_with_params() for part in parts]
    sql = _GROUPS.replace("__COUNTED__", " UNION ALL ".join(statement for statement, _ in statements))
    values = [value for _, given in statements for value in given]
    with limited(timeout_ms=source.timeout_ms), connection.cursor() as cursor:
        cursor.execute(sql, [*values, sorted(ZONE_NAMES), TOLD_INVALID])
        return [_Group(*row) for row in cursor.fetchall()]


# Who is due when


@dataclass
class _Placed:
    """The groups at their instants. Those who are skipped, or ``expiring``, are in none of the other counts."""

    waves: tuple[Wave, ...]
    past: tuple[ZoneShare, ...]
    expiring: int
    people: int
    suppressed: int
    unaddressable: int


def _place(groups: Sequence[_Group], *, definition: Definition, firing: Firing, now: datetime) -> _Placed:
    shares: dict[datetime, Counter[str]] = defaultdict(Counter)
    past: Counter[str] = Counter()
    staying, expiring = [], 0
    for group in groups:
        zone, at = group.zone or "", _wave_at(group.zone or "", definition=definition, firing=firing, now=now)
        clock = zone if definition.time_zone_mode == TimeZoneMode.USER_LOCAL and zone in ZONE_NAMES else ""
        clock = clock or definition.time_zone
        if due_in(zone, firing=firing, definition=definition) < now:
            past[clock] += group.people
        if at is not None and at >= _waits_until(zone, definition=definition, firing=firing, now=now):
            expiring += group.people
        elif at is not None:
            shares[at][clock] += group.people
            staying.append(group)

    def told(people: Counter[str]) -> tuple[ZoneShare, ...]:
        found = [ZoneShare(zone, n, due_in(zone, firing=firing, definition=definition)) for zone, n in people.items()]
        return tuple(sorted(found, key=lambda share: (-share.people, share.zone)))

    return _Placed(
        waves=tuple(Wave(at, people.total(), told(people)) for at, people in sorted(shares.items())),
        past=told(past),
        expiring=expiring,
        people=sum(group.people for group in staying),
        suppressed=sum(group.suppressed for group in staying),
        unaddressable=sum(group.unaddressable for group in staying),
    )


def _wave_at(zone: str, *, definition: Definition, firing: Firing, now: datetime) -> datetime | None:
    """When people of that zone are due; None where their hour has passed and they are skipped."""
    due = due_in(zone, firing=firing, definition=definition)
    if due >= now:
        return due
    return allowed_in(zone, now, definition=definition) if definition.on_past == OnPast.SEND_NOW else None


def _waits_until(zone: str, *, definition: Definition, firing: Firing, now: datetime) -> datetime:
    """When a person due by the schedule, or at once, has waited for too long."""
    ends_at = max(firing.opens_at, now) + LIFE
    if (minutes := definition.expires_after_minutes) is None:
        return ends_at
    due = meant_in(zone, firing=firing, definition=definition)
    if due_in(zone, firing=firing, definition=definition) < now:
        due = now
    return min(ends_at, due + timedelta(minutes=minutes))


# Caps and time


def _capped(
    node: Node,
    placed: _Placed,
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
    sampled = cap_forecast.people(ids, asked=_asked(definition))
    found = [person for person in sampled if definition.channel in person.channels]
    for person in found:
        if at := _wave_at(person.zone, definition=definition, firing=firing, now=now):
            waves[person.pk] = at
    judged = [person for person in found if person.pk in waves]
    crowded = cap_forecast.judge(judged, waves=waves, definition=definition, firing=firing, now=now, editing=editing)
    if total <= EXACT and crowded.is_whole:
        return Capped(crowded.capped, is_estimate=False, sample=None)
    people = round(crowded.capped / crowded.judged * reached) if crowded.judged else 0
    return Capped(people, is_estimate=True, sample=crowded.judged)


def _duration(placed: _Placed, definition: Definition) -> Duration:
    """Waves are sent one after the other, each from its instant on."""
    rate = settings.SEND_RATE_PER_S[definition.channel]
    if definition.max_per_minute:
        rate = min(rate, definition.max_per_minute / 60)
    ends_at = None
    for wave in placed.waves:
        ends_at = max(wave.at, ends_at or wave.at) + timedelta(seconds=wave.people / rate)
    return Duration(rate, placed.people / rate, ends_at)

"""What a schedule would do at its next firing, told before it is kept.

Zones and instants are those that materialising will use, and people are judged as a claim judges them; the numbers hold
for the recipients, and what else is planned, as of the moment of asking.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson
from django.conf import settings
from django.db import connection
from django.db.models import BigIntegerField, Count, QuerySet, TextField, Value
from django.db.models.functions import Cast

from delivery import cap_forecast
from delivery.windows import allowed_in, due_in, meant_in
from schedules import quiet_hours
from schedules.audience.compiler import has_address, is_indexable, suppressed
from schedules.audience.parser import parse
from schedules.audience.sources import LocalSource, limited
from schedules.audience.tree import Node
from schedules.consents import Asked, asked_by, objecting
from schedules.definition import Definition, InvalidDefinition
from schedules.models import Channel, OnPast, Recipient, ScheduleType, TimeZoneMode
from schedules.occurrences import LIFE
from schedules.problems import Problem, say
from schedules.recurrence import ZONE_NAMES, Firing, Note, describe, first_firing, next_firing, next_runs, notes
from schedules.recurrence.timing import YEARS
from schedules.recurrence.windows import Window

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


class _Group(NamedTuple):
    """People of one zone: a valid name, ``""``, an invalid name, or None for the invalid ones too rare to be told.

    ``quiet``: as in ``delivery.windows``.
    """

    zone: str | None
    people: int
    suppressed: int
    unaddressable: int
    quiet: Window | None = None


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
    groups = _groups(node, definition, now=found_at)
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
    source = LocalSource()
    people = source.queryset(parse(definition.audience_query), now=_found_at(firing, now=now))
    with limited(timeout_ms=source.timeout_ms):
        rows = list(_by_clock(people, definition).annotate(people=Count("pk")))
    groups = [_Group(zone, count, 0, 0, _awake(hours)) for zone, hours, count in rows]
    return _place(groups, definition=definition, firing=firing, now=now).past


def _most_frequent(groups: Sequence[_Group]) -> tuple[tuple[str, int], ...]:
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


# The audience, by zone and by what a claim would find


# Names that are no zones may be as many as people: all but the most frequent are one group.
_GROUPS = """
WITH found AS MATERIALIZED (
    SELECT time_zone, hours, sum(people) AS people, sum(silent) AS silent, sum(reached) AS reached
    FROM (__COUNTED__) AS counted GROUP BY time_zone, hours
), known AS (
    SELECT f.*, time_zone = '' OR time_zone = ANY(%s::text[]) AS is_known,
           sum(people) OVER (PARTITION BY time_zone) AS of_zone FROM found f
), ranked AS (
    SELECT k.*, dense_rank() OVER (PARTITION BY is_known ORDER BY of_zone DESC, time_zone) AS rank FROM known k
)
SELECT CASE WHEN is_known OR rank <= %s THEN time_zone END, hours, sum(people)::bigint AS people, sum(silent)::bigint,
       sum(people - silent - reached)::bigint
FROM ranked GROUP BY 1, 2 ORDER BY people DESC, 1, 2
"""


def _asked(definition: Definition) -> Asked:
    return asked_by(channel=definition.channel, topic=definition.topic, purpose=definition.purpose)


def _by_clock(people: QuerySet[Recipient], definition: Definition) -> QuerySet[Recipient, tuple[Any, ...]]:
    """To be counted by zone, and by the text of their quiet hours, which is null where the schedule heeds none."""
    is_asked, text = definition.heeds_quiet_hours, TextField()
    hours = Cast("quiet_hours", text) if is_asked else Cast(Value(None), text)
    return people.annotate(hours=hours).values_list("time_zone", "hours")


def _awake(hours: str | None) -> Window | None:
    return quiet_hours.awake(orjson.loads(hours)) if hours else None


def _groups(node: Node, definition: Definition, *, now: datetime) -> list[_Group]:
    """The audience in one statement."""
    asked = _asked(definition)
    source, channel, none = LocalSource(), Channel(asked.channel), Value(0, output_field=BigIntegerField())
    by_zone = _by_clock(source.queryset(node, now=now), definition)
    objects, is_suppressed = objecting(asked), suppressed(channel)
    reaches = has_address(channel) & ~objects
    people, silent = Count("pk"), Count("pk", filter=objects | is_suppressed)
    if channel is Channel.PUSH:  # all devices are joined at once, where a count's filter would look each person's up
        found = by_zone.annotate(people=people, silent=silent, reached=none)
        parts = [found, by_zone.filter(reaches).annotate(people=none, silent=none, reached=Count("pk"))]
    else:
        reached = Count("pk", filter=reaches & ~is_suppressed)
        parts = [by_zone.annotate(people=people, silent=silent, reached=reached)]
    columns = ("time_zone", "hours", "people", "silent", "reached")
    statements = [part.values_list(*columns).query.sql_with_params() for part in parts]
    sql = _GROUPS.replace("__COUNTED__", " UNION ALL ".join(statement for statement, _ in statements))
    values = [value for _, given in statements for value in given]
    with limited(timeout_ms=source.timeout_ms), connection.cursor() as cursor:
        cursor.execute(sql, [*values, sorted(ZONE_NAMES), TOLD_INVALID])
        rows = cursor.fetchall()
    return [_Group(zone, people, silent, lost, _awake(hours)) for zone, hours, people, silent, lost in rows]


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
    shares: dict[datetime, Counter[tuple[str, datetime]]] = defaultdict(Counter)
    past: Counter[tuple[str, datetime]] = Counter()
    staying, expiring = [], 0
    for group in groups:
        zone = group.zone or ""
        clock = zone if definition.time_zone_mode == TimeZoneMode.USER_LOCAL and zone in ZONE_NAMES else ""
        clock = clock or definition.time_zone
        due, at = _due(zone, group.quiet, definition=definition, firing=firing, now=now)
        if due is not None and due < now:
            past[clock, due] += group.people
            if at is None:
                continue
        if due is None or at is None or at >= _waits_until(zone, due, definition=definition, firing=firing, now=now):
            expiring += group.people
        else:
            shares[at][clock, due] += group.people
            staying.append(group)

    def told(people: Counter[tuple[str, datetime]]) -> tuple[ZoneShare, ...]:
        found = [ZoneShare(zone, n, due) for (zone, due), n in people.items()]
        return tuple(sorted(found, key=lambda share: (-share.people, share.zone, share.at)))

    return _Placed(
        waves=tuple(Wave(at, people.total(), told(people)) for at, people in sorted(shares.items())),
        past=told(past),
        expiring=expiring,
        people=sum(group.people for group in staying),
        suppressed=sum(group.suppressed for group in staying),
        unaddressable=sum(group.unaddressable for group in staying),
    )


def _due(
    zone: str, quiet: Window | None, *, definition: Definition, firing: Firing, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """When people are due by the schedule, None for never, and when they would be sent to: None for those who are
    skipped, since their hour has passed."""
    due = due_in(zone, firing=firing, definition=definition, quiet=quiet)
    if due is None or due >= now:
        return due, due
    if definition.on_past != OnPast.SEND_NOW:
        return due, None
    return due, allowed_in(zone, now, definition=definition, quiet=quiet)


def _waits_until(zone: str, due: datetime, *, definition: Definition, firing: Firing, now: datetime) -> datetime:
    """When a person due by the schedule at ``due``, or at once, has waited for too long."""
    ends_at = max(firing.opens_at, now) + LIFE
    if (minutes := definition.expires_after_minutes) is None:
        return ends_at
    begun = now if due < now else meant_in(zone, firing=firing, definition=definition)
    return min(ends_at, begun + timedelta(minutes=minutes))


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
        _, at = _due(person.zone, person.quiet, definition=definition, firing=firing, now=now)
        if at is not None:
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

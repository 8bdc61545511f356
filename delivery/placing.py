"""Who of an audience would be due when: people by zone and quiet hours, at the instants that materialising will use."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson
from django.db import connection
from django.db.models import BigIntegerField, Count, QuerySet, TextField, Value
from django.db.models.functions import Cast

from delivery.windows import allowed_in, due_in, meant_in
from schedules import quiet_hours
from schedules.audience.compiler import has_address, suppressed
from schedules.audience.sources import LocalSource, limited
from schedules.audience.tree import Node
from schedules.consents import Asked, asked_by, objecting
from schedules.definition import Definition
from schedules.models import Channel, OnPast, Recipient, TimeZoneMode
from schedules.occurrences import LIFE
from schedules.recurrence import ZONE_NAMES, Firing
from schedules.recurrence.windows import Window

# Names of invalid zones that are told, the most frequent first.
TOLD_INVALID: Final = 20


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


class Group(NamedTuple):
    """People of one zone: a valid name, ``""``, an invalid name, or None for the invalid ones too rare to be told.

    ``quiet``: as in ``delivery.windows``.
    """

    zone: str | None
    people: int
    suppressed: int
    unaddressable: int
    quiet: Window | None = None


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


def asked_of(definition: Definition) -> Asked:
    return asked_by(channel=definition.channel, topic=definition.topic, purpose=definition.purpose)


def _by_clock(people: QuerySet[Recipient], definition: Definition) -> QuerySet[Recipient, tuple[Any, ...]]:
    """To be counted by zone, and by the text of their quiet hours, which is null where the schedule heeds none."""
    is_asked, text = definition.heeds_quiet_hours, TextField()
    hours = Cast("quiet_hours", text) if is_asked else Cast(Value(None), text)
    return people.annotate(hours=hours).values_list("time_zone", "hours")


def _awake(hours: str | None) -> Window | None:
    return quiet_hours.awake(orjson.loads(hours)) if hours else None


def groups_of(node: Node, definition: Definition, *, now: datetime) -> list[Group]:
    """The audience in one statement."""
    asked = asked_of(definition)
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
    return [Group(zone, people, silent, lost, _awake(hours)) for zone, hours, people, silent, lost in rows]


def zones_of(node: Node, definition: Definition, *, now: datetime) -> list[Group]:
    """As ``groups_of``, but for what a claim would find."""
    source = LocalSource()
    with limited(timeout_ms=source.timeout_ms):
        rows = list(_by_clock(source.queryset(node, now=now), definition).annotate(people=Count("pk")))
    return [Group(zone, people, 0, 0, _awake(hours)) for zone, hours, people in rows]


# Who is due when


@dataclass
class Placed:
    """The groups at their instants. Those who are skipped, or ``expiring``, are in none of the other counts."""

    waves: tuple[Wave, ...]
    past: tuple[ZoneShare, ...]
    expiring: int
    people: int
    suppressed: int
    unaddressable: int


def place(groups: Sequence[Group], *, definition: Definition, firing: Firing, now: datetime) -> Placed:
    shares: dict[datetime, Counter[tuple[str, datetime]]] = defaultdict(Counter)
    past: Counter[tuple[str, datetime]] = Counter()
    staying, expiring = [], 0
    for group in groups:
        zone = group.zone or ""
        clock = zone if definition.time_zone_mode == TimeZoneMode.USER_LOCAL and zone in ZONE_NAMES else ""
        clock = clock or definition.time_zone
        due, at = due_and_sent(zone, group.quiet, definition=definition, firing=firing, now=now)
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

    return Placed(
        waves=tuple(Wave(at, people.total(), told(people)) for at, people in sorted(shares.items())),
        past=told(past),
        expiring=expiring,
        people=sum(group.people for group in staying),
        suppressed=sum(group.suppressed for group in staying),
        unaddressable=sum(group.unaddressable for group in staying),
    )


def due_and_sent(
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

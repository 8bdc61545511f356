"""An audience at a glance: how many, where they are, and a few of them."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.db import connection
from django.db.models import BooleanField, Count, ExpressionWrapper, Q, QuerySet

from schedules.audience.compiler import has_address, is_indexable, suppressed
from schedules.audience.matching import reachable_channels
from schedules.audience.sources import LocalSource, limited
from schedules.audience.tree import Node
from schedules.consents import Asked, objecting
from schedules.models import Channel, Recipient

# Zones and locales that are told by name, the most frequent first.
TOLD = 100


class Share(NamedTuple):
    """``name``: as the profiles have it, empty where they have none; None for all that are too rare to be told."""

    name: str | None
    people: int


@dataclass(frozen=True)
class Sampled:
    """One of them. ``email`` is in clear: whoever shows it masks it. ``devices`` counts the active ones."""

    external_id: str
    email: str
    locale: str
    time_zone: str
    devices: int
    channels: frozenset[str]


@dataclass(frozen=True)
class Preview:
    """``suppressed`` may not be written to, by their consent or their address; ``unaddressable`` may, and have no
    address there. Both are empty where no channel was asked for. ``is_scan``: no index narrows the question down.
    """

    as_of: datetime
    count: int
    suppressed: int | None
    unaddressable: int | None
    zones: tuple[Share, ...]
    locales: tuple[Share, ...]
    sample: tuple[Sampled, ...]
    is_scan: bool


# Larger audiences are sampled at places of chance among their ids, which reads a few of them rather than all.
_SORTED = 20_000
# Pairs of zone and locale first, which two workers can count at once; profiles may hold any words: all but the most
# frequent are told together.
_COUNT = """
WITH pairs AS MATERIALIZED (
    SELECT time_zone, locale, count(*) AS people, count(*) FILTER (WHERE opted_out) AS opted_out,
           count(*) FILTER (WHERE reached) AS reached, min(id) AS first, max(id) AS last
    FROM (__AUDIENCE__) AS a GROUP BY time_zone, locale
), counted AS MATERIALIZED (
    SELECT GROUPING(time_zone) * 2 + GROUPING(locale) AS kind, COALESCE(time_zone, locale) AS name,
           COALESCE(sum(people), 0) AS people, COALESCE(sum(opted_out), 0) AS opted_out,
           COALESCE(sum(reached), 0) AS reached, min(first) AS first, max(last) AS last
    FROM pairs GROUP BY GROUPING SETS ((), (time_zone), (locale))
), ranked AS (
    SELECT c.*, row_number() OVER (PARTITION BY kind ORDER BY people DESC, name) <= %s AS is_told FROM counted c
), told AS (
    SELECT kind, CASE WHEN is_told THEN name END AS name, sum(people)::bigint AS people,
           sum(opted_out)::bigint AS opted_out, sum(reached)::bigint AS reached, min(first) AS first, max(last) AS last
    FROM ranked GROUP BY kind, 2
)
SELECT kind, name, people, opted_out, reached, first, last FROM told ORDER BY name IS NULL, people DESC, name
"""
_ZONES, _LOCALES, _ALL = 1, 2, 3  # the columns that a row has been summed over, as bits


class _Counted(NamedTuple):
    """``first`` and ``last``: ids between which they lie; None where there is nobody."""

    name: str | None
    people: int
    opted_out: int
    reached: int
    first: int | None
    last: int | None


def preview(*, node: Node, asked: Asked | None, sample: int, now: datetime) -> Preview:
    """Look at the audience, and at ``sample`` of its people by chance; ``asked``: what a message would need.

    Raises ``AudienceTooSlow``.
    """
    source = LocalSource()
    told = _counted(source, source.queryset(node, now=now), asked)
    (everybody,) = told[_ALL]
    unaddressable = None
    if asked:
        reached = everybody.reached
        if (
            asked.channel == Channel.PUSH
        ):  # all devices are joined at once, where a count's filter would look each person's up
            with limited(timeout_ms=source.timeout_ms):
                reached = source.queryset(node, now=now).filter(_reached(asked)).count()
        unaddressable = max(everybody.people - everybody.opted_out - reached, 0)
    return Preview(
        as_of=now,
        count=everybody.people,
        suppressed=everybody.opted_out if asked else None,
        unaddressable=unaddressable,
        zones=tuple(Share(each.name, each.people) for each in told[_ZONES]),
        locales=tuple(Share(each.name, each.people) for each in told[_LOCALES]),
        sample=_people(_some(source, node, everybody, n=sample, now=now)) if sample else (),
        is_scan=not is_indexable(node),
    )


def _counted(source: LocalSource, audience: QuerySet[Recipient], asked: Asked | None) -> dict[int, list[_Counted]]:
    nobody = Q(pk__isnull=True)
    is_suppressed = suppressed(Channel(asked.channel)) if asked else nobody
    silent = objecting(asked) | is_suppressed if asked else nobody
    reached = _reached(asked) & ~is_suppressed if asked and asked.channel != Channel.PUSH else nobody
    rows = audience.annotate(
        opted_out=ExpressionWrapper(silent, output_field=BooleanField()),
        reached=ExpressionWrapper(reached, output_field=BooleanField()),
    )
    sql, parameters = rows.values_list("id", "time_zone", "locale", "opted_out", "reached").query.sql_with_params()
    found: dict[int, list[_Counted]] = defaultdict(list)
    with limited(timeout_ms=source.timeout_ms), connection.cursor() as cursor:
        cursor.execute(_COUNT.replace("__AUDIENCE__", sql), [*parameters, TOLD])
        for kind, *row in cursor.fetchall():
            found[kind].append(_Counted(*row))
    return found


def _reached(asked: Asked) -> Q:
    return has_address(Channel(asked.channel)) & ~objecting(asked)


def _some(source: LocalSource, node: Node, everybody: _Counted, *, n: int, now: datetime) -> Sequence[int]:
    """Ids of at most ``n`` of them by chance, the same ones each time."""
    if everybody.people <= _SORTED or everybody.first is None or everybody.last is None:
        return source.sample(node, now=now, n=n)
    chance = random.Random(0)  # noqa: S311 - nothing depends on it
    places = [chance.randint(everybody.first, everybody.last) for _ in range(n)]
    found = [source.page(node, now=now, after_id=place - 1, limit=1) for place in places]
    return list(dict.fromkeys(pk for page in found for pk in page))


def _people(ids: Sequence[int]) -> tuple[Sampled, ...]:
    rows = Recipient.objects.filter(pk__in=ids).annotate(active=Count("devices", filter=Q(devices__active=True)))
    found = {person.pk: person for person in rows}
    return tuple(
        Sampled(
            person.external_id,
            person.email,
            person.locale,
            person.time_zone,
            person.active,
            reachable_channels(has_email=bool(person.email), has_device=person.active > 0, consent=person.consent),
        )
        for person in (found[pk] for pk in ids if pk in found)
    )

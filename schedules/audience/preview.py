"""An audience at a glance: how many, where they are, and a few of them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.db import connection
from django.db.models import BooleanField, Count, ExpressionWrapper, Q, QuerySet

from schedules.audience.compiler import is_indexable
from schedules.audience.matching import reachable_channels
from schedules.audience.reach import opted_out, without_address
from schedules.audience.sources import LocalSource, limited
from schedules.audience.tree import Node
from schedules.models import Recipient

# Zones and locales that are told by name, the most frequent first: profiles may hold any words.
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
    """``suppressed`` have opted out of the channel; ``unaddressable`` have not, and have no address there.

    Both are empty where no channel was asked for. ``is_scan``: no index narrows the question down.
    """

    as_of: datetime
    count: int
    suppressed: int | None
    unaddressable: int | None
    zones: tuple[Share, ...]
    locales: tuple[Share, ...]
    sample: tuple[Sampled, ...]
    is_scan: bool


_COUNT = """
WITH counted AS MATERIALIZED (
    SELECT GROUPING(time_zone) * 2 + GROUPING(locale) AS kind, time_zone, locale, count(*) AS people,
           count(*) FILTER (WHERE opted_out) AS opted_out,
           count(*) FILTER (WHERE no_address AND opted_out IS NOT TRUE) AS no_address
    FROM (__AUDIENCE__) AS a GROUP BY GROUPING SETS ((), (time_zone), (locale))
), ranked AS (
    SELECT c.*, row_number() OVER (PARTITION BY kind ORDER BY people DESC, time_zone, locale) AS rank FROM counted c
)
SELECT kind, CASE WHEN rank <= %s THEN COALESCE(time_zone, locale) END, sum(people)::bigint, sum(opted_out)::bigint,
       sum(no_address)::bigint
FROM ranked GROUP BY 1, 2 ORDER BY 2 IS NULL, 3 DESC, 2
"""
_ZONES, _LOCALES, _ALL = 1, 2, 3  # the columns that a row has been summed over, as bits


def preview(*, node: Node, channel: str | None, sample: int, now: datetime) -> Preview:
    """Look at the audience, and at ``sample`` of its people by chance. Raises ``AudienceTooSlow``."""
    source = LocalSource()
    told = _counted(source, source.queryset(node, now=now), channel)
    ((_, count, suppressed, unaddressable),) = told[_ALL]
    return Preview(
        as_of=now,
        count=count,
        suppressed=suppressed if channel else None,
        unaddressable=unaddressable if channel else None,
        zones=tuple(Share(name, people) for name, people, *_ in told[_ZONES]),
        locales=tuple(Share(name, people) for name, people, *_ in told[_LOCALES]),
        sample=_people(source.sample(node, now=now, n=sample)) if sample else (),
        is_scan=not is_indexable(node),
    )


def _counted(
    source: LocalSource, audience: QuerySet[Recipient], channel: str | None
) -> dict[int, list[tuple[str | None, int, int, int]]]:
    never = Q(pk__isnull=True)
    rows = audience.annotate(
        opted_out=ExpressionWrapper(opted_out(channel) if channel else never, output_field=BooleanField()),
        no_address=ExpressionWrapper(without_address(channel) if channel else never, output_field=BooleanField()),
    )
    sql, parameters = rows.values_list("time_zone", "locale", "opted_out", "no_address").query.sql_with_params()
    found: dict[int, list[tuple[str | None, int, int, int]]] = defaultdict(list)
    with limited(timeout_ms=source.timeout_ms), connection.cursor() as cursor:
        cursor.execute(_COUNT.replace("__AUDIENCE__", sql), [*parameters, TOLD])
        for kind, *told in cursor.fetchall():
            found[kind].append(tuple(told))
    return found


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

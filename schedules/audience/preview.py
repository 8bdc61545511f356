"""An audience at a glance: how many, where they are, and a few of them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django.db import connection
from django.db.models import BooleanField, Count, ExpressionWrapper, Q, QuerySet

from schedules.audience.compiler import is_indexable, opted_out, reaches
from schedules.audience.matching import reachable_channels
from schedules.audience.sources import LocalSource, limited
from schedules.audience.tree import Node
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


# Profiles may hold any words: all but the most frequent are told together.
_COUNT = """
WITH counted AS MATERIALIZED (
    SELECT GROUPING(time_zone) * 2 + GROUPING(locale) AS kind, COALESCE(time_zone, locale) AS name, count(*) AS people,
           count(*) FILTER (WHERE opted_out) AS opted_out
    FROM (__AUDIENCE__) AS a GROUP BY GROUPING SETS ((), (time_zone), (locale))
), ranked AS (
    SELECT c.*, row_number() OVER (PARTITION BY kind ORDER BY people DESC, name) <= %s AS is_told FROM counted c
), told AS (
    SELECT kind, CASE WHEN is_told THEN name END AS name, sum(people)::bigint AS people,
           sum(opted_out)::bigint AS opted_out
    FROM ranked GROUP BY kind, 2
)
SELECT kind, name, people, opted_out FROM told ORDER BY name IS NULL, people DESC, name
"""
_ZONES, _LOCALES, _ALL = 1, 2, 3  # the columns that a row has been summed over, as bits


def preview(*, node: Node, channel: str | None, sample: int, now: datetime) -> Preview:
    """Look at the audience, and at ``sample`` of its people by chance. Raises ``AudienceTooSlow``."""
    source = LocalSource()
    asked = Channel(channel) if channel else None
    told = _counted(source, source.queryset(node, now=now), asked)
    ((_, count, suppressed),) = told[_ALL]
    unaddressable = None
    if asked:
        with limited(timeout_ms=source.timeout_ms):
            reached = source.queryset(node, now=now).filter(reaches(asked)).count()
        unaddressable = max(count - suppressed - reached, 0)
    return Preview(
        as_of=now,
        count=count,
        suppressed=suppressed if asked else None,
        unaddressable=unaddressable,
        zones=tuple(Share(name, people) for name, people, _ in told[_ZONES]),
        locales=tuple(Share(name, people) for name, people, _ in told[_LOCALES]),
        sample=_people(source.sample(node, now=now, n=sample)) if sample else (),
        is_scan=not is_indexable(node),
    )


def _counted(
    source: LocalSource, audience: QuerySet[Recipient], channel: Channel | None
) -> dict[int, list[tuple[str | None, int, int]]]:
    condition = opted_out(channel) if channel else Q(pk__isnull=True)
    rows = audience.annotate(opted_out=ExpressionWrapper(condition, output_field=BooleanField()))
    sql, parameters = rows.values_list("time_zone", "locale", "opted_out").query.sql_with_params()
    found: dict[int, list[tuple[str | None, int, int]]] = defaultdict(list)
    with limited(timeout_ms=source.timeout_ms), connection.cursor() as cursor:
        cursor.execute(_COUNT.replace("__AUDIENCE__", sql), [*parameters, TOLD])
        for kind, name, people, silent in cursor.fetchall():
            found[kind].append((name, people, silent))
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

"""What became of deliveries, in parts small enough to be told at once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from django.db import connection

from delivery.endpoint_models import Report, ToldBatch
from delivery.models import News, State

# Batches looked through at once.
BATCHES: Final = 40
REPORTS: Final = 5_000
# Of one event. The bytes are those of its outcomes' JSON at most, so that no event has more than 256 kB.
MOST_OUTCOMES: Final = 500
MOST_BYTES: Final = 200_000
_BYTES_OF_ONE: Final = 320  # without its ids


class Part(NamedTuple):
    """Outcomes of one occurrence, as an event holds them; ``at`` is the latest of their instants."""

    occurrence_id: int
    channel: str
    items: list[dict[str, Any]]
    at: datetime


class _Item(NamedTuple):
    data: dict[str, Any]
    at: datetime
    size: int


_ROWS = f"""
SELECT d.batch_id, d.day, d.occurrence_id, b.channel, d.recipient_id, d.state, d.reason, d.attempt, d.provider_id,
       d.wave_at, d.settled_at, octet_length(COALESCE(r.external_id, ''))
FROM delivery_delivery d JOIN delivery_batch b ON b.id = d.batch_id
LEFT JOIN schedules_recipient r ON r.id = d.recipient_id
WHERE d.day = ANY(%(days)s::date[]) AND d.batch_id = ANY(%(ids)s::bigint[])
  AND d.state >= {int(State.SENT)} AND d.settled_at >= %(since)s
ORDER BY d.batch_id, d.recipient_id
"""


def changed(*, since: datetime) -> tuple[list[Part], int]:
    """Outcomes from ``since`` on that have not been told, of some batches; and how many batches were looked through.

    They count as told from the commit on. Whoever settles one of these batches after this look has it looked through
    again.
    """
    found = ToldBatch.objects.select_for_update(skip_locked=True, no_key=True).filter(is_changed=True)
    batches = {each.batch_id: each for each in found.order_by("batch_id")[:BATCHES]}
    if not batches:
        return [], 0
    fresh: dict[tuple[int, str], list[_Item]] = defaultdict(list)
    with connection.cursor() as cursor:
        days = sorted({each.day for each in batches.values()})
        cursor.execute(_ROWS, {"days": days, "ids": list(batches), "since": since})
        for batch_id, day, occurrence_id, channel, recipient_id, *row, length in cursor.fetchall():
            state, reason, attempt, provider_id, wave_at, settled_at = row
            mark = f"{state} {attempt} {settled_at.timestamp():.6f} {reason}"
            if batches[batch_id].told.get(str(recipient_id)) == mark:
                continue
            batches[batch_id].told[str(recipient_id)] = mark
            data = {
                **_names(day, occurrence_id, recipient_id),
                "state": State(state).label,
                "reason": reason,
                "attempt": attempt,
                "providerId": provider_id,
                "waveAt": _instant(wave_at),
                "settledAt": _instant(settled_at),
            }
            fresh[occurrence_id, channel].append(_Item(data, settled_at, _size(length, reason, provider_id)))
    for each in batches.values():
        each.is_changed = False
    ToldBatch.objects.bulk_update(batches.values(), ["is_changed", "told"])
    return list(_parts(fresh)), len(batches)


def reported(channel: str) -> tuple[list[Part], int]:
    """What providers have told of deliveries by ``channel`` since the last look; and how many reports that were."""
    rows = list(Report.objects.select_for_update(skip_locked=True).order_by("pk")[:REPORTS])
    lengths = _lengths({row.recipient_id for row in rows})
    fresh: dict[tuple[int, str], list[_Item]] = defaultdict(list)
    for row in rows:
        data = {
            **_names(row.day, row.occurrence_id, row.recipient_id),
            "news": News(row.news).label,
            "at": _instant(row.at),
        }
        fresh[row.occurrence_id, channel].append(_Item(data, row.at, _size(lengths.get(row.recipient_id, 0))))
    Report.objects.filter(pk__in=[row.pk for row in rows]).delete()
    return list(_parts(fresh)), len(rows)


def delivery_id(day: date, occurrence_id: int, recipient_id: int) -> str:
    """As providers and the ledger's pages name a delivery."""
    return f"{day:%Y%m%d}-{occurrence_id}-{recipient_id}"


def _names(day: date, occurrence_id: int, recipient_id: int) -> dict[str, Any]:
    return {"deliveryId": delivery_id(day, occurrence_id, recipient_id), "recipientId": recipient_id}


def _lengths(recipient_ids: Iterable[int]) -> dict[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, octet_length(external_id) FROM schedules_recipient WHERE id = ANY(%s)", [list(recipient_ids)]
        )
        return dict(cursor.fetchall())


def _size(length: int, *texts: str) -> int:
    """At most so many bytes of JSON; a quote in an id takes two."""
    return _BYTES_OF_ONE + 2 * length + sum(2 * len(text.encode()) for text in texts)


def _parts(fresh: Mapping[tuple[int, str], list[_Item]]) -> Iterator[Part]:
    for (occurrence_id, channel), items in fresh.items():
        part: list[_Item] = []
        size = 0
        for item in items:
            if part and (len(part) == MOST_OUTCOMES or size + item.size > MOST_BYTES):
                yield _part(occurrence_id, channel, part)
                part, size = [], 0
            part.append(item)
            size += item.size
        yield _part(occurrence_id, channel, part)


def _part(occurrence_id: int, channel: str, items: list[_Item]) -> Part:
    return Part(occurrence_id, channel, [item.data for item in items], max(item.at for item in items))


def _instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")

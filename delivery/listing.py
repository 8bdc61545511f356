"""Reading the ledger a page at a time, newest occurrence first: by key, never by count, and at a bounded cost.

At most four statements a page, each naming the ledger's days. Rows of a person come off the recipient index, rows of
occurrences off the primary key. A state or a reason is looked for in the batches that can hold it: their counters say
which those are, so that one failure among a million people is found without reading the million.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection
from django.db.models import F, Q, QuerySet

from delivery.models import Batch, Delivery, State
from schedules.models import Occurrence

# Occurrences, and batches of up to 500 rows, that are looked through for one page; the next one goes on from there.
OCCURRENCES_A_PAGE = 100
BATCHES_A_PAGE = 40
# Without a person, an occurrence or a schedule only the latest are looked through.
LATEST_DAYS = 7
# Past every recipient: the page begins with the next batch or occurrence.
_BEYOND = 2**63 - 1


@dataclass(frozen=True)
class Filters:
    """What is asked for; ``recipient_id`` is the surrogate. Everything may be left out."""

    occurrence_id: int | None = None
    schedule_id: int | None = None
    recipient_id: int | None = None
    state: State | None = None
    reason: str = ""


@dataclass(frozen=True)
class Key:
    """Where a page begins: after this row of this occurrence, which a search by state or reason met in this batch.

    As text: ``20261122.15.1200``, with the batch ``20261122.15.1200.77``.
    """

    day: date
    occurrence_id: int
    recipient_id: int
    batch_id: int = 0

    def __str__(self) -> str:
        batch = f".{self.batch_id}" if self.batch_id else ""
        return f"{self.day:%Y%m%d}.{self.occurrence_id}.{self.recipient_id}{batch}"

    @classmethod
    def read(cls, text: str) -> "Key | None":
        """None for anything that is no key."""
        day, *ids = text.split(".")
        if len(ids) not in (2, 3) or not all(part.isascii() and part.isdigit() and len(part) < 20 for part in ids):
            return None
        try:
            key = cls(date.fromisoformat(day), *map(int, ids))
        except ValueError:
            return None
        return key if max(key.occurrence_id, key.recipient_id, key.batch_id) <= _BEYOND else None


@dataclass(frozen=True)
class Page:
    """``following`` is the key of the next page, none at the end."""

    rows: list[Delivery]
    following: Key | None


def page(filters: Filters, *, now: datetime, limit: int, after: Key | None = None) -> Page:
    """Up to ``limit`` rows. A page may be short or empty and still have a ``following``: the search goes on there."""
    if filters.recipient_id is not None:
        return _of_person(filters.recipient_id, filters, today=now.date(), limit=limit, after=after)
    if filters.state is None and not filters.reason:
        return _of_occurrences(filters, now=now, limit=limit, after=after)
    return _of_batches(filters, now=now, limit=limit, after=after)


def _of_person(recipient_id: int, filters: Filters, *, today: date, limit: int, after: Key | None) -> Page:
    rows = _matching(filters).filter(recipient_id=recipient_id)
    if filters.occurrence_id is not None:
        occurrence = Occurrence.objects.filter(pk=filters.occurrence_id).first()
        if occurrence is None:
            return Page([], None)
        rows = rows.filter(day=occurrence.day, occurrence_id=occurrence.pk)
    else:
        # A run can be planned ahead by a day and more: user-local days begin at UTC+14.
        first = today - timedelta(days=settings.LEDGER_RETENTION_DAYS)
        rows = rows.filter(day__gte=first, day__lte=today + timedelta(days=2))
    if filters.schedule_id is not None:
        rows = rows.filter(occurrence_id__in=Occurrence.objects.filter(schedule=filters.schedule_id).values("pk"))
    if after:
        rows = rows.filter(Q(day__lt=after.day) | Q(day=after.day, occurrence_id__lt=after.occurrence_id))
    found = list(rows.order_by("-day", "-occurrence_id")[: limit + 1])
    return Page(found[:limit], _key(found[limit - 1]) if len(found) > limit else None)


def _matching(filters: Filters) -> QuerySet[Delivery]:
    rows = Delivery.objects.all()
    if filters.state is not None:
        rows = rows.filter(state=filters.state)
    return rows.filter(reason=filters.reason) if filters.reason else rows


# --- Whatever became of it --------------------------------------------------------------------------------------------


def _of_occurrences(filters: Filters, *, now: datetime, limit: int, after: Key | None) -> Page:
    """Every row of the newest occurrences: ``targeted`` says how many of them hold enough."""
    started, last = _started(after)
    if not started:
        return Page([], None)
    candidates = _occurrences(filters, now=now).filter(targeted__gt=0)
    if last and after:
        here = Q(pk__lte=last.pk) if after.recipient_id != _BEYOND else Q(pk__lt=last.pk)
        candidates = candidates.filter(
            Q(occurrence_at__lt=last.occurrence_at) | Q(occurrence_at=last.occurrence_at) & here
        )
    ahead = list(candidates.order_by("-occurrence_at", "-id")[:OCCURRENCES_A_PAGE])
    chosen, people = [], 0
    for each in ahead:
        chosen.append(each)
        people += 0 if after and each.pk == after.occurrence_id else each.targeted
        if people > limit:
            break
    found = _first_of_each(chosen, limit=limit + 1, after=after)
    if len(found) > limit:
        return Page(found[:limit], _key(found[limit - 1]))
    is_end = len(chosen) == len(ahead) < OCCURRENCES_A_PAGE
    return Page(found, None if is_end else Key(chosen[-1].day, chosen[-1].pk, _BEYOND))


def _started(after: Key | None) -> tuple[bool, Occurrence | None]:
    """The occurrence of ``after``; false for a key whose occurrence is none."""
    last = Occurrence.objects.filter(pk=after.occurrence_id).first() if after else None
    return (after is None or last is not None), last


def _occurrences(filters: Filters, *, now: datetime) -> QuerySet[Occurrence]:
    found = Occurrence.objects.all()
    if filters.occurrence_id is not None:
        found = found.filter(pk=filters.occurrence_id)
    if filters.schedule_id is not None:
        found = found.filter(schedule=filters.schedule_id)
    if filters.occurrence_id is None and filters.schedule_id is None:
        found = found.filter(occurrence_at__gte=now - timedelta(days=LATEST_DAYS))
    return found


def _first_of_each(occurrences: Sequence[Occurrence], *, limit: int, after: Key | None) -> list[Delivery]:
    """Up to ``limit`` rows of the occurrences in their order, each read no further than that, in one statement."""
    return _read(
        """
        FROM unnest(%(days)s::date[], %(ids)s::bigint[], %(after)s::bigint[]) WITH ORDINALITY
            AS o(day, id, after, position)
        CROSS JOIN LATERAL (
            SELECT * FROM delivery_delivery d
            WHERE d.day = o.day AND d.occurrence_id = o.id AND d.recipient_id > o.after
              AND d.day = ANY(%(days)s::date[])
            ORDER BY d.recipient_id LIMIT %(limit)s
        ) d ORDER BY o.position, d.recipient_id LIMIT %(limit)s
        """,
        {
            "days": [each.day for each in occurrences],
            "ids": [each.pk for each in occurrences],
            "after": [after.recipient_id if after and after.occurrence_id == o.pk else -1 for o in occurrences],
            "limit": limit,
        },
    )


# --- Of a state or a reason -------------------------------------------------------------------------------------------


class _Candidate(NamedTuple):
    """A batch that can hold such rows; ``people`` in that state, where one is asked for."""

    day: date
    occurrence_id: int
    batch_id: int
    people: int


def _of_batches(filters: Filters, *, now: datetime, limit: int, after: Key | None) -> Page:
    started, last = _started(after)
    if not started:
        return Page([], None)
    ahead = _batches(filters, now=now, last=last, after=after)
    chosen, people = [], 0
    for each in ahead:
        chosen.append(each)
        people += 0 if after and each.batch_id == after.batch_id else each.people
        if people > limit:
            break
    found = _first_of_each_batch(chosen, filters, limit=limit + 1, after=after)
    if len(found) > limit:
        return Page(found[:limit], _key(found[limit - 1], in_batch=True))
    is_end = len(chosen) == len(ahead) < BATCHES_A_PAGE
    return Page(found, None if is_end else Key(chosen[-1].day, chosen[-1].occurrence_id, _BEYOND, chosen[-1].batch_id))


def _batches(filters: Filters, *, now: datetime, last: Occurrence | None, after: Key | None) -> list[_Candidate]:
    """The next batches with people in that state; by a reason alone, those where not everybody simply got it."""
    counter = filters.state.label if filters.state is not None else "size"
    rows = Batch.objects.filter(occurrence__in=_occurrences(filters, now=now))
    rows = rows.filter(**{f"{counter}__gt": 0}) if filters.state is not None else rows.exclude(sent=F("size"))
    if last and after:
        here = Q(pk__gte=after.batch_id) if after.recipient_id != _BEYOND else Q(pk__gt=after.batch_id)
        same = Q(occurrence=last.pk) & here | Q(occurrence__lt=last.pk)
        rows = rows.filter(
            Q(occurrence__occurrence_at__lt=last.occurrence_at) | Q(occurrence__occurrence_at=last.occurrence_at) & same
        )
    ordered = rows.order_by("-occurrence__occurrence_at", "-occurrence_id", "id")
    values = ordered.values_list("day", "occurrence_id", "id", counter)[:BATCHES_A_PAGE]
    return [
        _Candidate(day, pk, batch_id, people if filters.state is not None else 0)
        for day, pk, batch_id, people in values
    ]


def _first_of_each_batch(
    batches: Sequence[_Candidate], filters: Filters, *, limit: int, after: Key | None
) -> list[Delivery]:
    """Up to ``limit`` matching rows of the batches, in their order."""
    return _read(
        """
        FROM unnest(%(days)s::date[], %(ids)s::bigint[], %(after)s::bigint[]) WITH ORDINALITY
            AS b(day, id, after, position)
        CROSS JOIN LATERAL (
            SELECT * FROM delivery_delivery d
            WHERE d.day = b.day AND d.batch_id = b.id AND d.recipient_id > b.after
              AND d.day = ANY(%(days)s::date[])
              AND (%(state)s::smallint IS NULL OR d.state = %(state)s) AND (%(reason)s = '' OR d.reason = %(reason)s)
            ORDER BY d.recipient_id LIMIT %(limit)s
        ) d ORDER BY b.position, d.recipient_id LIMIT %(limit)s
        """,
        {
            "days": [each.day for each in batches],
            "ids": [each.batch_id for each in batches],
            "after": [after.recipient_id if after and after.batch_id == b.batch_id else -1 for b in batches],
            "state": None if filters.state is None else int(filters.state),
            "reason": filters.reason,
            "limit": limit,
        },
    )


_FIELDS = [field.attname for field in Delivery._meta.concrete_fields]
_SELECT = f"SELECT {', '.join(f'd.{name}' for name in _FIELDS)} "


def _read(sql: str, parameters: dict[str, Any]) -> list[Delivery]:
    """Rows by SQL from its FROM on; Django's own ``raw`` knows no keys of several columns."""
    with connection.cursor() as cursor:
        cursor.execute(_SELECT + sql, parameters)
        return [Delivery.from_db(None, _FIELDS, row) for row in cursor.fetchall()]


def _key(row: Delivery, *, in_batch: bool = False) -> Key:
    return Key(row.day, row.occurrence_id, row.recipient_id, row.batch_id if in_batch else 0)

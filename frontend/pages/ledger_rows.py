"""Reading the ledger a page at a time, newest occurrence first, by key and never by count.

Every query names ``day``. Rows of an occurrence come off the primary key; rows of a person off the recipient index,
within the days that the ledger keeps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet

from delivery.models import Batch, Delivery, State
from frontend.pages.paging import PAGE
from schedules.models import Occurrence

# Occurrences looked through for one page; a rare state in a busy service is searched on by the next page.
_OCCURRENCES_A_PAGE = 100
_CHUNK = 20


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
    """Where a page begins: after this row of this occurrence. As text: ``20261122.15.1200``."""

    day: date
    occurrence_id: int
    recipient_id: int

    def __str__(self) -> str:
        return f"{self.day:%Y%m%d}.{self.occurrence_id}.{self.recipient_id}"

    @classmethod
    def read(cls, text: str) -> "Key | None":
        """None for anything that is no key."""
        day, _, rest = text.partition(".")
        occurrence_id, _, recipient_id = rest.partition(".")
        try:
            return cls(date.fromisoformat(day), int(occurrence_id), int(recipient_id))
        except ValueError:
            return None


@dataclass(frozen=True)
class Page:
    """``following`` is the key of the next page, none at the end."""

    rows: list[Delivery]
    following: Key | None


def page(filters: Filters, *, today: date, after: Key | None = None) -> Page:
    """Up to ``PAGE`` rows. A page may be short or empty and still have a ``following``: the search goes on there."""
    if filters.recipient_id is not None:
        return _of_person(filters.recipient_id, filters, today=today, after=after)
    return _of_occurrences(filters, after=after)


def _of_person(recipient_id: int, filters: Filters, *, today: date, after: Key | None) -> Page:
    rows = _matching(filters).filter(recipient_id=recipient_id)
    # A run can be planned ahead by a day and more: user-local days begin at UTC+14.
    rows = rows.filter(day__gte=today - timedelta(days=settings.LEDGER_RETENTION_DAYS), day__lte=_last_day(today))
    if filters.occurrence_id is not None:
        rows = rows.filter(occurrence_id=filters.occurrence_id)
    if filters.schedule_id is not None:
        rows = rows.filter(occurrence_id__in=Occurrence.objects.filter(schedule=filters.schedule_id).values("pk"))
    if after:
        rows = rows.filter(Q(day__lt=after.day) | Q(day=after.day, occurrence_id__lt=after.occurrence_id))
    found = list(rows.order_by("-day", "-occurrence_id")[: PAGE + 1])
    return Page(found[:PAGE], _key(found[PAGE - 1]) if len(found) > PAGE else None)


def _last_day(today: date) -> date:
    return today + timedelta(days=2)


def _of_occurrences(filters: Filters, *, after: Key | None) -> Page:
    found: list[Delivery] = []
    seen: Occurrence | None = None
    for number, occurrence in enumerate(_occurrences(filters, after=after)):
        if number == _OCCURRENCES_A_PAGE and seen:
            return Page(found, Key(seen.day, seen.pk, _BEYOND))
        rows = _matching(filters).filter(day=occurrence.day, occurrence_id=occurrence.pk)
        if filters.state is not None:
            busy = Batch.objects.filter(occurrence=occurrence, **{f"{filters.state.label}__gt": 0})
            rows = rows.filter(batch_id__in=busy.values("pk"))
        if after and after.occurrence_id == occurrence.pk:
            rows = rows.filter(recipient_id__gt=after.recipient_id)
        found += rows.order_by("recipient_id")[: PAGE + 1 - len(found)]
        if len(found) > PAGE:
            return Page(found[:PAGE], _key(found[PAGE - 1]))
        seen = occurrence
    return Page(found, None)


# Past every recipient: the next page begins with the next occurrence.
_BEYOND = 2**63 - 1


def _matching(filters: Filters) -> QuerySet[Delivery]:
    rows = Delivery.objects.all()
    if filters.state is not None:
        rows = rows.filter(state=filters.state)
    if filters.reason:
        rows = rows.filter(reason=filters.reason)
    return rows


def _occurrences(filters: Filters, *, after: Key | None) -> Iterator[Occurrence]:
    """Occurrences that can hold such rows, newest first, a few at a time; that of ``after`` is the first."""
    found = Occurrence.objects.filter(targeted__gt=0).order_by("-occurrence_at", "-id")
    if filters.occurrence_id is not None:
        found = found.filter(pk=filters.occurrence_id)
    if filters.schedule_id is not None:
        found = found.filter(schedule=filters.schedule_id)
    if filters.state is not None:
        having = Batch.objects.filter(occurrence=OuterRef("pk"), **{f"{filters.state.label}__gt": 0})
        found = found.filter(Exists(having))
    last = Occurrence.objects.filter(pk=after.occurrence_id).first() if after else None
    if after and last is None:
        return
    is_first = after is not None and after.recipient_id != _BEYOND
    while True:
        chunk = found
        if last:
            same = Q(occurrence_at=last.occurrence_at) & (Q(pk__lte=last.pk) if is_first else Q(pk__lt=last.pk))
            chunk = found.filter(Q(occurrence_at__lt=last.occurrence_at) | same)
        occurrences = list(chunk[:_CHUNK])
        yield from occurrences
        if len(occurrences) < _CHUNK:
            return
        last, is_first = occurrences[-1], False


def _key(row: Delivery) -> Key:
    return Key(row.day, row.occurrence_id, row.recipient_id)

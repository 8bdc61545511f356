"""What the events of providers come to: kept once, counted, outcomes corrected, addresses suppressed.

One transaction for however many events. Every part of it follows from what is kept and not from what came last, so an
event may come twice, late, in any order, and by two roads at once; whoever dies half-way has done nothing.

Locks are taken in one order: feedback by its keys, deliveries by theirs, the counts of occurrences, suppressions by
their fingerprints, then batches and the counts at ``/metrics`` as the ledger has it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

import structlog
from django.db import OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected

from delivery import caps, counts, feedback, ledger, untold
from delivery.events.base import Kind, ProviderEvent
from delivery.feedback import Kept, Key, Told
from delivery.ledger import Tally
from delivery.models import FIRST_TEST_ID, News
from schedules import encryption, suppressions
from schedules.models import Channel, Occurrence, Recipient
from schedules.suppressions import Strike

log = structlog.get_logger(__name__)

# Of all providers that tell of messages.
CHANNEL: Final = Channel.EMAIL.value
NEWS: Final = {
    Kind.SEND: News.ACCEPTED,
    Kind.DELAY: News.DELAYED,
    Kind.BOUNCE_SOFT: News.BOUNCED_SOFT,
    Kind.DELIVERY: News.DELIVERED,
    Kind.REJECT: News.REJECTED,
    Kind.RENDERING_FAILURE: News.NOT_RENDERED,
    Kind.BOUNCE_HARD: News.BOUNCED_HARD,
    Kind.COMPLAINT: News.COMPLAINED,
}
# What an address gave back that is not to be repeated; None: not for the first time.
_STRIKES: Final = {
    News.BOUNCED_HARD: suppressions.Reason.BOUNCED.value,
    News.COMPLAINED: suppressions.Reason.COMPLAINED.value,
    News.BOUNCED_SOFT: None,
}
_METRICS: Final = {
    News.DELIVERED: (counts.DELIVERED, ""),
    News.BOUNCED_HARD: (counts.BOUNCED, "hard"),
    News.BOUNCED_SOFT: (counts.BOUNCED, "soft"),
    News.COMPLAINED: (counts.COMPLAINED, ""),
}
_KEY: Final = re.compile(r"(\d{4})(\d\d)(\d\d)-(\d{1,19})-(\d{1,19})", re.ASCII)
_LARGEST: Final = 2**63 - 1
# Two who take each other's locks after all: the database lets one of them go, who begins again.
_TRIES: Final = 3


class Result(StrEnum):
    """What an event was, by its place in the ledger."""

    NEW = "new"
    REPEATED = "repeated"
    UNMATCHED = "unmatched"  # of no delivery that the ledger has
    TEST = "test"  # of a message that was sent to be looked at


@dataclass(frozen=True)
class Settled:
    """What became of the events; ``corrected`` counts outcomes, ``suppressed`` addresses."""

    new: int = 0
    repeated: int = 0
    unmatched: int = 0
    tests: int = 0
    corrected: int = 0
    suppressed: int = 0


def settle(events: Sequence[ProviderEvent], *, now: datetime) -> Settled:
    """Settle events of a provider. Whose they are was made sure of before.

    Raises ``OperationalError`` and ``InterfaceError`` while the database is away: then none of it is done.
    """
    if not events:
        return Settled()
    for left in reversed(range(_TRIES)):
        try:
            with transaction.atomic():
                return _settle(events, now=now)
        except OperationalError as error:
            if not left or connection.in_atomic_block or not isinstance(error.__cause__, DeadlockDetected):
                raise
    raise AssertionError("the last try returns or raises")


def _settle(events: Sequence[ProviderEvent], *, now: datetime) -> Settled:
    keys = [key_of(event.key) for event in events]
    kept = feedback.keep(each for _, each in _by_key(events, keys))
    if moved := _moved(events, keys, kept):
        keys = [moved.get(place, key) for place, key in enumerate(keys)]
        kept |= feedback.keep(_told(events[place], key) for place, key in moved.items())
    told = _by_key(events, keys)
    tally = Tally(is_holder=False)
    corrected, released = ledger.correct(kept, now=now, tally=tally)
    feedback.count(kept)
    untold.reported(_new(told, kept))
    struck = suppressions.record(_strikes(told, kept), now=now)
    results = _results(events, keys, kept)
    for (kind, result), times in results.items():
        tally.count(counts.EVENTS, result, kind, times)
    for found in kept.values():
        for news, (name, label) in _METRICS.items():
            if found.is_new(news):
                tally.count(name, CHANNEL, label)
    tally.flush()
    transaction.on_commit(lambda: caps.give_back(released))
    totals: Counter[str] = Counter()
    for (_, result), times in results.items():
        totals[result] += times
    settled = Settled(
        totals[Result.NEW],
        totals[Result.REPEATED],
        totals[Result.UNMATCHED],
        totals[Result.TEST],
        corrected,
        struck,
    )
    log.info("provider_events_settled", **{name: number for name, number in vars(settled).items() if number})
    return settled


def _by_key(events: Sequence[ProviderEvent], keys: Sequence[Key | None]) -> list[tuple[ProviderEvent, Told]]:
    return [(event, _told(event, key)) for event, key in zip(events, keys, strict=True) if key and not is_test(key)]


def _moved(events: Sequence[ProviderEvent], keys: Sequence[Key | None], kept: Collection[Key]) -> dict[int, Key]:
    """By place, keys of the events whose occurrence has another id here: it was opened anew after a restore."""
    lost = {
        place: run
        for place, (event, key) in enumerate(zip(events, keys, strict=True))
        if key and key not in kept and not is_test(key) and (run := _run(event.run))
    }
    if not lost:
        return {}
    names = set(lost.values())
    found = Occurrence.objects.filter(
        schedule__in={schedule for schedule, _ in names}, occurrence_at__in={instant for _, instant in names}
    )
    here = {(each.schedule_id, each.occurrence_at): each for each in found}
    moved = {}
    for place, name in lost.items():
        key = keys[place]
        if (there := here.get(name)) and key and there.pk != key[1]:
            moved[place] = (there.day, there.pk, key[2])
    return moved


def _run(text: str) -> tuple[int, datetime] | None:
    """Schedule and instant of an occurrence, as ``delivery.providers.base.run_of`` writes them."""
    schedule_id, _, microseconds = text.partition("-")
    if not microseconds:
        return None
    try:
        return int(schedule_id), datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(microseconds))
    except OverflowError:
        return None


def key_of(text: str) -> Key | None:
    """The delivery that a message's tag names, ``20261121-17-4711``; None for what is no such name."""
    found = _KEY.fullmatch(text)
    if not found:
        return None
    year, month, day, occurrence_id, recipient_id = map(int, found.groups())
    try:
        on = datetime(year, month, day, tzinfo=UTC).date()
    except ValueError:
        return None
    return (on, occurrence_id, recipient_id) if max(occurrence_id, recipient_id) <= _LARGEST else None


def is_test(key: Key) -> bool:
    return key[1] >= FIRST_TEST_ID


def _told(event: ProviderEvent, key: Key) -> Told:
    return Told(key, NEWS[event.kind], event.at, event.detail, event.provider_id)


def _new(told: Iterable[tuple[ProviderEvent, Told]], kept: dict[Key, Kept]) -> list[untold.News]:
    """For subscribers: what was told of a delivery for the first time, but that it was accepted."""
    first: dict[tuple[Key, News], datetime] = {}
    for _, each in told:
        if each.key in kept and kept[each.key].is_new(each.news) and each.news is not News.ACCEPTED:
            first[each.key, each.news] = min(each.at, first.get((each.key, each.news), each.at))
    return [untold.News(*key, int(news), at) for (key, news), at in first.items()]


def _results(
    events: Iterable[ProviderEvent], keys: Iterable[Key | None], kept: dict[Key, Kept]
) -> Counter[tuple[str, str]]:
    """Events by kind and result. Of several that tell the same of a delivery one is new."""
    results: Counter[tuple[str, str]] = Counter()
    seen: set[tuple[Key, News]] = set()
    for event, key in zip(events, keys, strict=True):
        result = _result(key, NEWS[event.kind], kept, seen)
        results[event.kind.value, result.value] += 1
    return results


def _result(key: Key | None, news: News, kept: dict[Key, Kept], seen: set[tuple[Key, News]]) -> Result:
    if key and is_test(key):
        return Result.TEST
    found = kept.get(key) if key else None
    if key is None or found is None:
        return Result.UNMATCHED
    if (key, news) in seen or not found.is_new(news):
        return Result.REPEATED
    seen.add((key, news))
    return Result.NEW


# --- Addresses --------------------------------------------------------------------------------------------------------


def _strikes(told: Sequence[tuple[ProviderEvent, Told]], kept: dict[Key, Kept]) -> list[Strike]:
    """What addresses gave back. What is told again strikes nobody again, whose suppression was lifted meanwhile.

    Of a delivery that is past the ledger's retention it is not known whether it is told again.
    """
    grave = [(event, each) for event, each in told if each.news in _STRIKES]
    lost = _ended({each.key for _, each in grave if each.key not in kept})
    fresh = [(event, each) for event, each in grave if each.key in lost or _is_fresh(each, kept)]
    unnamed = {each.key[2] for event, each in fresh if not event.addresses}
    profiles = _fingerprints_of(unnamed)
    found = []
    for event, each in fresh:
        named = [one for address in event.addresses for one in suppressions.fingerprints(address)]
        for fingerprint in named or profiles.get(each.key[2], []):
            found.append(Strike(fingerprint, each.key[1], _STRIKES[each.news], each.detail))
    return found


def _is_fresh(told: Told, kept: dict[Key, Kept]) -> bool:
    return told.key in kept and kept[told.key].is_new(told.news)


def _ended(keys: Collection[Key]) -> set[Key]:
    """Of deliveries that the ledger does not have, those of occurrences whose rows are gone with their day."""
    if not keys:
        return set()
    days: dict[int, set[date]] = defaultdict(set)
    for key in keys:
        days[key[1]].add(key[0])
    runs = Occurrence.objects.filter(pk__in=days, outcomes__isnull=False)
    gone = {run.pk for run in runs if run.day in days[run.pk]}
    return {key for key in keys if key[1] in gone}


def _fingerprints_of(recipient_ids: Collection[int]) -> dict[int, list[bytes]]:
    """Of the addresses that people have now, where the provider does not say which one it was."""
    if not recipient_ids:
        return {}
    rows = Recipient.objects.filter(pk__in=recipient_ids, email_index__isnull=False).values_list("pk", "email_index")
    return {pk: [encryption.fingerprint_of(index)] for pk, index in rows}

"""Does an audience select whom it means? Each clause is asked of the sampled people, among whom its answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from schedules.audience.instants import read_instant_or_date
from schedules.audience.matching import Profile, matches
from schedules.audience.parser import parse
from schedules.audience.values import CHANNELS, MAX_DURATION, MAX_NUMBER, MAX_TEXT
from schedules.remote.checking import Check, Failed, Skipped
from schedules.user_service.client import MAX_PAGE, written
from schedules.user_service.conformance.subject import Subject

Clause = Mapping[str, Any]
_NAMES: Final = 6  # attributes of one kind that are asked about
_NOBODYS: Final = "attributes.an-attribute-that-nobody-has"
_LONG_AGO: Final = datetime(1950, 1, 1, tzinfo=UTC)  # before anybody's created_at


def _clause(field: str, op: str, value: Any) -> Clause:
    return {"field": field, "op": op, "value": value}


def _ask(make: Callable[[Sequence[Profile], datetime], Iterable[Clause]], subject: Subject) -> str:
    """Whether each of the clauses selects those of the sample whom it means."""
    sample = subject.sample()
    clauses = list(make(sample, subject.as_of))
    for clause in clauses:
        meant = parse(clause)
        wanted = {each.external_id for each in sample if matches(meant, each, now=subject.as_of)}
        found = set(subject.page({"all": [subject.sampled(), clause]}, limit=MAX_PAGE).ids)
        if surplus := found - wanted:
            raise Failed(f"{subject.people(surplus)} too many, where {len(wanted)} of {len(sample)} are meant")
        if missing := wanted - found:
            raise Failed(f"{subject.people(missing)} missing, where {len(wanted)} of {len(sample)} are meant")
    return f"{len(clauses)} audiences select whom they mean among {len(sample)} people"


def _groups(sample: Sequence[Profile], now: datetime) -> Iterator[Clause]:
    one, other, third = (_clause("external_id", "eq", each.external_id) for each in sample[:3])
    yield {"any": [one, other]}
    yield {"not": one}
    yield {"not": {"any": [one, other]}}
    yield {"all": [{"not": {"all": [one, other]}}, {"any": [one, {"all": []}]}]}
    yield {"any": [{"all": [one, other]}, {"not": {"not": third}}]}


def _texts(sample: Sequence[Profile], now: datetime) -> Iterator[Clause]:
    for field in ("external_id", "locale", "time_zone"):
        held = sorted({text for each in sample if (text := getattr(each, field)) and len(text) <= MAX_TEXT})
        for text in held[:1] + held[-1:]:
            yield _clause(field, "eq", text)
            yield _clause(field, "ne", text)
            yield from _parts_of(field, text)
        if held:
            yield _clause(field, "in", [held[0], held[-1]])
            yield _clause(field, "not_in", [held[0]])
        if field != "external_id":
            yield _clause(field, "exists", True)
            yield _clause(field, "exists", False)


def _parts_of(field: str, text: str) -> Iterator[Clause]:
    """What begins so, what holds it, and that case counts."""
    yield _clause(field, "starts_with", text[:2])
    yield _clause(field, "contains", text[1:] or text)
    if text[1:]:
        yield _clause(field, "starts_with", text[1:])
    if text.swapcase() != text:
        yield _clause(field, "eq", text.swapcase())


def _tags(sample: Sequence[Profile], now: datetime) -> Iterator[Clause]:
    held = sorted({tag for each in sample for tag in each.tags if tag and len(tag) <= MAX_TEXT})
    if not held:
        raise Skipped("none of the sampled people has a tag")
    for tag in held[:2]:
        yield _clause("tags", "contains", tag)
        if tag[1:]:
            yield _clause("tags", "contains", tag[1:])
    yield _clause("tags", "in", held[:2])
    yield _clause("tags", "not_in", held[:1])
    yield _clause("tags", "exists", True)
    yield _clause("tags", "exists", False)


def _channels(sample: Sequence[Profile], now: datetime) -> Iterator[Clause]:
    for channel in CHANNELS:
        yield _clause("channels", "contains", channel)
        yield _clause("channels", "not_in", [channel])
    yield _clause("channels", "in", ["email", "push"])


def _attributes(sample: Sequence[Profile], now: datetime) -> Iterator[Clause]:
    yield _clause(_NOBODYS, "exists", False)
    yield _clause(_NOBODYS, "eq", "something")
    yield _clause(_NOBODYS, "ne", "something")
    for field, value in _held(sample, _is_scalar):
        yield _clause(field, "eq", value)
        yield _clause(field, "ne", value)
        yield _clause(field, "in", [value])
        yield _clause(field, "not_in", [value])
        yield _clause(field, "exists", True)
        yield _clause(field, "eq", str(value) if not isinstance(value, str) else f"{value}-")  # "1" is not 1
        if isinstance(value, str) and value:
            yield from _parts_of(field, value)
    for field, held in _held(sample, lambda each: isinstance(each, list)):
        for element in [each for each in held if _is_scalar(each)][:1]:
            yield _clause(field, "contains", element)


def _numbers(sample: Sequence[Profile], now: datetime) -> Iterator[Clause]:
    found = list(_held(sample, _is_number))
    if not found:
        raise Skipped("none of the sampled people has a number among the attributes")
    for field, value in found:
        for op in ("gt", "gte", "lt", "lte"):
            yield _clause(field, op, value)
        yield _clause(field, "gt", value - 1)


def _instants(sample: Sequence[Profile], now: datetime) -> Iterator[Clause]:
    found = [(field, instant) for field, text in _held(sample, _is_instant) if (instant := read_instant_or_date(text))]
    if not found:
        raise Skipped("none of the sampled people has a date or an instant among the attributes")
    for field, instant in found:
        yield _clause(field, "before", written(instant))
        yield _clause(field, "after", written(instant))
        yield _clause(field, "before", written(instant + timedelta(seconds=1)))
        days = math.ceil((now - instant) / timedelta(days=1))
        for long in (days, days - 1):
            if 0 < long <= MAX_DURATION.days:
                yield _clause(field, "within_last", f"{long}d")


def _created_at(subject: Subject) -> str:
    """What the profiles don't tell: so only what must be true whenever they came."""
    everybody = len(subject.sample())
    for op, value, wanted in (
        ("after", "1000-01-01T00:00:00Z", everybody),
        ("before", "1000-01-02T00:00:00Z", 0),
        ("before", "9998-01-01T00:00:00Z", everybody),
    ):
        found = len(subject.page({"all": [subject.sampled(), _clause("created_at", op, value)]}, limit=MAX_PAGE).ids)
        if found != wanted:
            raise Failed(f"{found} people, where all {everybody} came after the year 1000 and before 9998")
    return "everybody came at some time"


def _as_of(subject: Subject) -> str:
    audience = {"all": [subject.sampled(), _clause("created_at", "within_last", f"{MAX_DURATION.days}d")]}
    found = subject.page(audience, limit=MAX_PAGE, as_of=_LONG_AGO).ids
    if found:
        raise Failed(f"{subject.people(set(found))} who came in the ten years before {_LONG_AGO:%Y}")
    return f"nobody came before {_LONG_AGO:%Y}"


def _held(sample: Sequence[Profile], fits: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    """Attributes of which somebody has a value that fits, each with one such value."""
    names = dict.fromkeys(name for each in sample for name in each.attributes)
    found = 0
    for name in names:
        values = [each.attributes[name] for each in sample if name in each.attributes and fits(each.attributes[name])]
        if values and found < _NAMES:
            found += 1
            yield f"attributes.{name}", values[len(values) // 2]


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool) or _is_number(value) or (isinstance(value, str) and len(value) < MAX_TEXT)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


def _is_instant(value: Any) -> bool:
    found = read_instant_or_date(value) if isinstance(value, str) else None
    return found is not None and 1001 < found.year < 9998  # with room on both sides


def _selecting(name: str, make: Callable[[Sequence[Profile], datetime], Iterable[Clause]], what: str) -> Check[Subject]:
    return Check(
        name,
        f"{what}; docs/contracts/audience.md has the table.",
        "Compare the clause that was asked last with the table: --show-people tells whom it selects and should not.",
        partial(_ask, make),
        ("everybody_named",),
    )


CHECKS: Final = (
    _selecting("groups", _groups, "all, any and not mean what they say, four levels deep"),
    _selecting("texts", _texts, "External ids, locales and zones are compared as they are: case counts"),
    _selecting("tags", _tags, "A tag is held as a whole or not at all"),
    _selecting(
        "channels", _channels, "A channel is held by whoever has an address for it (in_app: all) and no objection to it"
    ),
    _selecting("attributes", _attributes, "Attributes are equal where JSON type and value are: 1 is 1.0, and not “1”"),
    _selecting("numbers", _numbers, "gt, gte, lt and lte are true of numbers alone"),
    _selecting("instants", _instants, "before and after leave the instant itself out; a date is its midnight in UTC"),
    Check(
        "created_at",
        "Everybody has a created_at, the instant at which the person came to the service.",
        "Take the time at which the row was made, and compare instants, not texts.",
        _created_at,
        ("everybody_named",),
    ),
    Check(
        "as_of",
        "within_last counts back from asOf, whatever time it is.",
        "Take asOf in the place of now: a run that is late selects whom it would have selected in time.",
        _as_of,
        ("created_at",),
    ),
)

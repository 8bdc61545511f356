"""Who would be at a cap when a planned message came: what was sent, what waits and what will fire, in this order.

Each person's messages are gone through by their instants and judged as ``delivery.caps`` judges them; those of other
schedules under their own caps, since one that is turned away uses no place. A message is taken to be claimed at its
instant, and of two at one instant the planned one comes last.
"""

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Exists, OuterRef, Q

from delivery import usage
from delivery.caps import DAY, PATIENCE, WEEK, Limits
from delivery.ledger import RUNS
from delivery.models import State
from delivery.windows import allowed_in, due_in
from schedules import quiet_hours
from schedules.audience.compiler import suppressed
from schedules.audience.matching import reachable_channels
from schedules.audience.parser import parse
from schedules.audience.sources import LocalSource, limited
from schedules.audience.tree import Node
from schedules.consents import Asked, objection
from schedules.definition import Definition
from schedules.models import (
    GOES_ON,
    Channel,
    Device,
    Occurrence,
    OccurrenceState,
    OnPast,
    Recipient,
    Schedule,
    ScheduleStatus,
    ScheduleType,
    ScheduleVersion,
    TimeZoneMode,
)
from schedules.recurrence import Firing, firing_at, first_firing, next_firing
from schedules.recurrence.windows import Window

# Schedules, and firings of all of them together, that are looked at; past these the answer is an estimate. Of each
# schedule these are the last ones before the planned message.
MAX_SCHEDULES = 200
MAX_FIRINGS = 2_000
MAX_FIRINGS_EACH = 500
# People times firings: bounds the time that judging takes to about half a second.
MAX_JUDGED = 200_000


@dataclass(frozen=True)
class Crowded:
    """``capped`` of the ``judged`` people would be turned away.

    ``is_whole``: everybody was judged, by everything that is planned.
    """

    judged: int
    capped: int
    is_whole: bool


class Person(NamedTuple):
    """``zone`` as the profile has it; ``channels``: those on which the person can be reached; ``quiet``: as in
    ``delivery.windows``."""

    pk: int
    zone: str
    channels: frozenset[str]
    quiet: Window | None = None


@dataclass(frozen=True)
class _Source:
    """Something that sends besides: its firings, and whom it is meant for (``None``: everybody who is judged)."""

    definition: Definition
    firings: Sequence[Firing]
    audience: Node | None
    limits: Limits


class _Message(NamedTuple):
    """One to come. ``at`` in milliseconds; ``source`` tells who may get it, and is empty where that is settled."""

    at: int
    limits: Limits
    channel: str
    source: int | None = None


@dataclass
class _Plans:
    sources: list[_Source] = field(default_factory=list)
    firings: int = 0
    is_whole: bool = True


def limits_of(definition: Definition) -> Limits:
    return Limits(definition.max_per_user_per_day, definition.max_per_user_per_week, definition.counts_toward_caps)


def people(ids: Sequence[int], *, asked: Asked | None = None) -> list[Person]:
    """These recipients, as far as judging needs them. ``asked``: what the planned message needs of their consent."""
    has_device = Exists(Device.objects.filter(recipient=OuterRef("pk"), active=True))
    found = Recipient.objects.filter(pk__in=ids).annotate(
        has_email=~Q(email="") & ~suppressed(Channel.EMAIL), has_device=has_device
    )
    return [
        Person(
            pk,
            zone,
            reachable_channels(has_email=has_email, has_device=has_device, consent=_judged(consent, asked)),
            quiet_hours.awake(hours),
        )
        for pk, zone, has_email, consent, has_device, hours in found.values_list(
            "pk", "time_zone", "has_email", "consent", "has_device", "quiet_hours"
        )
    ]


def _judged(consent: Mapping[str, bool], asked: Asked | None) -> Mapping[str, bool]:
    """By channel, with what it means for the planned message."""
    return {**consent, asked.channel: not objection(consent, asked)} if asked else consent


def judge(
    found: Sequence[Person],
    *,
    waves: Mapping[int, datetime],
    definition: Definition,
    firing: Firing,
    now: datetime,
    editing: int | None = None,
) -> Crowded:
    """Judge these people, each at the instant that ``waves`` has for the person's id, the firing's own.

    ``editing``: the schedule that the definition is to replace, whose own plans don't count beside it.
    """
    limits = limits_of(definition)
    if not found or (limits.per_day is None and limits.per_week is None):
        return Crowded(len(found), 0, is_whole=True)
    last = max(waves[person.pk] for person in found)
    since = min(waves[person.pk] for person in found) - 2 * WEEK
    plans = _planned(definition, firing, since=since, until=last, now=now, editing=editing)
    whole = len(found)
    found = found[: max(MAX_JUDGED // max(plans.firings, 1), 1)]
    ids = [person.pk for person in found]
    used: dict[int, list[int]] = defaultdict(list)
    for use in usage.uses(ids, now=now):
        used[use.recipient_id].append(_ms(use.claimed_at))
    waiting = _waiting(ids, until=last, now=now, editing=editing)
    members = _members(plans.sources, ids, now=now)
    planned = _Coming(plans.sources, members, now=now)
    # Many have the same zone, plans and past.
    known: dict[tuple[Any, ...], bool] = {}
    capped = 0
    for person in found:
        mine = tuple(each for each in waiting[person.pk] if each.channel in person.channels)
        key = (planned.key(person), mine, _ms(waves[person.pk]), tuple(sorted(used[person.pk])))
        if key not in known:
            known[key] = _is_capped(key[2], limits, coming=[*planned.of(person), *mine], used=list(key[3]))
        capped += known[key]
    return Crowded(len(found), capped, is_whole=plans.is_whole and len(found) == whole)


def _is_capped(at: int, limits: Limits, *, coming: Iterable[_Message], used: list[int]) -> bool:
    """Whether a message due ``at`` is turned away. ``used``: the instants of what counts already, in order."""
    queue: list[tuple[int, bool, int, Limits]] = [(at, True, 0, limits)]
    queue += [(each.at, False, index, each.limits) for index, each in enumerate(coming) if each.at <= at + _PATIENCE]
    heapq.heapify(queue)
    while True:
        instant, is_ours, index, own = heapq.heappop(queue)
        free_at = _free_at(used, own, instant)
        if free_at is not None and free_at - instant <= _PATIENCE:
            heapq.heappush(queue, (free_at, is_ours, index, own))
        elif is_ours:
            return free_at is not None
        elif free_at is None:
            used.append(instant)


def _free_at(used: Sequence[int], limits: Limits, at: int) -> int | None:
    """When there is a place again; none where there is one."""
    latest = None
    for span, most in ((_DAY, limits.per_day), (_WEEK, limits.per_week)):
        if most is not None and len(used) - bisect_right(used, at - span) >= most:
            free_at = used[len(used) - most] + span
            latest = free_at if latest is None else max(latest, free_at)
    return latest


# What is planned


def _planned(
    definition: Definition, firing: Firing, *, since: datetime, until: datetime, now: datetime, editing: int | None
) -> _Plans:
    """The firings from ``since`` to ``until`` of all that counts: other schedules, and this one before ``firing``."""
    plans = _Plans()
    if definition.counts_toward_caps and definition.schedule_type == ScheduleType.CRON:
        earlier = partial(_before, definition, firing, now=now)
        _add(plans, definition, earlier, audience=None, since=since, until=firing.occurrence_at)
    due = Schedule.objects.filter(status=ScheduleStatus.ACTIVE, counts_toward_caps=True, next_run_at__lte=until)
    others = due.exclude(pk=editing) if editing is not None else due
    for number, schedule in enumerate(others.order_by("next_run_at")[: MAX_SCHEDULES + 1]):
        if plans.firings >= MAX_FIRINGS or number >= MAX_SCHEDULES:
            plans.is_whole = False
            break
        other = Definition.of(schedule)
        ahead = partial(_ahead, schedule, other, until=until)
        _add(plans, other, ahead, audience=parse(other.audience_query), since=since, until=until)
    for other, firing_found in _being_found(until=until, editing=editing):
        plans.firings += 1
        plans.sources.append(_Source(other, [firing_found], parse(other.audience_query), limits_of(other)))
    return plans


def _being_found(*, until: datetime, editing: int | None) -> Iterator[tuple[Definition, Firing]]:
    """Occurrences that have opened and have no rows yet: neither their schedules nor the ledger tell of them."""
    opened = Occurrence.objects.filter(
        state=OccurrenceState.MATERIALISING, targeted=0, opens_at__lte=until, schedule__status__in=GOES_ON
    )
    others = opened.exclude(schedule=editing) if editing is not None else opened
    pinned = ScheduleVersion.objects.filter(schedule=OuterRef("schedule"), version=OuterRef("version"))
    rows = others.annotate(said=pinned.values("definition")).order_by("opens_at")[:MAX_SCHEDULES]
    for occurrence_at, at_once, said in rows.values_list("occurrence_at", "at_once", "said"):
        definition = Definition.from_json(said)
        if at_once:
            definition = replace(definition, run_at=None, time_zone_mode=TimeZoneMode.FIXED)
        if definition.counts_toward_caps:
            yield definition, firing_at(definition.run_at or occurrence_at, definition.timing().mode)


def _add(
    plans: _Plans,
    definition: Definition,
    firings: Callable[..., Iterator[Firing]],
    *,
    audience: Node | None,
    since: datetime,
    until: datetime,
) -> None:
    """``firings`` takes the instant ``since`` which they are told."""
    most = min(MAX_FIRINGS_EACH, MAX_FIRINGS - plans.firings)
    taken = list(islice(firings(since=since), most + 1))
    if len(taken) > most:
        plans.is_whole = False
        last = until - (taken[most].occurrence_at - taken[0].occurrence_at)  # in which about as many lie
        taken = list(islice(firings(since=max(last, since)), most))
    plans.firings += len(taken)
    plans.sources.append(_Source(definition, taken, audience, limits_of(definition)))


def _before(definition: Definition, firing: Firing, *, since: datetime, now: datetime) -> Iterator[Firing]:
    """Firings of the definition itself that come before ``firing``."""
    timing = definition.timing()
    earlier = first_firing(timing, now=max(now, since))
    while earlier is not None and earlier.occurrence_at < firing.occurrence_at:
        yield earlier
        earlier = next_firing(timing, after=earlier.occurrence_at)


def _ahead(schedule: Schedule, definition: Definition, *, since: datetime, until: datetime) -> Iterator[Firing]:
    """What the tick will open, as ``dispatch`` finds it."""
    timing = definition.timing()
    assert schedule.next_occurrence_at is not None
    if definition.schedule_type == ScheduleType.ONCE:
        yield firing_at(definition.run_at or schedule.next_occurrence_at, timing.mode)
        return
    firing: Firing | None = firing_at(schedule.next_occurrence_at, timing.mode)
    if firing and firing.closes_at < since and definition.max_runs is None:
        firing = next_firing(timing, after=since)
    runs = schedule.runs
    while firing is not None and firing.opens_at <= until:
        yield firing
        runs += 1
        firing = next_firing(timing, after=firing.occurrence_at, runs=runs)


class _Coming:
    """What the sources' firings mean for people, by zone, quiet hours, membership and channels."""

    def __init__(self, sources: Sequence[_Source], members: Mapping[int, frozenset[int]], *, now: datetime) -> None:
        self._sources, self._members, self._now = sources, members, now
        self._by_clock: dict[tuple[str, Window | None], list[_Message]] = {}
        self._by_key: dict[tuple[Any, ...], list[_Message]] = {}

    def key(self, person: Person) -> tuple[Any, ...]:
        return person.zone, person.quiet, self._members[person.pk], person.channels

    def of(self, person: Person) -> list[_Message]:
        key = self.key(person)
        if key not in self._by_key:
            mine, on_clock = self._members[person.pk], self._on_clock(person.zone, person.quiet)
            self._by_key[key] = [each for each in on_clock if each.source in mine and each.channel in person.channels]
        return self._by_key[key]

    def _on_clock(self, zone_name: str, quiet: Window | None) -> list[_Message]:
        clock = zone_name, quiet
        if clock not in self._by_clock:
            self._by_clock[clock] = list(_messages(self._sources, zone_name, quiet, now=self._now))
        return self._by_clock[clock]


def _messages(sources: Sequence[_Source], zone_name: str, quiet: Window | None, *, now: datetime) -> Iterator[_Message]:
    """What the sources' firings mean for people of a zone with these quiet hours."""
    for index, source in enumerate(sources):
        definition = source.definition
        grace = timedelta(minutes=definition.misfire_grace_minutes)
        for firing in source.firings:
            due = due_in(zone_name, firing=firing, definition=definition, quiet=quiet)
            if due is None:
                continue
            if due < now and (due >= now - grace or definition.on_past == OnPast.SEND_NOW):
                due = allowed_in(zone_name, now, definition=definition, quiet=quiet)
            if due is not None and due >= now:
                yield _Message(_ms(due), source.limits, definition.channel, index)


def _members(sources: Sequence[_Source], ids: Sequence[int], *, now: datetime) -> Mapping[int, frozenset[int]]:
    """By person, the sources that mean this person. One statement: the people are read once, whoever asks for them."""
    everyone = frozenset(index for index, source in enumerate(sources) if source.audience is None)
    found: dict[int, frozenset[int]] = defaultdict(lambda: everyone)
    asked: dict[str, list[int]] = defaultdict(list)  # by what is asked, in words that tell 1 from true
    nodes: dict[str, Node] = {}
    for index, source in enumerate(sources):
        if source.audience is not None:
            nodes[repr(source.audience)] = source.audience
            asked[repr(source.audience)].append(index)
    if not asked:
        return found
    local = LocalSource()
    questions: list[str] = []
    parameters: list[Any] = []
    for number, node in enumerate(nodes.values()):
        sql, values = local.sql(node, now=now)
        questions.append(f"SELECT {number}, id FROM ({sql}) AS q{number}")
        parameters += values
    # Each question reads the table of recipients by its name, which stands for these few here.
    few = "WITH schedules_recipient AS MATERIALIZED (SELECT * FROM schedules_recipient WHERE id = ANY(%s::bigint[]))"
    with limited(timeout_ms=local.timeout_ms), connection.cursor() as cursor:
        cursor.execute(f"{few} {' UNION ALL '.join(questions)}", [list(ids), *parameters])
        rows = cursor.fetchall()
    indexes = [frozenset(asked[words]) for words in nodes]
    for number, pk in rows:
        found[pk] |= indexes[number]
    return found


_WAITING = f"""
SELECT d.recipient_id, d.due_at, d.occurrence_id FROM delivery_delivery d
WHERE d.recipient_id = ANY(%(ids)s::bigint[]) AND d.day BETWEEN %(first)s AND %(last)s
  AND d.state = {int(State.PENDING)} AND d.reached = '' AND d.due_at <= %(until)s
"""

# The version by its key, in a subquery: joined, the planner takes every version that there is with every row.
_COUNTING = f"""
SELECT id, definition ->> 'channel', (definition ->> 'maxPerUserPerDay')::int, (definition ->> 'maxPerUserPerWeek')::int
FROM (
    SELECT o.id, (SELECT v.definition FROM schedules_scheduleversion v
                  WHERE v.schedule_id = o.schedule_id AND v.version = o.version) AS definition
    FROM schedules_occurrence o JOIN schedules_schedule s ON s.id = o.schedule_id
    WHERE o.id = ANY(%(occurrences)s::bigint[]) AND o.state = 'running' AND o.held_reason = '' AND o.ends_at > %(now)s
      AND s.status IN {RUNS} AND s.id IS DISTINCT FROM %(editing)s
) AS running
WHERE COALESCE((definition ->> 'countsTowardCaps')::boolean, definition IS NOT NULL)
"""


def _waiting(
    ids: Sequence[int], *, until: datetime, now: datetime, editing: int | None
) -> Mapping[int, list[_Message]]:
    """By person, the rows that other open occurrences have for it."""
    parameters: dict[str, Any] = {"ids": list(ids), "until": until}
    parameters |= {"first": (now - WEEK - 2 * DAY).date(), "last": (now + WEEK + 2 * DAY).date()}
    found: dict[int, list[_Message]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, parameters)
        rows = cursor.fetchall()
        occurrences = list({occurrence_id for _, _, occurrence_id in rows})
        cursor.execute(_COUNTING, {"occurrences": occurrences, "now": now, "editing": editing})
        counting = {pk: (channel, Limits(day, week, counts=True)) for pk, channel, day, week in cursor.fetchall()}
    for pk, due_at, occurrence_id in rows:
        if occurrence_id in counting:
            channel, limits = counting[occurrence_id]
            found[pk].append(_Message(_ms(max(due_at, now)), limits, channel))
    return found


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def _span(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)


_DAY, _WEEK, _PATIENCE = _span(DAY), _span(WEEK), _span(PATIENCE)

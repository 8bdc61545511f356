"""The people and schedules of ``day``: half a million weekly newsletters and reminders that all fire on one day.

Three kinds of audience, each with its share of the day's deliveries and its number of people:

    small     55 %   what is left for it, 11 by default   one clause, indexable
    segments  22.5 % 500                                  one clause, indexable
    regions   22.5 % 5,000                                every third asks by a range, which is a scan of all people

Four of five fire at one instant, by the clock of one of 25 zones; the others at everyone's own hour. Three of five
times are whole hours, most of them between eight and eight. Of the channels 60 % are e-mail, 25 % push and 15 % the
app; one in five has a cap of ``CAP`` a day, which some people reach; one in twenty may reach people in its window only.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from benchmarks import people
from benchmarks.harness import execute
from schedules.definition import Definition
from schedules.models import Schedule, ScheduleStatus, ScheduleVersion
from schedules.recurrence import TZDATA_VERSION, Firing, Timing, firing_at, next_firing, zone

ZONES = (
    *("Pacific/Pago_Pago", "Pacific/Honolulu", "America/Anchorage", "America/Los_Angeles", "America/Denver"),
    *("America/Chicago", "America/New_York", "America/Halifax", "America/St_Johns", "America/Sao_Paulo"),
    *("Atlantic/South_Georgia", "Atlantic/Azores", "Europe/London", "Europe/Berlin", "Europe/Athens"),
    *("Europe/Istanbul", "Asia/Dubai", "Asia/Karachi", "Asia/Kolkata", "Asia/Dhaka"),
    *("Asia/Bangkok", "Asia/Shanghai", "Asia/Tokyo", "Australia/Sydney", "Pacific/Auckland"),
)
SEGMENT, REGION = 500, 5_000  # people
_SHARE = 0.225  # of the deliveries, that of segments and that of regions
_SCANS = 3  # one region in so many
CAP = 30
_WINDOW = {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "07:00", "to": "22:00"}
_CHUNK = 5_000

_MOVE = """
UPDATE schedules_recipient SET time_zone = (%(zones)s::text[])[1 + number %% %(count)s],
    attributes = attributes || jsonb_build_object('segment', number %% %(segments)s, 'region', number %% %(regions)s)
FROM (SELECT id AS pk, substr(external_id, 8)::int - 1 AS number FROM schedules_recipient) AS numbered
WHERE id = pk
"""


class Chosen(NamedTuple):
    """An audience: its query, and how many people it finds."""

    query: dict[str, Any]
    size: int
    is_scan: bool = False


@dataclass(frozen=True)
class Traffic:
    """``schedules`` of which ``idle`` do not fire on the day, to ``people`` people, some ``deliveries`` in all."""

    deliveries: int
    schedules: int
    idle: int
    people: int
    seed: int

    @property
    def firing(self) -> int:
        return self.schedules - self.idle

    @property
    def segments(self) -> int:
        """Schedules that go to a segment."""
        return min(round(self.deliveries * _SHARE / SEGMENT), self.firing)

    @property
    def regions(self) -> int:
        return min(round(self.deliveries * _SHARE / REGION), self.firing - self.segments)

    @property
    def cell(self) -> int:
        """People of a small audience."""
        large = self.segments * min(SEGMENT, self.people) + self.regions * min(REGION, self.people)
        return max(round((self.deliveries - large) / max(self.firing - self.segments - self.regions, 1)), 1)

    def insert_people(self) -> None:
        people.insert(self.people, cell=self.cell)
        counts = {"count": len(ZONES), "segments": self._groups(SEGMENT), "regions": self._groups(REGION)}
        execute(_MOVE, {**counts, "zones": list(ZONES)})
        execute("VACUUM (FULL, ANALYZE) schedules_recipient")

    def insert_schedules(self, *, template: int, now: datetime) -> list[Chosen]:
        """Keep all schedules, active since ``now``; return the audiences of those that fire."""
        chosen: list[Chosen] = []
        written = self._definitions(template, chosen)
        while chunk := list(islice(written, _CHUNK)):
            self._keep(chunk, first=len(chosen) - len(chunk), now=now)
        execute("VACUUM (ANALYZE) schedules_schedule, schedules_scheduleversion")
        return chosen[: self.firing]

    def _groups(self, size: int) -> int:
        return max(self.people // size, 1)

    def _definitions(self, template: int, chosen: list[Chosen]) -> Iterator[Definition]:
        rng = random.Random(self.seed)
        for number in range(self.schedules):
            audience = self._audience(number, rng)
            chosen.append(audience)
            (channel,) = rng.choices(["email", "push", "in_app"], [60, 25, 15])
            is_local = rng.random() < 0.2
            yield Definition(
                name=f"Newsletter {number}",
                channel=channel,
                template_id=template,
                schedule_type="cron",
                audience_query=audience.query,
                cron=_daily(rng),
                time_zone=rng.choice(ZONES),
                time_zone_mode="user_local" if is_local else "fixed",
                max_per_user_per_day=CAP if rng.random() < 0.2 else None,
                send_window=_WINDOW if rng.random() < 0.05 else None,
            )

    def _audience(self, number: int, rng: random.Random) -> Chosen:
        if number < self.regions:
            return self._group("region", REGION, rng, is_scan=number % _SCANS == 0)
        if number < self.regions + self.segments:
            return self._group("segment", SEGMENT, rng)
        cell = rng.randrange(max(self.people // self.cell, 1))
        return Chosen(_equals("cell", cell), min(self.cell, self.people))

    def _group(self, name: str, size: int, rng: random.Random, *, is_scan: bool = False) -> Chosen:
        groups = self._groups(size)
        group = rng.randrange(groups)
        ends = [("gte", group), ("lt", group + 1)]
        ranged = {"all": [{"field": f"attributes.{name}", "op": op, "value": value} for op, value in ends]}
        found = len(range(group, self.people, groups))
        return Chosen(ranged if is_scan else _equals(name, group), found, is_scan)

    def _keep(self, definitions: list[Definition], *, first: int, now: datetime) -> None:
        """As ``operations.create`` does, without the audit: each fires once within 24 hours, and again in a week."""
        schedules, kept = [], []
        for number, definition in enumerate(definitions, start=first):
            fired, timing = _weekly(definition.timing(), now=now, days=0 if number < self.firing else 3)
            values = {**vars(definition), "cron": timing.cron}
            kept.append(Definition(**values))
            schedules.append(
                Schedule(
                    **values,
                    status=ScheduleStatus.ACTIVE,
                    next_run_at=fired.opens_at,
                    next_occurrence_at=fired.occurrence_at,
                    zone_data=TZDATA_VERSION,
                    created_by="benchmark",
                    created_at=now,
                    updated_at=now,
                )
            )
        Schedule.objects.bulk_create(schedules)
        ScheduleVersion.objects.bulk_create(
            ScheduleVersion(
                schedule=schedule, version=1, definition=each.to_json(), created_by="benchmark", created_at=now
            )
            for schedule, each in zip(schedules, kept, strict=True)
        )


def _equals(name: str, value: int) -> dict[str, Any]:
    return {"field": f"attributes.{name}", "op": "eq", "value": value}


def _daily(rng: random.Random) -> str:
    """A cron of every day: most at whole hours, and by day."""
    (minute,) = rng.choices([0, 30, rng.choice([15, 45]), rng.randrange(60)], [60, 15, 10, 15])
    (hour,) = rng.choices([rng.choice([9, 12, 18]), rng.randrange(8, 21), rng.randrange(24)], [35, 50, 15])
    return f"{minute} {hour} * * *"


_weeks: dict[tuple[Timing, int], tuple[Firing, Timing]] = {}


def _weekly(daily: Timing, *, now: datetime, days: int) -> tuple[Firing, Timing]:
    """The first firing of a daily cron that opens so many days after ``now``, and the weekly cron that has it."""
    known = _weeks.get((daily, days))
    if known is None:
        is_fixed = daily.mode == "fixed"
        since = firing_at(now + timedelta(days=days), daily.mode)
        fired = next_firing(daily, after=since.occurrence_at + (since.occurrence_at - since.opens_at))
        assert fired is not None
        wall = fired.occurrence_at.astimezone(zone(daily.time_zone)) if is_fixed else fired.occurrence_at
        minute, hour, *_ = daily.cron.split()
        known = _weeks[daily, days] = fired, replace(daily, cron=f"{minute} {hour} * * {wall.isoweekday() % 7}")
    return known

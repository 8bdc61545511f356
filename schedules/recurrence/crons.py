"""Five-field crons: read strictly, enumerate wall times, tell in words. cronsim is the engine.

cronsim only ever sees naive wall times here, so none of its own rules for clock changes apply.
"""

from __future__ import annotations

import copy
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise, takewhile

from cronsim import CronSim, CronSimError
from cronsim.explain import explain

from schedules.problems import Problem, say
from schedules.recurrence.errors import InvalidTiming

MAX_LENGTH = 200
_ALLOWED = re.compile(r"[0-9A-Za-z*/,#\- \t]*")
_STEP = re.compile(r"/(\d+)")
_ANY_MOMENT = datetime(2024, 1, 1)  # noqa: DTZ001 - wall times are naive
_FIELDS = (
    (say("minute"), say("0 to 59"), 60),
    (say("hour"), say("0 to 23"), 24),
    (say("day-of-month"), say("1 to 31, L (the last day) or LW (the last weekday)"), 31),
    (say("month"), say("1 to 12 or JAN to DEC"), 12),
    (say("day-of-week"), say("0 to 7 or SUN to SAT (0 and 7 are Sunday), 5L (the last Friday) or MON#2"), 8),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron that was read without error.

    `expression` is normalised (upper case, single spaces). `elapsed` is true where the minute or the hour
    holds `*` or `/`: such a cron means "every so often" rather than "at this time of day".
    """

    expression: str
    elapsed: bool
    _engine: CronSim = field(repr=False, compare=False)
    _times: tuple[int, ...] = field(repr=False, compare=False)

    def walls(self, *, after: datetime) -> Iterator[datetime]:
        """Matching naive wall times strictly after the naive `after`, ascending.

        Ends when cronsim finds none within 50 years.
        """
        # Reading the expression costs ten times as much as a step, so the engine is read once and copied.
        engine = copy.copy(self._engine)
        engine.dt = self._skip_ahead(after)
        return engine

    def matches(self, wall: datetime) -> bool:
        """Whether the naive, whole-minute `wall` is one of the cron's times."""
        return next(self.walls(after=wall - timedelta(minutes=1)), None) == wall

    def _skip_ahead(self, after: datetime) -> datetime:
        """The last second before the cron's next time of day past `after`, on whatever day.

        cronsim still decides what matches. Led to the right hour it needn't walk there, which for a daily
        cron is most of its work.
        """
        midnight = after.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        index = bisect_right(self._times, after.hour * 60 + after.minute)
        if index < len(self._times):
            return midnight + timedelta(minutes=self._times[index], seconds=-1)
        return midnight + timedelta(days=1, minutes=self._times[0], seconds=-1)


@lru_cache(maxsize=4096)
def parse(expression: str) -> Cron:
    """Read a cron of five fields. Raises `InvalidTiming` (field "cron") with the remedy in its message."""
    if len(expression) > MAX_LENGTH:
        raise _invalid(
            "too_long", say("the cron is longer than %(most)s characters; shorten its lists.", most=MAX_LENGTH)
        )
    if not _ALLOWED.fullmatch(expression):
        raise _invalid("syntax", say("a cron holds digits, names and * / , - # only; e.g. '0 9 * * MON-FRI'."))
    parts = expression.upper().split()
    if len(parts) != len(_FIELDS):
        raise _invalid(
            "field_count",
            say(
                "the cron has %(size)s fields and needs five: minute, hour, day of month, month, "
                "day of week; e.g. '0 9 * * MON-FRI' (seconds and @daily are not supported).",
                size=len(parts),
            ),
        )
    for part, (name, _, size) in zip(parts, _FIELDS, strict=True):
        _refuse_long_steps(part, name, size)
    engine = _engine(parts)
    return Cron(
        expression=" ".join(parts),
        elapsed=any(sign in part for part in parts[:2] for sign in "*/"),
        _engine=engine,
        _times=tuple(sorted(hour * 60 + minute for hour in engine.hours for minute in engine.minutes)),
    )


@lru_cache(maxsize=1024)
def closer_than(expression: str, spacing: timedelta) -> timedelta | None:
    """The time between the first two neighbouring wall times that are closer than `spacing`, or None.

    Looks at up to 1,000 firings of 30 years (28 is the cycle of weekdays and leap years).
    """
    walls = islice(parse(expression).walls(after=_ANY_MOMENT), 1000)
    horizon = _ANY_MOMENT + timedelta(days=30 * 366)
    for earlier, later in pairwise(takewhile(lambda wall: wall < horizon, walls)):
        if later - earlier < spacing:
            return later - earlier
    return None


def sentence(expression: str) -> str:
    """The cron in English, without zone: "At 09:00 on Monday"."""
    return re.sub(r"\b([2-5])([123])th\b", _mend_ordinal, explain(parse(expression).expression))


def _mend_ordinal(match: re.Match[str]) -> str:
    # cronsim writes 21th, 22th, 23th.
    return match[1] + {"1": "1st", "2": "2nd", "3": "3rd"}[match[2]]


def _engine(parts: list[str]) -> CronSim:
    try:
        return CronSim(" ".join(parts), _ANY_MOMENT)
    except (CronSimError, ValueError, AssertionError):
        pass
    for position, (name, range_, _) in enumerate(_FIELDS):
        alone = ["*"] * len(_FIELDS)
        alone[position] = parts[position]
        try:
            CronSim(" ".join(alone), _ANY_MOMENT)
        except (CronSimError, ValueError, AssertionError):
            raise _invalid(
                "syntax",
                say(
                    "the %(name)s %(part)s of the cron can't be read: %(name)s is %(range)s, "
                    "and lists, ranges from low to high, and steps of these.",
                    name=name,
                    part=f"{parts[position]!r}",
                    range=range_,
                ),
            ) from None
    raise _invalid(
        "impossible",
        say(
            "no month %(month)s has a day %(day)s; choose one that exists, or L for the last.",
            month=parts[3],
            day=parts[2],
        ),
    )


def _refuse_long_steps(part: str, name: str, size: int) -> None:
    # */90 in the minute would fire every hour, which nobody who writes it means.
    for step in _STEP.findall(part):
        if int(step) >= size:
            raise _invalid(
                "syntax",
                say(
                    "the step /%(step)s is longer than the %(name)s itself; steps don't carry over.",
                    step=step,
                    name=name,
                ),
            )


def _invalid(code: str, message: str) -> InvalidTiming:
    return InvalidTiming(Problem("cron", code, message))

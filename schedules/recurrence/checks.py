"""Everything that is wrong with a timing, found at once, before it is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeGuard

from schedules.problems import Problem, say
from schedules.recurrence.crons import closer_than, parse
from schedules.recurrence.errors import InvalidTiming
from schedules.recurrence.firings import first_firing
from schedules.recurrence.timing import YEARS, Timing, firing_at
from schedules.recurrence.zones import zone

USER_LOCAL_SPACING = timedelta(hours=6)
"""The least time between two firings in user-local mode."""


def check(timing: Timing, *, now: datetime) -> list[Problem]:
    """Every problem of `timing` as of `now`, in the order of its fields; empty when it may be saved.

    What depends on an earlier problem is left out: a cron that can't be read isn't also said to never fire.
    """
    problems = [*_of_kind(timing), *_of_datetimes(timing), *_of_zone(timing), *_of_max_runs(timing)]
    if problems:
        return [*problems, *_of_cron(timing)]
    if timing.schedule_type == "once":
        return list(_of_past(timing, now))
    return list(_of_cron(timing)) or list(_of_range(timing, now))


def _of_kind(timing: Timing) -> Iterator[Problem]:
    if timing.schedule_type not in ("once", "cron"):
        yield Problem("scheduleType", "unknown", say("write 'once' or 'cron'."))
    if timing.mode not in ("fixed", "user_local"):
        yield Problem("timeZoneMode", "unknown", say("write 'fixed' or 'user_local'."))
    if timing.schedule_type == "once":
        yield from _of_once(timing)
    if timing.schedule_type == "cron" and timing.run_at is not None:
        yield Problem("runAt", "not_applicable", say("a cron has no runAt; leave it out, or use startAt."))


def _of_once(timing: Timing) -> Iterator[Problem]:
    if timing.run_at is None:
        yield Problem("runAt", "required", say("a one-off needs runAt, such as 2026-12-01T09:00:00Z."))
    given = {
        "cron": timing.cron or None,
        "startAt": timing.starts_at,
        "endAt": timing.ends_at,
        "maxRuns": timing.max_runs,
    }
    for name, value in given.items():
        if value is not None:
            yield Problem(
                name, "not_applicable", say("a one-off has no %(name)s; leave it out, or use a cron.", name=name)
            )


def _of_datetimes(timing: Timing) -> Iterator[Problem]:
    datetimes = {"runAt": timing.run_at, "startAt": timing.starts_at, "endAt": timing.ends_at}
    for name, value in datetimes.items():
        if value is not None:
            yield from _of_datetime(name, value, timing)
    if _aware(timing.starts_at) and _aware(timing.ends_at) and timing.ends_at < timing.starts_at:
        yield Problem("endAt", "before_start", say("endAt is before startAt; move one of them."))


def _of_datetime(name: str, value: datetime, timing: Timing) -> Iterator[Problem]:
    if value.utcoffset() is None:
        yield Problem(name, "naive", say("%(name)s says no offset; end it in Z or in one such as +01:00.", name=name))
    elif value.year not in YEARS:
        yield Problem(
            name,
            "out_of_range",
            say(
                "%(name)s must lie between the years %(first)s and %(last)s.",
                name=name,
                first=str(YEARS[0]),
                last=str(YEARS[-1]),
            ),
        )
    elif timing.mode == "user_local" and value.utcoffset() != timedelta(0):
        yield Problem(
            name,
            "not_utc",
            say("in user-local mode %(name)s is a reading of each recipient's clock and must end in Z.", name=name),
        )


def _aware(value: datetime | None) -> TypeGuard[datetime]:
    return value is not None and value.utcoffset() is not None


def _of_zone(timing: Timing) -> Iterator[Problem]:
    yield from _problem_of(lambda: zone(timing.time_zone))


def _of_max_runs(timing: Timing) -> Iterator[Problem]:
    if timing.max_runs is not None and timing.max_runs < 1:
        yield Problem("maxRuns", "too_small", say("maxRuns must be 1 or more; leave it out for no limit."))


def _of_past(timing: Timing, now: datetime) -> Iterator[Problem]:
    if timing.run_at is None or now < firing_at(timing.run_at, timing.mode).closes_at:
        return
    where = (
        say("in every time zone")
        if timing.mode == "user_local"
        else say("(it is %(now)s)", now=f"{now:%Y-%m-%dT%H:%M:%SZ}")
    )
    yield Problem("runAt", "past", say("runAt has passed %(where)s; choose a later one.", where=where))


def _of_cron(timing: Timing) -> Iterator[Problem]:
    if timing.schedule_type != "cron":
        return
    if not timing.cron.strip():
        yield Problem("cron", "required", say("a recurring schedule needs a cron, such as '0 9 * * MON-FRI'."))
        return
    unreadable = list(_problem_of(lambda: parse(timing.cron)))
    yield from unreadable
    if not unreadable and timing.mode == "user_local":
        yield from _of_spacing(timing.cron)


def _of_spacing(cron: str) -> Iterator[Problem]:
    if parse(cron).elapsed:
        yield Problem(
            "cron",
            "elapsed_in_user_local",
            say("minute and hour can't hold * or / in user-local mode; name the times, e.g. '0 9,18 * * *'."),
        )
        return
    gap = closer_than(cron, USER_LOCAL_SPACING)
    if gap is not None:
        yield Problem(
            "cron",
            "too_frequent",
            say("user-local firings must be 6 hours apart or more; two of this cron are %(gap)s apart.", gap=str(gap)),
        )


def _of_range(timing: Timing, now: datetime) -> Iterator[Problem]:
    if first_firing(timing, now=now) is not None:
        return
    if first_firing(replace(timing, ends_at=None), now=now) is None:
        yield Problem("cron", "never_fires", say("the cron matches no date of the next 50 years; change its day."))
        return
    since = say("now") if timing.starts_at is None or timing.starts_at <= now else "startAt"
    yield Problem(
        "endAt", "no_firing", say("the cron does not fire between %(since)s and endAt; move endAt.", since=since)
    )


def _problem_of(read: Callable[[], object]) -> Iterable[Problem]:
    try:
        read()
    except InvalidTiming as error:
        return [error.problem]
    return []

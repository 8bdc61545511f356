"""A schedule's definition as one value: what a person or program asked for, apart from what has come of it.

On the wire and in ``ScheduleVersion.definition`` the keys are camelCase (``WIRE``); instants are ISO 8601 in UTC.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from types import NoneType
from typing import Any, Self

from django.db import connection

from schedules import quiet_hours, storable
from schedules.audience.parser import InvalidAudience, parse
from schedules.models import (
    LONGEST_KEY,
    Channel,
    OnPast,
    Purpose,
    Schedule,
    ScheduleType,
    TimeZoneMode,
    Topic,
)
from schedules.problems import Problem, say
from schedules.recurrence import Timing, windows
from schedules.recurrence import check as check_timing
from schedules.recurrence.timing import YEARS
from schedules.recurrence.windows import Window

WIRE = {
    "name": "name",
    "channel": "channel",
    "audience_query": "audienceQuery",
    "template_id": "templateId",
    "topic": "topic",
    "purpose": "purpose",
    "schedule_type": "scheduleType",
    "run_at": "runAt",
    "cron": "cron",
    "time_zone": "timeZone",
    "time_zone_mode": "timeZoneMode",
    "start_at": "startAt",
    "end_at": "endAt",
    "max_runs": "maxRuns",
    "max_per_user_per_day": "maxPerUserPerDay",
    "max_per_user_per_week": "maxPerUserPerWeek",
    "counts_toward_caps": "countsTowardCaps",
    "max_per_minute": "maxPerMinute",
    "send_window": "sendWindow",
    "expires_after_minutes": "expiresAfterMinutes",
    "misfire_grace_minutes": "misfireGraceMinutes",
    "on_past": "onPast",
    "recheck_audience": "recheckAudience",
}
TIMING_FIELDS = frozenset(
    {"schedule_type", "run_at", "cron", "time_zone", "time_zone_mode", "start_at", "end_at", "max_runs"}
)
# What moves the instants of people, though not those of the schedule.
WAITING_FIELDS = frozenset({"send_window", "expires_after_minutes", "purpose"})
INSTANTS = frozenset({"run_at", "start_at", "end_at"})
# bool is no int here, though Python holds it for one.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "channel": (str,),
    "audience_query": (dict,),
    "template_id": (int, NoneType),
    "topic": (str, NoneType),
    "purpose": (str,),
    "schedule_type": (str,),
    "run_at": (datetime, NoneType),
    "cron": (str,),
    "time_zone": (str,),
    "time_zone_mode": (str,),
    "start_at": (datetime, NoneType),
    "end_at": (datetime, NoneType),
    "max_runs": (int, NoneType),
    "max_per_user_per_day": (int, NoneType),
    "max_per_user_per_week": (int, NoneType),
    "counts_toward_caps": (bool,),
    "max_per_minute": (int, NoneType),
    "send_window": (dict, NoneType),
    "expires_after_minutes": (int, NoneType),
    "misfire_grace_minutes": (int,),
    "on_past": (str,),
    "recheck_audience": (bool, NoneType),
}
_TYPE_WORDS: Mapping[type, str] = {
    str: say("a text"),
    int: say("a whole number"),
    bool: say("true or false"),
    dict: say('an object such as {"all": []}'),
    datetime: say("an instant with its offset, such as 2026-12-01T09:00:00Z"),
    NoneType: "null",
}
_TEXT_LENGTHS = {"topic": LONGEST_KEY, "cron": 200, "time_zone": 64}
_LARGEST_ID = 2**63 - 1
# An occurrence lives for seven days, so a longer grace, or wait, could never be used.
_LONGEST_GRACE_MINUTES = 7 * 24 * 60
LONGEST_WAIT_MINUTES = 7 * 24 * 60
_LARGEST_LIMIT = 1_000_000


class InvalidDefinition(ValueError):
    """The definition can't be kept. ``problems`` names every field, what is wrong and what to do."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


@dataclass(frozen=True)
class Definition:
    """Fields as in FR-03; ``audience_query`` is JSON as in ``schedules.audience``.

    Its default ``{}`` serves drafts alone and never runs: whoever means everyone says so, by ``{"all": []}``.
    """

    name: str
    channel: str
    template_id: int | None
    schedule_type: str
    audience_query: Mapping[str, Any] = field(default_factory=dict)
    topic: str | None = None
    purpose: str = "marketing"
    run_at: datetime | None = None
    cron: str = ""
    time_zone: str = "UTC"
    time_zone_mode: str = "fixed"
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_runs: int | None = None
    max_per_user_per_day: int | None = None
    max_per_user_per_week: int | None = None
    counts_toward_caps: bool = True
    max_per_minute: int | None = None
    send_window: Mapping[str, Any] | None = None
    expires_after_minutes: int | None = None
    misfire_grace_minutes: int = 60
    on_past: str = "skip"
    recheck_audience: bool | None = None

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        return cls(**{item.name: getattr(schedule, item.name) for item in fields(cls)})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``; ``data`` was written by it."""
        values = {name: data[key] for name, key in WIRE.items() if key in data}
        for name in INSTANTS & values.keys():
            values[name] = datetime.fromisoformat(values[name]) if values[name] else None
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        values = vars(self).copy()
        for name in INSTANTS:
            instant = values[name]
            values[name] = instant.astimezone(UTC).isoformat().replace("+00:00", "Z") if instant else None
        return {key: values[name] for name, key in WIRE.items()}

    @property
    def is_transactional(self) -> bool:
        """Whether it goes to whoever it concerns, whatever was agreed to; never to an address that is suppressed."""
        return self.purpose == Purpose.TRANSACTIONAL

    def timing(self) -> Timing:
        return Timing(
            schedule_type=self.schedule_type,  # type: ignore[arg-type]
            mode=self.time_zone_mode,  # type: ignore[arg-type]
            run_at=self.run_at,
            cron=self.cron,
            time_zone=self.time_zone,
            starts_at=self.start_at,
            ends_at=self.end_at,
            max_runs=self.max_runs,
        )

    @property
    def window(self) -> Window | None:
        """When its messages may reach a person, if not at any hour."""
        return windows.read(self.send_window) if self.send_window else None

    @property
    def heeds_quiet_hours(self) -> bool:
        """Whether its messages wait for the end of a person's quiet hours."""
        return self.channel in quiet_hours.CHANNELS and not self.is_transactional

    @property
    def rechecks_audience(self) -> bool:
        """Whether a claim asks again if the person still matches: by default in user-local mode."""
        if self.recheck_audience is None:
            return self.time_zone_mode == TimeZoneMode.USER_LOCAL
        return self.recheck_audience


def check(definition: Definition, *, now: datetime, timing_is_new: bool = True) -> list[Problem]:
    """Every problem of ``definition``, none if it can run. A time that stood before may have passed since."""
    if wrong := check_changes(vars(definition)):
        return wrong
    problems = [
        *_check_columns(definition),
        *_check_audience(definition),
        *_check_template(definition),
        *_check_topic(definition),
    ]
    told = {problem.field for problem in problems}
    if timing_is_new and not told & {"scheduleType", "timeZoneMode"}:
        problems += [problem for problem in check_timing(definition.timing(), now=now) if problem.field not in told]
    return problems


def check_draft(definition: Definition) -> list[Problem]:
    """What even a draft must fulfil: values that its columns can hold. All else may still be missing or wrong."""
    if wrong := check_changes(vars(definition)):
        return wrong
    return [
        *_check_columns(definition),
        *_check_storable(definition.audience_query),
        *_check_template_exists(definition),
    ]


def check_changes(changes: Mapping[str, Any]) -> list[Problem]:
    """Fields of ``changes`` (keys as in ``Definition``) that don't exist, and values that aren't of their types."""
    problems = []
    for name, value in changes.items():
        allowed = _TYPES.get(name)
        if allowed is None:
            shown = str(name)[:40].encode("utf-8", "replace").decode()
            problems.append(
                Problem(
                    shown, "unknown", say("There is no such field; use some of: %(known)s.", known=", ".join(_TYPES))
                )
            )
        elif not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            words = [_TYPE_WORDS[each] for each in allowed]
            one_of = words[0] if len(words) == 1 else say("%(one)s or %(other)s", one=words[0], other=words[1])
            problems.append(Problem(WIRE[name], "wrong_type", say("Use %(words)s.", words=one_of)))
    return problems


def _check_columns(definition: Definition) -> list[Problem]:
    return [
        *_check_words(definition),
        *_check_texts(definition),
        *_check_limits(definition),
        *_check_window(definition.send_window),
        *_check_range(definition),
    ]


def _check_texts(definition: Definition) -> list[Problem]:
    problems = []
    for name, length in _TEXT_LENGTHS.items():
        value = getattr(definition, name) or ""
        if len(value) > length or not value.isprintable():
            problems.append(
                Problem(WIRE[name], "too_long", say("Use at most %(most)s printable characters.", most=length))
            )
    return problems


def _check_storable(query: Mapping[str, Any]) -> list[Problem]:
    fault = storable.json_fault(query)
    return [Problem("audienceQuery", "invalid", fault)] if fault else []


def _check_words(definition: Definition) -> list[Problem]:
    problems = []
    if not definition.name.strip():
        problems.append(Problem("name", "required", say("Give the schedule a name.")))
    elif len(definition.name) > 200 or not definition.name.isprintable():
        problems.append(Problem("name", "invalid", say("Use at most 200 printable characters on one line.")))
    closed = {
        "channel": Channel.values,
        "purpose": Purpose.values,
        "schedule_type": ScheduleType.values,
        "time_zone_mode": TimeZoneMode.values,
        "on_past": OnPast.values,
    }
    for name, allowed in closed.items():
        if getattr(definition, name) not in allowed:
            problems.append(Problem(WIRE[name], "unknown", say("Use one of: %(known)s.", known=", ".join(allowed))))
    return problems


def _check_limits(definition: Definition) -> list[Problem]:
    problems = []
    for name in ("max_per_user_per_day", "max_per_user_per_week", "max_runs", "max_per_minute"):
        value = getattr(definition, name)
        if value is not None and not 1 <= value <= _LARGEST_LIMIT:
            message = say("Use a number from 1 to %(most)s, or leave it out for no limit.", most=_LARGEST_LIMIT)
            problems.append(Problem(WIRE[name], "out_of_range", message))
    if not 0 <= definition.misfire_grace_minutes <= _LONGEST_GRACE_MINUTES:
        message = say("Use 0 to %(most)s minutes.", most=str(_LONGEST_GRACE_MINUTES))
        problems.append(Problem("misfireGraceMinutes", "out_of_range", message))
    wait = definition.expires_after_minutes
    if wait is not None and not 1 <= wait <= LONGEST_WAIT_MINUTES:
        message = say("Use 1 to %(most)s minutes, or leave it out.", most=str(LONGEST_WAIT_MINUTES))
        problems.append(Problem("expiresAfterMinutes", "out_of_range", message))
    return problems


def _check_window(window: Mapping[str, Any] | None) -> list[Problem]:
    """Everything of it is checked for drafts too: what stands in the column can be read."""
    if window is None:
        return []
    if unknown := window.keys() - {"days", "from", "to"}:
        shown = storable.step(min(map(str, unknown)))
        message = say("There is no such member as %(name)s; use days, from and to.", name=shown)
        return [Problem("sendWindow", "unknown", message)]
    problems = []
    days = window.get("days")
    if not isinstance(days, list) or not days or any(day not in windows.DAYS for day in days):
        message = say("Name one day or more out of: %(known)s.", known=", ".join(windows.DAYS))
        problems.append(Problem("sendWindow/days", "invalid", message))
    elif len(set(days)) < len(days):
        problems.append(Problem("sendWindow/days", "repeated", say("Name each day once.")))
    for name in ("from", "to"):
        if not _is_time_of_day(window.get(name)) or (name == "from" and window["from"] == "24:00"):
            message = say("Use a time of day such as 09:00; a window may end at 24:00.")
            problems.append(Problem(f"sendWindow/{name}", "invalid", message))
    return problems


def _is_time_of_day(value: object) -> bool:
    try:
        return isinstance(value, str) and windows.minute_of(value) >= 0
    except ValueError:
        return False


def _check_range(definition: Definition) -> list[Problem]:
    problems = []
    for name in sorted(INSTANTS):
        value = getattr(definition, name)
        if value is not None and value.utcoffset() is None:
            message = say("%(name)s says no offset; end it in Z or in one such as +01:00.", name=WIRE[name])
            problems.append(Problem(WIRE[name], "naive", message))
        elif value is not None and value.year not in YEARS:
            message = say(
                "%(name)s must lie between the years %(first)s and %(last)s.",
                name=WIRE[name],
                first=str(YEARS[0]),
                last=str(YEARS[-1]),
            )
            problems.append(Problem(WIRE[name], "out_of_range", message))
    if not problems and definition.start_at and definition.end_at and definition.end_at <= definition.start_at:
        problems.append(Problem("endAt", "before_start", say("endAt must lie after startAt; move one of them.")))
    return problems


def _check_audience(definition: Definition) -> list[Problem]:
    try:
        parse(definition.audience_query)
    except InvalidAudience as error:
        return [Problem(f"audienceQuery{problem.pointer}", problem.code, problem.message) for problem in error.problems]
    return []


def _check_template(definition: Definition) -> list[Problem]:
    if definition.template_id is None:
        return [Problem("templateId", "required", say("Choose a template."))]
    name, speaks_there = _template(definition) or ("", None)
    if speaks_there is None:
        return _no_template(definition.template_id)
    if not speaks_there:
        message = say(
            "Template “%(name)s” says nothing for %(channel)s: add content and publish it, or choose another.",
            name=name,
            channel=definition.channel,
        )
        return [Problem("templateId", "no_content", message)]
    return []


def _check_template_exists(definition: Definition) -> list[Problem]:
    if definition.template_id is None or _template(definition):
        return []
    return _no_template(definition.template_id)


def _check_topic(definition: Definition) -> list[Problem]:
    if definition.topic is None:
        return []
    if definition.is_transactional:
        words = say("A transactional message has no topic, since nobody can unsubscribe from it: leave the topic out.")
        return [Problem("topic", "transactional", words)]
    archived = Topic.objects.filter(key=definition.topic).values_list("archived_at", flat=True)
    if storable.text_fault(definition.topic) or not archived:
        words = say("There is no topic %(key)s: choose another.", key=definition.topic[:LONGEST_KEY])
        return [Problem("topic", "not_found", words)]
    if archived[0]:
        words = say("The topic %(key)s is archived: choose another.", key=definition.topic)
        return [Problem("topic", "archived", words)]
    return []


def _template(definition: Definition) -> tuple[str, bool] | None:
    """The template's name, and whether what is published of it speaks on the channel; None where there is none."""
    asked = definition.template_id
    if asked is None or not 0 < asked <= _LARGEST_ID:
        return None
    channel = definition.channel if definition.channel in Channel.values else ""  # what is no channel may be unstorable
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT t.name, EXISTS (
                SELECT FROM schedules_templateversion v
                WHERE v.template_id = t.id AND v.version = t.version AND v.contents @> %s::jsonb
            ) FROM schedules_messagetemplate t WHERE t.id = %s AND t.deleted_at IS NULL
            """,
            [json.dumps([{"channel": channel}]), asked],
        )
        found: tuple[str, bool] | None = cursor.fetchone()
    return found


def _no_template(asked: int) -> list[Problem]:
    shown = asked if abs(asked) <= _LARGEST_ID else say("of so large a number")
    return [
        Problem("templateId", "not_found", say("There is no template %(shown)s: choose another.", shown=str(shown)))
    ]

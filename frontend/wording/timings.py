"""When a schedule runs, in the viewer's language.

The usual timings have sentences of their own. Whatever else a cron says is told by the engine that fires it, which
knows English alone: in other languages the cron stands for itself.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from babel.dates import format_timedelta, get_day_names, get_month_names
from django.utils.translation import get_language, ngettext
from django.utils.translation import gettext as _

from schedules.definition import Definition
from schedules.models import Schedule, ScheduleType, TimeZoneMode
from schedules.recurrence import InvalidTiming, describe, windows, zone
from schedules.recurrence.crons import sentence

_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_WORKDAYS, _WEEKEND = [1, 2, 3, 4, 5], [6, 7]
# As the audit keeps the interval of an entry of the clock.
_KEPT_INTERVAL = re.compile(r"every (?:(\d+) )?(second|minute|hour|day)s?")


def of(schedule: Schedule) -> str:
    """The timing of a schedule as a sentence without full stop; of one that is not complete yet, says so."""
    return of_definition(Definition.of(schedule))


def of_definition(definition: Definition) -> str:
    try:
        engine = describe(definition.timing())  # what it can't read, nobody can
    except (InvalidTiming, ValueError):
        return _("No time has been chosen yet")
    if definition.schedule_type == ScheduleType.ONCE:
        assert definition.run_at is not None
        return _("Once, on %(when)s") % {"when": moment(definition.run_at, definition, joint=_(" at "))}
    told = cron_in_words(definition.cron)
    if told is None and _is_english():
        return engine
    told = told or _by_cron(definition.cron)
    return "".join([told, ", ", clock_of(definition), *_limits(definition)])


def clock_of(definition: Definition) -> str:
    """Whose clock the times are read off."""
    return own_clock() if definition.time_zone_mode == TimeZoneMode.USER_LOCAL else definition.time_zone


def own_clock() -> str:
    return _("on each person's own clock")


def wall(occurrence_at: datetime, mode: str) -> str:
    """What everybody's own clock shows at a run that is not for all at one instant; empty for one that is."""
    return "" if mode == TimeZoneMode.FIXED else f"{occurrence_at:%Y-%m-%d %H:%M} {own_clock()}"


def moment(at: datetime, definition: Definition, *, joint: str = " ") -> str:
    """A date and time with zone and offset, or with the words that stand for them in user-local mode."""
    local = definition.time_zone_mode == TimeZoneMode.USER_LOCAL
    shown = at.astimezone(UTC if local else zone(definition.time_zone))
    text = f"{shown:%Y-%m-%d}{joint}{shown:%H:%M:%S}".removesuffix(":00")
    if local:
        return f"{text} {own_clock()}"
    if definition.time_zone == "UTC":
        return f"{text} UTC"
    offset = f"{shown:%z}"
    return f"{text} {definition.time_zone} (UTC{offset[:3]}:{offset[3:5]})"


def _limits(definition: Definition) -> Sequence[str]:
    told = []
    if definition.start_at:
        told.append(", " + _("from %(when)s") % {"when": moment(definition.start_at, definition)})
    if definition.end_at:
        told.append(", " + _("until %(when)s") % {"when": moment(definition.end_at, definition)})
    if definition.max_runs:
        runs = definition.max_runs
        told.append(", " + ngettext("once only", "%(n)d times at most", runs) % {"n": runs})
    return told


def cron_in_words(cron: str) -> str | None:
    """The usual crons, without zone: “Every Monday at 09:00”. None for all others."""
    minute, hour, day, month, weekday = cron.upper().split()
    if month != "*":
        return None
    if (often := _often(minute, hour)) and day == weekday == "*":
        return often
    if (at := _times(minute, hour)) is None:
        return None
    if day == weekday == "*":
        return _("Every day at %(time)s") % {"time": at}
    if day == "*" and (days := _weekdays(weekday)):
        if days == _WORKDAYS:
            return _("Monday to Friday at %(time)s") % {"time": at}
        if days == _WEEKEND:
            return _("Every Saturday and Sunday at %(time)s") % {"time": at}
        return _("Every %(days)s at %(time)s") % {"days": _and(_day_names(days)), "time": at}
    if weekday == "*" and day == "L":
        return _("On the last day of every month at %(time)s") % {"time": at}
    if weekday == "*" and day.isdigit():
        return _("On day %(day)s of every month at %(time)s") % {"day": int(day), "time": at}
    return None


def any_cron_in_words(cron: str) -> str:
    """Any cron that can be read, without zone; one that can't as it stands."""
    try:
        told = sentence(cron)
    except InvalidTiming:
        return cron
    return cron_in_words(cron) or (told if _is_english() else _by_cron(cron))


def _is_english() -> bool:
    return locale().startswith("en")


def _by_cron(cron: str) -> str:
    return _("By the cron %(cron)s") % {"cron": cron}


def _often(minute: str, hour: str) -> str | None:
    if hour == "*" and minute == "*":
        return _("Every minute")
    if hour == "*" and (step := re.fullmatch(r"\*/(\d+)", minute)) and 60 % int(step[1]) == 0:
        return ngettext("Every minute", "Every %(n)d minutes", int(step[1])) % {"n": int(step[1])}
    if hour == "*" and minute.isdigit():
        return _("Every hour at minute %(minute)s") % {"minute": int(minute)}
    return None


def _times(minute: str, hour: str) -> str | None:
    if not minute.isdigit() or not re.fullmatch(r"\d+(,\d+)*", hour):
        return None
    return _and([f"{int(each):02}:{int(minute):02}" for each in sorted(hour.split(","), key=int)])


def _weekdays(text: str) -> list[int] | None:
    """ISO numbers, Monday first, of a list of days and ranges."""
    found: set[int] = set()
    for part in text.split(","):
        first, _dash, last = part.partition("-")
        numbers = [_weekday(name) for name in (first, last or first)]
        if None in numbers:
            return None
        begin, end = int(numbers[0] or 0), int(numbers[1] or 0)
        found |= {number % 7 or 7 for number in range(begin, end + 1)}
    return sorted(found)


def _weekday(name: str) -> int | None:
    if name in _DAYS:
        return _DAYS.index(name)
    return int(name) if re.fullmatch(r"[0-7]", name) else None


def _day_names(days: Sequence[int]) -> list[str]:
    names = get_day_names("wide", locale=locale())
    return [str(names[day - 1]) for day in days]


def window_in_words(window: Mapping[str, Any]) -> str:
    """A send window, as a definition has it: “Monday to Friday, 09:00 to 20:00, on each person's own clock”."""
    days = sorted(windows.DAYS.index(day) + 1 for day in window["days"])
    if len(days) == 7:
        told = _("every day")
    elif days == _WORKDAYS:
        told = _("Monday to Friday")
    else:
        told = _and(_day_names(days))
    words = {"days": told, "from": window["from"], "to": window["to"], "clock": own_clock()}
    if windows.minute_of(window["to"]) <= windows.minute_of(window["from"]):
        return _("%(days)s, %(from)s to %(to)s of the next day, %(clock)s") % words
    return _("%(days)s, %(from)s to %(to)s, %(clock)s") % words


def quiet_hours_in_words(hours: Mapping[str, str]) -> str:
    """Those of a profile: “22:00 to 07:00”."""
    return _("%(from)s to %(to)s") % hours


def interval(every: int, period: str) -> str:
    """How often the clock calls something; ``period`` as django-celery-beat names it: seconds, minutes, hours, days."""
    match period:
        case "seconds":
            words = ngettext("each second", "every %(n)s seconds", every)
        case "minutes":
            words = ngettext("each minute", "every %(n)s minutes", every)
        case "hours":
            words = ngettext("each hour", "every %(n)s hours", every)
        case "days":
            words = ngettext("each day", "every %(n)s days", every)
        case _:
            return f"{every} {period}"
    return words % {"n": every}


def kept_interval(text: str) -> str:
    """The same from the words in which the audit keeps it."""
    found = _KEPT_INTERVAL.fullmatch(text)
    return interval(int(found[1] or 1), f"{found[2]}s") if found else text


def how_long(seconds: float) -> str:
    """A length of time as people say it, rounded: “less than a second”, “12 seconds”, “90 minutes”, “3 hours”."""
    if seconds < 1:
        return _("less than a second")
    return str(format_timedelta(timedelta(seconds=round(seconds)), threshold=2, locale=locale()))


def ago(seconds: float) -> str:
    """How long something is past: “now”, “12 seconds ago”."""
    if seconds < 1:
        return _("now")
    past = timedelta(seconds=-round(seconds))
    return str(format_timedelta(past, add_direction=True, threshold=2, locale=locale()))


def month_name(number: int) -> str:
    return str(get_month_names("wide", context="stand-alone", locale=locale())[number])


def locale() -> str:
    """The viewer's language as babel names it."""
    return (get_language() or "en").replace("-", "_")


def _and(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {_('and')} {items[-1]}"

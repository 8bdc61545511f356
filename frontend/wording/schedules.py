"""Schedules in plain words: their states, their fields and what stands in them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from frontend.instants import show
from frontend.wording import timings
from frontend.wording.audiences import query_in_words
from frontend.wording.reasons import number
from frontend.wording.topics import PURPOSES
from schedules.definition import Definition
from schedules.models import Channel, OnPast, ScheduleStatus, ScheduleType, TimeZoneMode

Words = str | Promise

STATUSES: Mapping[str, Words] = {
    ScheduleStatus.DRAFT: gettext_lazy("draft"),
    ScheduleStatus.ACTIVE: gettext_lazy("active"),
    ScheduleStatus.PAUSED: gettext_lazy("paused"),
    ScheduleStatus.FINISHED: gettext_lazy("finished"),
    ScheduleStatus.CANCELLED: gettext_lazy("cancelled"),
    ScheduleStatus.DELETED: gettext_lazy("deleted"),
    ScheduleStatus.BROKEN: gettext_lazy("broken"),
}
CHANNELS: Mapping[str, Words] = {
    Channel.EMAIL: gettext_lazy("E-mail"),
    Channel.PUSH: gettext_lazy("Push"),
    Channel.IN_APP: gettext_lazy("In-app"),
}
TYPES: Mapping[str, Words] = {
    ScheduleType.ONCE: gettext_lazy("Once"),
    ScheduleType.CRON: gettext_lazy("Repeating"),
}
MODES: Mapping[str, Words] = {
    TimeZoneMode.FIXED: gettext_lazy("Everybody at the same moment"),
    TimeZoneMode.USER_LOCAL: gettext_lazy("Each person at their own local time"),
}
ON_PAST: Mapping[str, Words] = {
    OnPast.SKIP: gettext_lazy("They are skipped"),
    OnPast.SEND_NOW: gettext_lazy("They get it at once"),
}

# Keys as in a version's definition, in the order in which people ask.
FIELDS: Mapping[str, Words] = {
    "name": gettext_lazy("Name"),
    "channel": gettext_lazy("Channel"),
    "templateId": gettext_lazy("Template"),
    "topic": gettext_lazy("Topic"),
    "purpose": gettext_lazy("Purpose"),
    "audienceQuery": gettext_lazy("Audience"),
    "scheduleType": gettext_lazy("How often"),
    "runAt": gettext_lazy("Runs at"),
    "cron": gettext_lazy("Repeats"),
    "timeZone": gettext_lazy("Time zone"),
    "timeZoneMode": gettext_lazy("Whose clock"),
    "startAt": gettext_lazy("First day"),
    "endAt": gettext_lazy("Last day"),
    "maxRuns": gettext_lazy("Number of runs"),
    "maxPerUserPerDay": gettext_lazy("Most messages per person in 24 hours"),
    "maxPerUserPerWeek": gettext_lazy("Most messages per person in 7 days"),
    "countsTowardCaps": gettext_lazy("Counts toward other schedules' limits"),
    "maxPerMinute": gettext_lazy("Most people a minute"),
    "sendWindow": gettext_lazy("Reaches people"),
    "expiresAfterMinutes": gettext_lazy("Lets people wait for"),
    "misfireGraceMinutes": gettext_lazy("May start late by"),
    "onPast": gettext_lazy("People whose local time has passed"),
    "recheckAudience": gettext_lazy("Asks again, when sending, whether a person still fits"),
}

# Fields whose values have names.
_NAMED: Mapping[str, Mapping[str, Words]] = {
    "channel": CHANNELS,
    "purpose": PURPOSES,
    "scheduleType": TYPES,
    "timeZoneMode": MODES,
    "onPast": ON_PAST,
}


def value_in_words(field: str, value: Any, *, definition: Mapping[str, Any], templates: Mapping[int, str]) -> str:
    """What stands in a field of ``definition`` (keys as on the wire); ``templates``: names by id."""
    if value is None or value == "":
        return _nothing(field)
    if field in _NAMED:
        return str(_NAMED[field].get(value, value))
    match field:
        case "templateId":
            return templates.get(value) or _("template %(id)s") % {"id": value}
        case "audienceQuery":
            return query_in_words(value)
        case "runAt" | "startAt" | "endAt":
            return _instant(value, definition)
        case "cron":
            return timings.any_cron_in_words(value)
        case "misfireGraceMinutes" | "expiresAfterMinutes":
            return minutes(value)
        case "sendWindow":
            return timings.window_in_words(value)
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return number(value) if isinstance(value, int) else str(value)


def hours_in_words(definition: Definition) -> list[str]:
    """Sentences without full stop: how fast and at which hours it reaches people, and how long they may wait."""
    told = []
    if definition.max_per_minute:
        words = ngettext(
            "It goes out to at most %(n)s person a minute",
            "It goes out to at most %(n)s people a minute",
            definition.max_per_minute,
        )
        told.append(words % {"n": number(definition.max_per_minute)})
    if definition.send_window:
        told.append(_("It reaches people only %(hours)s") % {"hours": timings.window_in_words(definition.send_window)})
    if definition.expires_after_minutes:
        late = minutes(definition.expires_after_minutes)
        told.append(_("Whoever could not be reached within %(minutes)s gets nothing") % {"minutes": late})
    return told


def minutes(value: int) -> str:
    return ngettext("%(n)s minute", "%(n)s minutes", value) % {"n": number(value)}


def _nothing(field: str) -> str:
    if field in ("maxPerUserPerDay", "maxPerUserPerWeek", "maxRuns", "maxPerMinute"):
        return _("no limit")
    if field == "sendWindow":
        return _("at any hour")
    if field == "expiresAfterMinutes":
        return _("as long as the run lasts")
    return _("only at each person's own local time") if field == "recheckAudience" else _("none")


def _instant(value: str, definition: Mapping[str, Any]) -> str:
    at = datetime.fromisoformat(value)
    if definition.get("timeZoneMode") == TimeZoneMode.USER_LOCAL:
        return f"{at:%Y-%m-%d %H:%M} {timings.own_clock()}"
    return show(at, str(definition.get("timeZone", "UTC")))


def scope_in_words(scope: str) -> str:
    """What a stop switch holds, from ``all``, ``channel:NAME`` or ``schedule:ID``."""
    kind, _colon, name = scope.partition(":")
    if kind == "channel":
        return _("sending by %(channel)s") % {"channel": CHANNELS.get(name, name)}
    return _("sending for schedule #%(id)s") % {"id": name} if kind == "schedule" else _("all sending")

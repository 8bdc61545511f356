"""Filters of our pages."""

import re
from datetime import datetime, timedelta
from typing import Any

from babel.dates import format_timedelta
from django import template
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language, gettext

from frontend import instants, wording
from frontend.wording import sayings, timings
from schedules import clock

register = template.Library()

# Where browsers would break a line: behind the hyphens of a day, behind the minus of an offset.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d(:\d\d)?)?|\(UTC-\d\d:\d\d\)")
_WEST = re.compile(r"\(UTC-\d\d:\d\d\)")


@register.filter
def instant(value: datetime | None, zone_name: str = "UTC") -> str:
    """{{ at|instant }} or {{ at|instant:zone_name }}"""
    return instants.show(value, zone_name)


@register.simple_tag(takes_context=True)
def moment(context: Any, value: datetime | None, own: str = "") -> SafeString | str:
    """{% moment at %} or {% moment at zone_name %}: an instant on the viewer's chosen clock, with its offset.

    ``own`` is the zone of what the instant belongs to; the others' clocks stand in its title.
    """
    if value is None:
        return "—"
    zones = context["zones"]
    chosen = zones.of(own)
    others = [name for name in dict.fromkeys([own or "UTC", zones.mine, "UTC"]) if name != chosen]
    return format_html(
        '<time class="ns-instant" datetime="{}" title="{}">{}</time>',
        instants.instant(value),
        " · ".join(instants.show(value, name) for name in others),
        _whole(instants.show(value, chosen), _WEST),
    )


@register.filter
def unbroken(words: str) -> SafeString:
    """{{ banner|unbroken }}: a sentence whose days and times stay in one line each; browsers break them at hyphens."""
    return _whole(words, _MOMENT)


def _whole(words: str, parts: re.Pattern[str]) -> SafeString:
    return mark_safe(parts.sub(r'<span class="ns-whole">\g<0></span>', escape(words)))  # noqa: S308 - escaped


@register.filter
def relative(value: datetime | None) -> str:
    """{{ at|relative }}: “in 3 hours”, “5 minutes ago”, in the viewer's language, by the business clock."""
    if value is None:
        return "—"
    ahead = value - clock.now()
    if abs(ahead) < timedelta(seconds=1):
        return gettext("now")
    return format_timedelta(ahead, add_direction=True, locale=(get_language() or "en").replace("-", "_"))


@register.filter
def seconds(value: float | None) -> str:
    return instants.show_seconds(value)


@register.filter
def how_long(value: float) -> str:
    """{{ told.duration.seconds|how_long }}: “less than a second”, “3 minutes”."""
    return timings.how_long(value)


@register.filter
def translated(words: str) -> str:
    """{{ note.message|translated }}: what the rooms below say, in the viewer's language."""
    return sayings.translated(words)


@register.filter
def reason(slug: str) -> str:
    return wording.reason(slug)

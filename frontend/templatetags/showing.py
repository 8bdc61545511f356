"""Filters of our pages."""

from datetime import datetime

from django import template

from frontend import instants, wording

register = template.Library()


@register.filter
def instant(value: datetime | None, zone_name: str = "UTC") -> str:
    """{{ at|instant }} or {{ at|instant:zone_name }}"""
    return instants.show(value, zone_name)


@register.filter
def seconds(value: float | None) -> str:
    return instants.show_seconds(value)


@register.filter
def reason(slug: str) -> str:
    return wording.reason(slug)

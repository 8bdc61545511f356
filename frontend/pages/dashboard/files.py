"""The dashboard's figures as files."""

from collections.abc import Iterator
from enum import StrEnum

from django.utils.translation import gettext as _

from delivery.timeline import Timeline, by_stretch
from frontend.instants import instant
from frontend.pages.dashboard.charts import OUTCOMES
from frontend.wording import reason, state
from frontend.wording.schedules import CHANNELS
from schedules.recurrence import zone


class What(StrEnum):
    OUTCOMES = "outcomes"
    LATENESS = "lateness"
    REASONS = "reasons"


def rows(what: What, timeline: Timeline, *, channel: str, zone_name: str) -> Iterator[list[object]]:
    """``channel`` is empty for all of them."""
    match what:
        case What.OUTCOMES:
            yield from _outcomes(timeline, channel, zone_name)
        case What.LATENESS:
            yield from _lateness(timeline)
        case What.REASONS:
            yield from _reasons(timeline)


def _outcomes(timeline: Timeline, channel: str, zone_name: str) -> Iterator[list[object]]:
    heading = [_("Channel"), _("From"), _("Until"), _("From (UTC)"), _("Until (UTC)")]
    yield [*heading, *(state(item) for item in OUTCOMES), _("Total")]
    clock = zone(zone_name)
    for each in [channel] if channel else list(CHANNELS):
        for stretch, counted in by_stretch(timeline, each):
            yield [
                str(CHANNELS[each]),
                stretch.begins.astimezone(clock).isoformat(),
                stretch.ends.astimezone(clock).isoformat(),
                instant(stretch.begins) or "",
                instant(stretch.ends) or "",
                *(counted.get(item, 0) for item in OUTCOMES),
                sum(counted.values()),
            ]


def _lateness(timeline: Timeline) -> Iterator[list[object]]:
    yield [_("Channel"), _("People timed"), _("Half within (s)"), _("95 % within (s)"), _("99 % within (s)")]
    for each in timeline.lateness:
        figures = (round(each.p50, 3), round(each.p95, 3), round(each.p99, 3))
        yield [str(CHANNELS[each.channel]), each.people, *figures]


def _reasons(timeline: Timeline) -> Iterator[list[object]]:
    yield [_("Channel"), _("Outcome"), _("Reason"), _("Reason in words"), _("People")]
    for each in sorted(timeline.reasons, key=lambda why: -why.people):
        if each.reason:
            words = reason(each.reason, each.state)
            yield [str(CHANNELS[each.channel]), state(each.state), each.reason, words, each.people]

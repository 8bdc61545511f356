"""Bars over time, drawn on the server: people by outcome, one stack for each stretch.

Heights and places are per cent of the drawing, so that it fits any screen; what is to be read stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from delivery.models import State
from delivery.timeline import Stretch, Timeline, Window, by_stretch
from frontend.wording import number, state
from frontend.wording.schedules import CHANNELS
from schedules.recurrence import zone

# Outcomes from the bottom of a stack to its top.
OUTCOMES = tuple(item for item in State if item.is_outcome)
TITLES = {
    Window.HOUR: gettext_lazy("Last hour"),
    Window.DAY: gettext_lazy("Last 24 hours"),
    Window.WEEK: gettext_lazy("Last 7 days"),
    Window.MONTH: gettext_lazy("Last 30 days"),
}
# The least a part is high, in per cent: one person in a million is seen.
_LEAST = 0.8
_GAP = 0.18


@dataclass(frozen=True)
class Part:
    css: str
    y: str
    height: str


@dataclass(frozen=True)
class Bar:
    """``words`` say what stands in it."""

    x: str
    width: str
    words: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Line:
    """A line of the table: a stretch in words, and people in the order of ``Chart.columns``."""

    begins: str
    cells: Sequence[str]
    total: str


@dataclass(frozen=True)
class Column:
    css: str
    words: str
    total: str


@dataclass(frozen=True)
class Chart:
    """``columns``: the outcomes that somebody had. ``ticks``: what the axes say, upwards and from left to right."""

    channel: str
    title: str
    words: str
    total: str
    columns: Sequence[Column]
    bars: Sequence[Bar]
    heights: Sequence[str]
    times: Sequence[str]
    lines: Sequence[Line]


def charts(timeline: Timeline, window: Window, *, zone_name: str) -> list[Chart]:
    """One for each channel, with those that had nothing left out."""
    channels = dict.fromkeys(each.channel for each in timeline.sums)
    return [_chart(timeline, window, channel, zone_name) for channel in CHANNELS if channel in channels]


def totals(timeline: Timeline) -> Mapping[State, int]:
    """People of all channels by outcome."""
    found = dict.fromkeys(OUTCOMES, 0)
    for each in timeline.sums:
        found[each.state] += each.people
    return found


def _chart(timeline: Timeline, window: Window, channel: str, zone_name: str) -> Chart:
    stacks = list(by_stretch(timeline, channel))
    sums: Mapping[int, int] = {item: sum(counted.get(item, 0) for _stretch, counted in stacks) for item in OUTCOMES}
    there = [item for item in OUTCOMES if sums[item]]
    top = _round_up(max(sum(counted.values()) for _stretch, counted in stacks))
    width = 100 / len(stacks)
    bars = [
        Bar(
            f"{place * width + width * _GAP / 2:.3f}",
            f"{width * (1 - _GAP):.3f}",
            f"{_span(stretch, window, zone_name)}: {_listed(counted)}",
            _parts(counted, top),
        )
        for place, (stretch, counted) in enumerate(stacks)
        if counted
    ]
    lines = [
        Line(
            _span(stretch, window, zone_name),
            [number(counted.get(item, 0)) for item in there],
            number(sum(counted.values())),
        )
        for stretch, counted in stacks
    ]
    title = str(CHANNELS[channel])
    words = _("%(channel)s: %(listed)s") % {"channel": title, "listed": _listed(sums)}
    return Chart(
        channel,
        title,
        words,
        number(sum(sums.values())),
        [Column(item.label, state(item), number(sums[item])) for item in there],
        bars,
        [number(top), number(top // 2), "0"],
        _ticks([stretch for stretch, _counted in stacks], window, zone_name),
        lines,
    )


def _parts(counted: Mapping[int, int], top: int) -> list[Part]:
    shares = [(item, max(100 * counted[item] / top, _LEAST)) for item in OUTCOMES if counted.get(item)]
    squeezed = min(1.0, 100 / sum(share for _item, share in shares))
    found, y = [], 100.0
    for item, share in shares:
        height = share * squeezed
        y -= height
        found.append(Part(item.label, f"{max(y, 0):.3f}", f"{height:.3f}"))
    return found


def _listed(counted: Mapping[int, int]) -> str:
    return ", ".join(f"{number(counted[item])} {state(item)}" for item in OUTCOMES if counted.get(item))


def _round_up(people: int) -> int:
    """An even number that is hardly more, of one digit or two before the noughts."""
    if people <= 10:
        return people + people % 2
    power = 1
    while power * 100 < people:
        power *= 10
    return next(step * power for step in (12, 14, 16, 20, 24, 30, 40, 50, 60, 80, 100) if step * power >= people)


def _ticks(cut: Sequence[Stretch], window: Window, zone_name: str) -> list[str]:
    """The first, the middle and the last beginning."""
    return [_begin(cut[place].begins, window, zone_name) for place in (0, len(cut) // 2, len(cut) - 1)]


def _begin(at: datetime, window: Window, zone_name: str) -> str:
    local = at.astimezone(zone(zone_name))
    if window in (Window.WEEK, Window.MONTH):
        return f"{local:%Y-%m-%d}"
    return f"{local:%H:%M} {_offset(local)}"


def _span(stretch: Stretch, window: Window, zone_name: str) -> str:
    """A stretch by the zone's clock; what is unusual about its length is said."""
    begins, ends = (at.astimezone(zone(zone_name)) for at in (stretch.begins, stretch.ends))
    if window in (Window.WEEK, Window.MONTH):
        hours = (stretch.ends - stretch.begins) / timedelta(hours=1)
        day = f"{begins:%Y-%m-%d}"
        return day if hours == 24 else _("%(day)s (%(hours)g hours)") % {"day": day, "hours": hours}
    return f"{begins:%Y-%m-%d %H:%M}–{ends:%H:%M} (UTC{_offset(begins)})"


def _offset(local: datetime) -> str:
    offset = f"{local:%z}"
    return f"{offset[:3]}:{offset[3:5]}"

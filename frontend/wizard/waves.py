"""A forecast's waves as a picture: where each bar stands and how high it is. The table beside it says the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

from delivery.forecast import Forecast
from delivery.placing import Wave

WIDTH, HEIGHT = 640.0, 150.0
_LEAST_BAR, _WIDEST_BAR, _LEAST_HEIGHT = 3.0, 40.0, 2.0


class Bar(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    wave: Wave


@dataclass(frozen=True)
class Picture:
    """Geometry in the units of an SVG of ``WIDTH`` x ``HEIGHT``; ``ticks``: instants along the bottom with their x."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, datetime, str], ...]
    most: int
    width: float = WIDTH
    height: float = HEIGHT


def picture(told: Forecast) -> Picture | None:
    """None where nobody would get anything."""
    waves = [wave for wave in told.waves if wave.people]
    if not waves:
        return None
    first, span = _span(waves)
    most = max(wave.people for wave in waves)
    width = _bar_width(waves, span)
    room = WIDTH - width
    bars = []
    for wave in waves:
        height = max(wave.people / most * HEIGHT, _LEAST_HEIGHT)
        x = (wave.at - first) / span * room if span else room / 2
        bars.append(Bar(round(x, 1), round(HEIGHT - height, 1), round(width, 1), round(height, 1), wave))
    return Picture(tuple(bars), _ticks(first, span, room, width), most)


def _span(waves: Sequence[Wave]) -> tuple[datetime, timedelta]:
    instants = [wave.at for wave in waves]
    return min(instants), max(instants) - min(instants)


def _bar_width(waves: Sequence[Wave], span: timedelta) -> float:
    """Narrow enough that no two bars touch, unless they would become too thin to be seen."""
    if not span:
        return _WIDEST_BAR
    gaps = [(later.at - earlier.at) / span * WIDTH for earlier, later in pairwise(waves)]
    return min(max(min(gaps) * 0.8, _LEAST_BAR), _WIDEST_BAR)


def _ticks(first: datetime, span: timedelta, room: float, width: float) -> tuple[tuple[float, datetime, str], ...]:
    if not span:
        return ((WIDTH / 2, first, "middle"),)
    return (
        (0.0, first, "start"),
        (round(room / 2 + width / 2, 1), first + span / 2, "middle"),
        (WIDTH, first + span, "end"),
    )

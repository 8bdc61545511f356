"""``/calendar/``: what was sent and what will be, by month or day by day, with the load of a day by the hour."""

from calendar import Calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from babel.dates import format_date, get_day_names
from django import forms
from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from django.utils.translation import gettext as _

from delivery import agenda
from delivery.agenda import Day, Entry, Hour, Load
from frontend.access import needs
from frontend.pages.frame import framed
from frontend.wording import RUN_STATES
from frontend.wording.schedules import CHANNELS
from frontend.wording.timings import locale, month_name
from frontend.zones import Display, Zones, zones_of
from schedules import clock
from schedules.permissions import Ability
from schedules.recurrence import zone

MONTH, AGENDA = "month", "agenda"
# A day of the month has room for so many, one of the agenda for more; rows read of each day.
_SHOWN = {MONTH: 4, AGENDA: 40}
_READ = {MONTH: 40, AGENDA: 100}
_AGENDA_DAYS = 7
# Recurrence knows no others.
_YEARS = range(1971, 8999)


class PlaceForm(forms.Form):
    """Which view, and around which day."""

    view = forms.ChoiceField(required=False, choices=[(MONTH, MONTH), (AGENDA, AGENDA)])
    day = forms.DateField(required=False, input_formats=["%Y-%m-%d"])


@dataclass(frozen=True)
class Told:
    """An entry as the page shows it."""

    entry: Entry
    zone: str

    @property
    def link(self) -> str:
        if self.entry.occurrence_id:
            return reverse("occurrence", args=[self.entry.occurrence_id])
        return reverse("schedule", args=[self.entry.schedule_id])

    @property
    def clock(self) -> str:
        """The reading, with the offset unless it is each person's own."""
        offset = "" if self.entry.own_clock else f" {_offset(self.entry.local)}"
        return f"{self.entry.local:%H:%M}{offset}"

    @property
    def state(self) -> str:
        return str(RUN_STATES[self.entry.state]) if self.entry.state else _("planned")

    @property
    def css(self) -> str:
        return self.entry.state or "planned"

    @property
    def channel(self) -> str:
        return str(CHANNELS[self.entry.channel])


@dataclass(frozen=True)
class Cell:
    """A day; ``is_other``: of a neighbouring month."""

    day: Day
    entries: Sequence[Told]
    name: str
    link: str
    is_today: bool
    is_chosen: bool
    is_other: bool


@dataclass(frozen=True)
class Bar:
    """An hour of the chart; heights in per cent of the highest, ``top``: where it begins."""

    hour: Hour
    reading: str
    x: str
    width: str
    top: str
    height: str
    expected_top: str
    expected_height: str

    @property
    def total(self) -> int:
        return self.hour.people + self.hour.expected


@needs(Ability.READ)
def calendar(request: HttpRequest) -> HttpResponse:
    now, zones = clock.now(), zones_of(request)
    own = zones.of()  # the page's own zone: where each entry has its schedule's, that of the day and of the load
    today = now.astimezone(zone(own)).date()
    view, chosen = _place(request.GET, today=today)
    first, count = _month(chosen) if view == MONTH else (chosen, _AGENDA_DAYS)
    days = agenda.days(first=first, count=count, shown=_SHOWN[view], read=_READ[view], zone_of=zones.of, now=now)
    cells = [_cell(day, chosen=chosen, today=today, view=view, zones=zones) for day in days]
    load = agenda.load(day=chosen, zone_name=own, read=_READ[AGENDA], now=now)
    before, after = _neighbours(view, chosen)
    context = {
        "title": _("Calendar"),
        "view": view,
        "chosen": chosen,
        "heading": f"{month_name(chosen.month)} {chosen.year}" if view == MONTH else _span(cells),
        "weeks": [cells[index : index + 7] for index in range(0, len(cells), 7)] if view == MONTH else [],
        "weekdays": _weekdays(),
        "cells": cells,
        "is_empty": not any(cell.entries or cell.day.more or cell.day.is_cut for cell in cells),
        "before": _link(view, before),
        "after": _link(view, after),
        "today": _link(view, today),
        "as_month": _link(MONTH, chosen),
        "as_agenda": _link(AGENDA, chosen),
        "zone": own,
        "by_schedule": zones.display == Display.SCHEDULE,
        "load": load,
        "bars": _bars(load, own),
        "most": max((hour.people + hour.expected for hour in load.hours), default=0),
        "chosen_name": _name(chosen),
    }
    return framed(request, "frontend/schedules/calendar.html", context)


def _place(asked: QueryDict, *, today: date) -> tuple[str, date]:
    """What can't be read is as if it were not there."""
    form = PlaceForm(asked)
    form.is_valid()
    day = form.cleaned_data.get("day") or today
    return form.cleaned_data.get("view") or MONTH, day if day.year in _YEARS else today


def _month(day: date) -> tuple[date, int]:
    """The weeks, from Monday on, that hold the month."""
    weeks = Calendar().monthdatescalendar(day.year, day.month)
    return weeks[0][0], 7 * len(weeks)


def _neighbours(view: str, chosen: date) -> tuple[date, date]:
    if view == AGENDA:
        return chosen - timedelta(days=_AGENDA_DAYS), chosen + timedelta(days=_AGENDA_DAYS)
    first = chosen.replace(day=1)
    return (first - timedelta(days=1)).replace(day=1), (first + timedelta(days=32)).replace(day=1)


def _link(view: str, day: date) -> str:
    return f"{reverse('calendar')}?view={view}&day={day:%Y-%m-%d}"


def _cell(day: Day, *, chosen: date, today: date, view: str, zones: Zones) -> Cell:
    entries = [Told(entry, _zone_of(entry)) for entry in day.entries]
    return Cell(
        day,
        entries,
        _name(day.date),
        _link(AGENDA, day.date),
        day.date == today,
        day.date == chosen,
        view == MONTH and day.date.month != chosen.month,
    )


def _zone_of(entry: Entry) -> str:
    return "" if entry.own_clock else str(entry.local.tzinfo)


def _name(day: date) -> str:
    return str(format_date(day, "full", locale=locale()))


def _span(cells: Sequence[Cell]) -> str:
    first, last = cells[0].day.date, cells[-1].day.date
    return f"{format_date(first, 'long', locale=locale())} – {format_date(last, 'long', locale=locale())}"


def _weekdays() -> list[tuple[str, str]]:
    wide, short = (get_day_names(width, locale=locale()) for width in ("wide", "abbreviated"))
    return [(str(wide[number]), str(short[number])) for number in range(7)]


def _offset(at: datetime) -> str:
    text = f"{at:%z}"
    return f"{text[:3]}:{text[3:5]}"


def _bars(load: Load, zone_name: str) -> list[Bar]:
    most = max((hour.people + hour.expected for hour in load.hours), default=0) or 1
    width = 100 / len(load.hours)
    return [
        Bar(
            hour,
            f"{(local := hour.at.astimezone(zone(zone_name))):%H:%M} {_offset(local)}",
            f"{index * width + width * 0.1:.2f}",
            f"{width * 0.8:.2f}",
            f"{100 - 100 * hour.people / most:.2f}",
            f"{100 * hour.people / most:.2f}",
            f"{100 - 100 * (hour.people + hour.expected) / most:.2f}",
            f"{100 * hour.expected / most:.2f}",
        )
        for index, hour in enumerate(load.hours)
    ]

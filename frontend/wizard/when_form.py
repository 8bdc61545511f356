"""The step in which is said when it goes out: once or repeating, for all at one moment or at each person's own hour.

Dates and times are typed as a clock shows them: the schedule's zone's, or everybody's own. Which instant that is, is
said by the function that fires (``schedules.recurrence.due_instant``).
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, ClassVar

from babel.dates import get_day_names
from django import forms
from django.forms.utils import flatatt
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from frontend.wizard.forms import Cards, StepForm
from frontend.wording import timings
from schedules.definition import Definition
from schedules.models import OnPast, ScheduleType, TimeZoneMode
from schedules.problems import Problem
from schedules.recurrence import ZONE_NAMES, due_instant, zone

_TIME = re.compile(r"(\d{1,2}) (\d{1,2}) (\S+) \* (\S+)")
_DAYS = re.compile(r"[0-7](-[0-7])?(,[0-7](-[0-7])?)*")
_ISO_DAYS = range(1, 8)
_USUAL_ZONES = 12


class DateInput(forms.DateInput):
    input_type = "date"

    def __init__(self) -> None:
        super().__init__(format="%Y-%m-%d")


class TimeInput(forms.TextInput):
    input_type = "time"


class Days(forms.CheckboxSelectMultiple):
    template_name = "frontend/wizard/days.html"


class ZoneSelect(forms.Select):
    """Six hundred zones: written at once, where a template for each would take a tenth of a second."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        groups = [
            format_html('<optgroup label="{}">{}</optgroup>', region, self._options(zones, value, is_first=not index))
            for index, (region, zones) in enumerate(self.choices)
        ]
        given = flatatt({**self.build_attrs(self.attrs, attrs), "name": name})
        return format_html("<select{}>{}</select>", given, mark_safe("".join(groups)))  # noqa: S308 - escaped above

    def _options(self, zones: Any, value: Any, *, is_first: bool) -> SafeString:
        """The chosen one is marked where it stands first, among those often used."""
        return format_html_join(
            "",
            '<option value="{}"{}>{}</option>',
            ((zone, mark_safe(" selected") if is_first and zone == value else "", label) for zone, label in zones),
        )


class ClockField(forms.TimeField):
    widget = TimeInput
    default_error_messages = {"invalid": gettext_lazy("Write a time such as 09:00.")}


class DayField(forms.DateField):
    widget = DateInput
    default_error_messages = {"invalid": gettext_lazy("Write a day such as 2026-12-24.")}


class WhenForm(StepForm):
    covers: ClassVar = {
        "schedule_type": "kind",
        "time_zone_mode": "mode",
        "run_at": "run_date",
        "cron": "cron",
        "time_zone": "time_zone",
        "start_at": "start_date",
        "end_at": "end_date",
        "max_runs": "max_runs",
        "on_past": "on_past",
    }

    kind = forms.ChoiceField(
        label=gettext_lazy("How often"),
        choices=[("once", gettext_lazy("Once")), ("cron", gettext_lazy("Again and again"))],
        widget=Cards(),
    )
    run_date = DayField(label=gettext_lazy("Day"), required=False)
    run_time = ClockField(label=gettext_lazy("Time"), required=False)
    repeat = forms.ChoiceField(
        label=gettext_lazy("Repeat"),
        choices=[
            ("day", gettext_lazy("every day")),
            ("workdays", gettext_lazy("Monday to Friday")),
            ("week", gettext_lazy("every week")),
            ("month", gettext_lazy("every month")),
            ("cron", gettext_lazy("otherwise (cron)")),
        ],
        required=False,
    )
    days = forms.MultipleChoiceField(label=gettext_lazy("On"), required=False, widget=Days)
    day_of_month = forms.ChoiceField(label=gettext_lazy("On day"), required=False)
    at = ClockField(label=gettext_lazy("At"), required=False)
    cron = forms.CharField(
        label=gettext_lazy("Cron"),
        required=False,
        max_length=200,
        help_text=gettext_lazy("Minute, hour, day of month, month, day of week: 0 9 * * 1-5 is 9:00 on working days."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "0 9 * * 1-5"}),
    )
    mode = forms.ChoiceField(
        label=gettext_lazy("For whom at what moment"),
        choices=[
            ("fixed", gettext_lazy("For everyone at the same moment")),
            ("user_local", gettext_lazy("For each person at this time on their own clock")),
        ],
        widget=Cards(
            {
                "fixed": gettext_lazy("9:00 in Berlin is 17:00 in Tokyo: it goes out once, to all."),
                "user_local": gettext_lazy(
                    "9:00 in Berlin for people there, 9:00 in Tokyo for people there: it goes around the world in 26"
                    " hours."
                ),
            }
        ),
    )
    time_zone = forms.ChoiceField(
        label=gettext_lazy("Time zone"),
        widget=ZoneSelect,
        error_messages={"invalid_choice": gettext_lazy("Choose a time zone from the list.")},
    )
    on_past = forms.ChoiceField(
        label=gettext_lazy("People whose clock is past that time already"),
        choices=[
            (OnPast.SKIP, gettext_lazy("leave them out")),
            (OnPast.SEND_NOW, gettext_lazy("send to them at once")),
        ],
    )
    start_date = DayField(label=gettext_lazy("Not before"), required=False)
    start_time = ClockField(label=gettext_lazy("Time"), required=False)
    end_date = DayField(label=gettext_lazy("Not after"), required=False)
    end_time = ClockField(label=gettext_lazy("Time"), required=False)
    max_runs = forms.IntegerField(
        label=gettext_lazy("At most so many runs"),
        required=False,
        min_value=1,
        error_messages={"min_value": gettext_lazy("Use 1 or more, or leave it empty for no limit.")},
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = get_day_names("abbreviated", locale=timings.locale())
        self._offer("days", [(str(day), names[day - 1]) for day in _ISO_DAYS])
        last = ("L", _("the last"))
        self._offer("day_of_month", [*((str(day), str(day)) for day in range(1, 32)), last])
        self._offer("time_zone", self._zones())
        if {"schedule_type"} & self.around.locked:
            self.fields["kind"].disabled = True
            self.fields["kind"].help_text = _("Once a run exists this can't change: duplicate the schedule instead.")

    def _offer(self, name: str, choices: Sequence[Any]) -> None:
        self.fields[name].choices = choices  # type: ignore[attr-defined]

    def _zones(self) -> list[Any]:
        """Those that are used here first, then all by region; each with its offset at present."""
        seen = self.around.vocabulary.values.get("time_zone", ())
        chosen = self.data.get("time_zone", "") if self.is_bound else ""
        near = dict.fromkeys([chosen, self.definition.time_zone, self.around.zones.mine, "UTC", *seen])
        usual = [name for name in near if name in ZONE_NAMES][:_USUAL_ZONES]
        hour = self.around.now.replace(minute=0, second=0, microsecond=0)
        labels = dict(choice for _region, choices in _by_region(hour) for choice in choices)
        return [(_("Often used"), [(name, labels[name]) for name in usual]), *_by_region(hour)]

    # From the definition

    def read(self, definition: Definition) -> dict[str, Any]:
        start, end = self._wall(definition.start_at), self._wall(definition.end_at)
        run = self._wall(definition.run_at)
        return {
            "kind": definition.schedule_type,
            "mode": definition.time_zone_mode,
            "run_date": run.date() if run else None,
            "run_time": _clock(run),
            "time_zone": definition.time_zone,
            "on_past": definition.on_past,
            "start_date": start.date() if start else None,
            "start_time": _clock(start),
            "end_date": end.date() if end else None,
            "end_time": _clock(end),
            "max_runs": definition.max_runs,
            "cron": definition.cron,
            **preset_of(definition.cron),
        }

    def _wall(self, instant: datetime | None) -> datetime | None:
        """What the clock that counts shows then, to the second."""
        if instant is None:
            return None
        if self.definition.time_zone_mode == TimeZoneMode.USER_LOCAL or self.definition.time_zone not in ZONE_NAMES:
            return instant.astimezone(UTC).replace(tzinfo=None, microsecond=0)
        return instant.astimezone(zone(self.definition.time_zone)).replace(tzinfo=None, microsecond=0)

    # To the definition

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or {}
        if values.get("kind") == ScheduleType.ONCE:
            if values.get("run_date") and "run_time" not in self.errors and values.get("run_time") is None:
                self.add_error("run_time", _("Choose the time of day."))
            elif values.get("run_time") and "run_date" not in self.errors and values.get("run_date") is None:
                self.add_error("run_date", _("Choose the day."))
        elif values.get("kind") == ScheduleType.CRON:
            self._clean_repeat(values)
        return values

    def _clean_repeat(self, values: dict[str, Any]) -> None:
        repeat = values.get("repeat") or "day"
        if repeat != "cron" and "at" not in self.errors and values.get("at") is None:
            self.add_error("at", _("Choose the time of day."))
        if repeat == "week" and not values.get("days"):
            self.add_error("days", _("Choose at least one day."))
        for name in ("start", "end"):
            if values.get(f"{name}_time") and not values.get(f"{name}_date"):
                self.add_error(f"{name}_date", _("Choose the day, or leave the time empty too."))

    def changes(self) -> dict[str, Any]:
        values = self.cleaned_data
        if not {"kind", "mode", "time_zone"} <= values.keys():
            return {}
        found: dict[str, Any] = {
            "schedule_type": values["kind"],
            "time_zone_mode": values["mode"],
            "time_zone": values["time_zone"],
        }
        if "on_past" in values:
            found["on_past"] = values["on_past"]
        if values["kind"] == ScheduleType.ONCE:
            found |= {"cron": "", "start_at": None, "end_at": None, "max_runs": None}
            if {"run_date", "run_time"} <= values.keys():
                found["run_at"] = self._instant("run_at", values["run_date"], values["run_time"])
            return found
        found["run_at"] = None
        if (cron := self._cron(values)) is not None:
            found["cron"] = cron
        for name, default in (("start", time(0)), ("end", time(23, 59))):
            if {f"{name}_date", f"{name}_time"} <= values.keys():
                clock = values[f"{name}_time"]
                found[f"{name}_at"] = self._instant(
                    f"{name}_at", values[f"{name}_date"], default if clock is None else clock
                )
        if "max_runs" in values:
            found["max_runs"] = values["max_runs"]
        return found

    def _instant(self, name: str, day: date | None, clock: time | None) -> datetime | None:
        """The instant of a clock's reading. A kept one that reads the same stays to the microsecond."""
        if day is None or clock is None:
            return None
        wall = datetime.combine(day, clock)
        kept: datetime | None = getattr(self.definition, name)
        is_same_clock = (self.cleaned_data["mode"], self.cleaned_data["time_zone"]) == (
            self.definition.time_zone_mode,
            self.definition.time_zone,
        )
        if is_same_clock and kept is not None and self._wall(kept) == wall:
            return kept
        if self.cleaned_data["mode"] == TimeZoneMode.USER_LOCAL:
            return wall.replace(tzinfo=UTC)
        try:
            return due_instant(wall, self.cleaned_data["time_zone"])
        except OverflowError:  # the first or last day that there is: the check refuses the year
            return wall.replace(tzinfo=UTC)

    def _cron(self, values: dict[str, Any]) -> str | None:
        repeat = values.get("repeat") or "day"
        if repeat == "cron":
            return values.get("cron")
        at = values.get("at")
        if at is None:
            return None
        clock = f"{at.minute} {at.hour}"
        if repeat == "week":
            days = ",".join(values.get("days", []))
            return f"{clock} * * {days}" if days else None
        if repeat == "month":
            return f"{clock} {values['day_of_month'] or 1} * *" if "day_of_month" in values else None
        return f"{clock} * * 1-5" if repeat == "workdays" else f"{clock} * * *"

    def add_problem(self, name: str, problem: Problem, pointer: str) -> None:
        """A problem of the time belongs to the part of it that is missing; of a preset to the preset's own field."""
        if name == "run_date" and ({"run_date", "run_time"} & self.errors.keys()):
            return
        if name == "cron":
            repeat = self.data.get("repeat", self.initial.get("repeat")) or "day"
            name = {"cron": "cron", "week": "days", "month": "day_of_month"}.get(repeat, "repeat")
            if {"at", "days", "day_of_month"} & self.errors.keys():
                return
        super().add_problem(name, problem, pointer)

    @property
    def gap_note(self) -> str:
        """Of a one-off: that the clock skips the time that was typed, and when it goes out then."""
        values = self.cleaned_data if self.is_bound and hasattr(self, "cleaned_data") else {}
        day, clock, name = values.get("run_date"), values.get("run_time"), values.get("time_zone")
        is_fixed_once = values.get("kind") == ScheduleType.ONCE and values.get("mode") == TimeZoneMode.FIXED
        if not (is_fixed_once and day and clock and name):
            return ""
        wall = datetime.combine(day, clock)
        local = due_instant(wall, name).astimezone(zone(name)).replace(tzinfo=None)
        if local == wall:
            return ""
        return _("The clock in %(zone)s skips %(typed)s on that day: it goes out at %(local)s.") % {
            "zone": name,
            "typed": f"{wall:%H:%M}",
            "local": f"{local:%H:%M}",
        }


def preset_of(cron: str) -> dict[str, Any]:
    """The preset that says the same as ``cron``; of an unusual one the advanced field."""
    usual = {"repeat": "day", "days": ["1"], "day_of_month": "1", "at": "09:00"}
    if not cron:
        return usual
    found = _TIME.fullmatch(cron)
    if found is None or int(found[1]) > 59 or int(found[2]) > 23:
        return {**usual, "repeat": "cron"}
    minute, hour, day, weekday = found.groups()
    usual["at"] = f"{int(hour):02}:{int(minute):02}"
    if day == "*" and weekday == "*":
        return usual
    if day == "*" and weekday == "1-5":
        return {**usual, "repeat": "workdays"}
    if day == "*" and _DAYS.fullmatch(weekday):
        return {**usual, "repeat": "week", "days": _iso_days(weekday)}
    if weekday == "*" and (day == "L" or (day.isdigit() and 1 <= int(day) <= 31)):
        return {**usual, "repeat": "month", "day_of_month": day.lstrip("0")}
    return {**usual, "repeat": "cron"}


def _iso_days(text: str) -> list[str]:
    days: set[int] = set()
    for part in text.split(","):
        first, _dash, last = part.partition("-")
        days |= {day % 7 or 7 for day in range(int(first), int(last or first) + 1)}
    return [str(day) for day in sorted(days)]


def _clock(wall: datetime | None) -> str | None:
    if wall is None:
        return None
    return f"{wall:%H:%M:%S}" if wall.second else f"{wall:%H:%M}"


@lru_cache(maxsize=4)
def _by_region(now: datetime) -> tuple[tuple[str, tuple[tuple[str, str], ...]], ...]:
    """Every zone under its continent, with its offset at ``now``."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in sorted(ZONE_NAMES):
        offset = now.astimezone(zone(name)).utcoffset() or timedelta(0)
        region = name.partition("/")[0] if "/" in name else "Etc"
        label = name.replace("_", " ")
        found.setdefault(region, []).append((name, label if name == "UTC" else f"{label} ({_offset(offset)})"))
    return tuple((region, tuple(names)) for region, names in found.items())


def _offset(offset: timedelta) -> str:
    minutes = int(offset.total_seconds()) // 60
    sign = "-" if minutes < 0 else "+"
    return f"UTC{sign}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"

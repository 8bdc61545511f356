"""The limits' form: how many messages a person may get, at which hours, and until when it is worth sending."""

from collections.abc import Mapping
from datetime import time
from typing import Any, ClassVar

from babel.dates import get_day_names
from django import forms
from django.utils.translation import gettext_lazy as _

from frontend.wizard.forms import Cards, StepForm
from frontend.wizard.when_form import ClockField, Days
from frontend.wording import timings
from schedules.definition import Definition
from schedules.recurrence import windows

_MINUTES: Mapping[str, int] = {"minutes": 1, "hours": 60, "days": 24 * 60}
_UNITS = [("minutes", _("minutes")), ("hours", _("hours")), ("days", _("days"))]


class LimitsForm(StepForm):
    covers = {
        "max_per_user_per_day": "max_per_user_per_day",
        "max_per_user_per_week": "max_per_user_per_week",
        "counts_toward_caps": "counts_toward_caps",
        "max_per_minute": "max_per_minute",
        "send_window": "window_days",
        "expires_after_minutes": "wait",
        "recheck_audience": "recheck_audience",
        "misfire_grace_minutes": "grace",
    }
    _PARTS: ClassVar = ("window_days", "window_from", "window_to")

    max_per_user_per_day = forms.IntegerField(
        label=_("In any 24 hours, at most"),
        required=False,
        min_value=1,
        error_messages={"min_value": _("Use 1 or more, or leave it empty for no limit.")},
    )
    max_per_user_per_week = forms.IntegerField(
        label=_("In any 7 days, at most"),
        required=False,
        min_value=1,
        error_messages={"min_value": _("Use 1 or more, or leave it empty for no limit.")},
    )
    counts_toward_caps = forms.BooleanField(
        label=_("These messages count"),
        required=False,
        help_text=_(
            "They use up the limits of other schedules too. Switch it off for what is none of their business,"
            " such as receipts."
        ),
    )
    max_per_minute = forms.IntegerField(
        label=_("People a minute, at most"),
        required=False,
        min_value=1,
        help_text=_("For what people do next, such as calling you. Empty: as fast as the provider takes them."),
        error_messages={"min_value": _("Use 1 or more, or leave it empty for no limit.")},
    )
    window_days = forms.MultipleChoiceField(label=_("On"), required=False, widget=Days)
    window_from = ClockField(label=_("From"), required=False)
    window_to = ClockField(label=_("Until"), required=False)
    wait = forms.IntegerField(
        label=_("Whom it could not reach in time gets nothing after"),
        required=False,
        min_value=1,
        error_messages={"min_value": _("Use 1 or more, or leave it empty.")},
    )
    wait_unit = forms.ChoiceField(label=_("Unit"), choices=_UNITS, required=False)
    recheck_audience = forms.ChoiceField(
        label=_("Ask again at the moment of sending whether a person still belongs to the audience"),
        choices=[("", _("Only where it goes out at each person's own hour")), ("yes", _("Always")), ("no", _("Never"))],
        required=False,
        widget=Cards(
            {
                "": _("Usual: such a run lasts for 26 hours, in which profiles change."),
                "yes": _("Whoever has left the audience since the run began is left out."),
                "no": _("Everybody who was found when the run began gets it."),
            }
        ),
    )
    grace = forms.IntegerField(label=_("Give up when it is late by more than"), min_value=0)
    grace_unit = forms.ChoiceField(label=_("Unit"), choices=_UNITS)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = get_day_names("abbreviated", locale=timings.locale())
        self.fields["window_days"].choices = [(day, names[number]) for number, day in enumerate(windows.DAYS)]  # type: ignore[attr-defined]

    def read(self, definition: Definition) -> dict[str, Any]:
        grace, grace_unit = _in_units(definition.misfire_grace_minutes)
        wait, wait_unit = _in_units(definition.expires_after_minutes)
        window = definition.send_window or {}
        return {
            "max_per_user_per_day": definition.max_per_user_per_day,
            "max_per_user_per_week": definition.max_per_user_per_week,
            "counts_toward_caps": definition.counts_toward_caps,
            "max_per_minute": definition.max_per_minute,
            "window_days": window.get("days", []),
            "window_from": window.get("from", ""),
            "window_to": str(window.get("to", "")).replace("24:00", "00:00"),
            "wait": wait,
            "wait_unit": wait_unit,
            "recheck_audience": {None: "", True: "yes", False: "no"}[definition.recheck_audience],
            "grace": grace,
            "grace_unit": grace_unit,
        }

    def clean(self) -> dict[str, Any]:
        """A window has all of its three parts, or none."""
        said = self.cleaned_data
        given = [name for name in self._PARTS if said.get(name) not in (None, "", [])]
        for name in self._PARTS if given else ():
            if name not in given and name not in self.errors:
                words = _("Tick a day at least.") if name == "window_days" else _("Write a time such as 09:00.")
                self.add_error(name, forms.ValidationError(words, code="required"))
        return said

    def changes(self) -> dict[str, Any]:
        found = super().changes()
        if "recheck_audience" in found:
            found["recheck_audience"] = {"yes": True, "no": False}.get(found["recheck_audience"])
        if {"grace", "grace_unit"} <= self.cleaned_data.keys():
            found["misfire_grace_minutes"] = self.cleaned_data["grace"] * _MINUTES[self.cleaned_data["grace_unit"]]
        if "wait" in self.cleaned_data:
            wait, unit = self.cleaned_data["wait"], self.cleaned_data.get("wait_unit") or "minutes"
            found["expires_after_minutes"] = wait * _MINUTES[unit] if wait else None
        if set(self._PARTS) <= self.cleaned_data.keys():
            found["send_window"] = self._window()
        return found

    def _window(self) -> Mapping[str, Any] | None:
        """As a definition has it; the one that stands, where it means the same."""
        days, begins, ends = (self.cleaned_data[name] for name in self._PARTS)
        if not days:
            return None
        said = {"days": [day for day in windows.DAYS if day in days], "from": _clock(begins), "to": _clock(ends)}
        standing = self.definition.send_window
        return standing if standing and windows.read(standing) == windows.read(said) else said


def _in_units(minutes: int | None) -> tuple[int | None, str]:
    """So many of the largest unit of which it is a whole number."""
    whole = [name for name, length in _MINUTES.items() if minutes and minutes % length == 0]
    unit = whole[-1] if whole else "minutes"
    return (None if minutes is None else minutes // _MINUTES[unit]), unit


def _clock(at: time) -> str:
    return f"{at:%H:%M}"

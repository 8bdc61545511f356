"""The schedule's form: reads a definition, calls one operation, says in its fields what was wrong."""

from dataclasses import fields
from typing import Any, ClassVar

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldBooleanSwitchWidget

from frontend.admin.json_field import IndentedJSON
from frontend.admin.problems import add_problems
from schedules import clock, operations
from schedules.definition import WIRE, Definition, InvalidDefinition
from schedules.models import Schedule
from schedules.occurrences import ApplyTo, Touched
from schedules.operations import NotAllowed, VersionConflict
from schedules.problems import Problem

# The form's name of each field on the wire.
FIELD_OF = {wire: "template" if name == "template_id" else name for name, wire in WIRE.items()}
FIELDS = list(FIELD_OF.values())

_LIMITS = {
    "max_per_user_per_day": "At most so many messages to one person in any 24 hours. Empty: no limit.",
    "max_per_user_per_week": "At most so many messages to one person in any 7 × 24 hours. Empty: no limit.",
    "counts_toward_caps": "Whether this schedule's messages use up the limits of others. Off for what must always"
    " arrive and be none of their business, such as receipts.",
}


class ScheduleForm(forms.ModelForm):  # type: ignore[type-arg]
    """``by`` is set by the admin, on the class it makes for each request. ``touched``: what an edit met."""

    by: ClassVar[str]
    touched: list[Touched]

    audience_query = IndentedJSON(
        initial={"all": []},
        help_text='Everyone: {"all": []}. Some: {"all": [{"field": "attributes.plan", "op": "eq", "value": "pro"}]}',
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 8}),
    )
    save_as_draft = forms.BooleanField(
        required=False,
        label="Save as draft",
        help_text="A draft never runs and may be incomplete. Activate it when it is whole.",
        widget=UnfoldBooleanSwitchWidget,
    )
    apply_to = forms.ChoiceField(
        choices=[
            (ApplyTo.NEXT, "Only runs that have not begun"),
            (ApplyTo.UNSENT, "Also everyone not yet sent to in a run that has begun"),
        ],
        required=False,
        label="Apply to",
        widget=UnfoldAdminSelectWidget,
    )
    expected_version = forms.IntegerField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Schedule
        fields = FIELDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.touched = []
        if "expected_version" in self.fields:
            self.fields["expected_version"].initial = self.instance.version
        if "template" in self.fields:
            self.fields["template"].required = False
        for name, words in _LIMITS.items():
            if name in self.fields:
                self.fields[name].help_text = words
        if "recheck_audience" in self.fields:
            self.fields["recheck_audience"].help_text = "Whether a person must still match when the message is sent."
            self.fields["recheck_audience"].widget.choices = [
                ("unknown", "At each recipient's local time yes, else no"),
                ("true", "Yes"),
                ("false", "No"),
            ]

    def _post_clean(self) -> None:
        """Where a model form would validate the model, the operation does, and writes."""
        if self.errors:
            return
        try:
            self.instance = self._operate()
        except InvalidDefinition as error:
            add_problems(self, [_in_form(problem) for problem in error.problems])
        except VersionConflict as error:
            self.add_error(
                None,
                f"Somebody else has changed this schedule meanwhile: it is at version {error.current} now."
                " Open it anew and repeat your change.",
            )
        except NotAllowed as error:
            self.add_error(None, f"{error} It can't be changed any more.")

    def _operate(self) -> Schedule:
        values = self._values()
        if self.instance.pk is None:
            draft = self.cleaned_data["save_as_draft"]
            return operations.create(definition=Definition(**values), by=self.by, now=clock.now(), draft=draft)
        edit = operations.update(
            schedule_id=self.instance.pk,
            changes=values,
            by=self.by,
            now=clock.now(),
            expected_version=self.cleaned_data.get("expected_version"),
            apply_to=ApplyTo(self.cleaned_data.get("apply_to") or ApplyTo.NEXT),
        )
        self.touched = edit.touched
        return edit.schedule

    def _values(self) -> dict[str, Any]:
        values = {name: self.cleaned_data[name] for name in FIELDS if name in self.cleaned_data}
        template = values.pop("template", None)
        values["template_id"] = template.pk if template else None
        known = {item.name for item in fields(Definition)}
        return {name: value for name, value in values.items() if name in known}

    def save(self, commit: bool = True) -> Schedule:
        """The operation has saved; there is nothing left to write."""
        self.save_m2m = lambda: None  # type: ignore[method-assign]
        saved: Schedule = self.instance
        return saved


def _in_form(problem: Problem) -> Problem:
    """The problem under the form's name of its field; inside the audience query the pointer says where."""
    wire, slash, pointer = problem.field.partition("/")
    message = f"At {slash}{pointer}: {problem.message}" if slash else problem.message
    return Problem(FIELD_OF.get(wire, wire), problem.code, message)

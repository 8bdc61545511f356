"""The stop switch, and the test clock to look at."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget

from delivery import continuity, restores
from frontend.admin.base import Admin, only
from frontend.admin.columns import maker, moment
from frontend.admin_site import site
from frontend.wording.sayings import translated
from frontend.wording.timings import how_long
from schedules import clock, stops
from schedules.models import Channel, StopSwitch, TestClock
from schedules.permissions import Ability

# Chosen where one schedule alone is meant; its number stands in the field beside it.
_SCHEDULE = "schedule"
_SCOPES = (
    ("", _("Choose…")),
    (StopSwitch.ALL, _("All sending")),
    *((f"channel:{channel.value}", channel.label) for channel in Channel),
    (_SCHEDULE, _("One schedule")),
)


class StopForm(forms.ModelForm):  # type: ignore[type-arg]
    """``by`` is set by the admin, on the class it makes for each request."""

    by: ClassVar[str]
    scope = forms.ChoiceField(label=_("What is stopped"), choices=_SCOPES, widget=UnfoldAdminSelectWidget)
    schedule = forms.IntegerField(
        label=_("Schedule number"),
        required=False,
        min_value=1,
        max_value=2**63 - 1,
        help_text=_("Of one schedule: it stands in the address of its page."),
        widget=UnfoldAdminIntegerFieldWidget,
    )

    class Meta:
        model = StopSwitch
        fields = ("scope", "reason")
        help_texts = {"reason": _("Everybody reads it on top of each page; it may be left empty.")}

    def clean(self) -> Any:
        data = super().clean() or {}
        if data.get("scope") == _SCHEDULE and not self.errors:
            if data.get("schedule") is None:
                raise forms.ValidationError({"schedule": _("Write the number of the schedule.")})
            data["scope"] = f"{_SCHEDULE}:{data['schedule']}"
        return data

    def _post_clean(self) -> None:
        """Once the model finds nothing wrong, the operation writes; what it refuses is said in the form."""
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        words = {name: self.cleaned_data[name] for name in ("scope", "reason")}
        try:
            self.instance = stops.stop_sending(**words, by=self.by, now=clock.now())
        except stops.NoSuchSchedule as error:
            self.add_error("schedule", translated(str(error)))
        except stops.InvalidReason as error:
            self.add_error("reason", translated(str(error)))

    def save(self, commit: bool = True) -> StopSwitch:
        """The operation has saved; there is nothing left to write."""
        self.save_m2m = lambda: None  # type: ignore[method-assign]
        saved: StopSwitch = self.instance
        return saved


@admin.register(StopSwitch, site=site)
class StopSwitchAdmin(Admin):
    add_ability = delete_ability = Ability.STOP_SENDING
    form = StopForm
    consequence = _("Sending goes on at once. What has become too late meanwhile expires, unless its wave had begun.")
    nothing = _("Nothing is stopped: whatever is due is sent.")
    list_display = ("what", "reason", "made_by", "since")
    search_fields = ("scope", "reason")
    ordering = ("scope",)
    since = moment("created_at", _("since"))
    made_by = maker

    @admin.display(description=_("what is stopped"), ordering="scope")
    def what(self, stop: StopSwitch) -> str:
        return str(stop)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["what", "reason", "made_by", "since"] if obj else ["scope", "schedule", "reason"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["what", "reason", "made_by", "since"] if obj else []

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.by = self.by(request)
        return form

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        words = {stop: _("The stop of “%(scope)s”") % {"scope": stop} for stop in objs}
        named, counts, lacking, _none = only(*words.values())
        return (
            named,
            counts,
            lacking,
            [str(words[stop]) for stop in objs if not self.has_delete_permission(request, stop)],
        )

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form's operation has saved."""

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What stops a restored database is let go by who has settled it, at the server."""
        if obj is not None and obj.scope == StopSwitch.ALL and continuity.restored():
            return False
        return bool(super().has_delete_permission(request, obj))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        restores.go(scope=obj.scope, by=self.by(request), now=clock.now())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[StopSwitch]) -> None:
        for stop in queryset:
            self.delete_model(request, stop)


@admin.register(TestClock, site=site)
class TestClockAdmin(Admin):
    """Moved by ``manage.py clock``, which does what is due on the way."""

    nothing = _("The clock shows the real time.")
    list_display = fields = readonly_fields = ("ahead",)
    list_display_links = None

    @admin.display(description=_("ahead by"))
    def ahead(self, kept: TestClock) -> str:
        return how_long(kept.shift.total_seconds())

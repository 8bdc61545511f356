"""The stop switch, and the test clock to look at."""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from frontend.admin.base import Admin, only
from frontend.admin.columns import moment
from frontend.admin_site import site
from frontend.wording.sayings import translated
from schedules import clock, stops
from schedules.models import Channel, StopSwitch, TestClock
from schedules.permissions import Ability


class StopForm(forms.ModelForm):  # type: ignore[type-arg]
    """``by`` is set by the admin, on the class it makes for each request."""

    by: ClassVar[str]

    class Meta:
        model = StopSwitch
        fields = ("scope", "reason")
        help_texts = {"scope": _("all, channel:email, channel:push, channel:in_app, or schedule:ID")}
        widgets = {"scope": UnfoldAdminTextInputWidget(attrs={"placeholder": "all"})}

    def clean_scope(self) -> str:
        scope = str(self.cleaned_data["scope"]).strip()
        kind, _colon, name = scope.partition(":")
        if scope == StopSwitch.ALL or (kind == "channel" and name in Channel.values):
            return scope
        if kind == "schedule" and name.isascii() and name.isdigit():
            return f"schedule:{int(name)}"
        raise forms.ValidationError(_("Write all, channel:email, channel:push, channel:in_app, or schedule:ID."))

    def _post_clean(self) -> None:
        """Once the model finds nothing wrong, the operation writes; what it refuses is said in the form."""
        super()._post_clean()  # type: ignore[misc]
        if self.errors:
            return
        words = {name: self.cleaned_data[name] for name in ("scope", "reason")}
        try:
            self.instance = stops.stop_sending(**words, by=self.by, now=clock.now())
        except (stops.InvalidScope, stops.NoSuchSchedule) as error:
            self.add_error("scope", translated(str(error)))
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
    list_display = ("scope", "reason", "created_by", "since")
    search_fields = ("scope", "reason")
    ordering = ("scope",)
    since = moment("created_at", _("since"))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["scope", "reason", "created_by", "since"] if obj else ["scope", "reason"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return ["scope", "reason", "created_by", "since"] if obj else []

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.by = self.by(request)
        return form

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        return only(*(_("The stop of “%(scope)s”") % {"scope": stop.scope} for stop in objs))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form's operation has saved."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        stops.go_sending(scope=obj.scope, by=self.by(request), now=clock.now())

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[StopSwitch]) -> None:
        for stop in queryset:
            self.delete_model(request, stop)


@admin.register(TestClock, site=site)
class TestClockAdmin(Admin):
    """Moved by ``manage.py clock``, which does what is due on the way."""

    list_display = ("shift",)
    fields = readonly_fields = ("shift",)

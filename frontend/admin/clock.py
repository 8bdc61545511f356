"""The clock's entries in django-celery-beat: what beat calls, and how often."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from audit import trail
from audit.models import Action
from frontend.access import actor
from frontend.admin.base import Admin
from frontend.admin.columns import moment, named
from frontend.admin_site import site
from frontend.wording import timings
from schedules import clock
from schedules.permissions import Ability

# What each entry does, by its task.
_DOES: Mapping[str, str | Promise] = {
    "delivery.tick": _("Opens the runs that are due, and hands out who is to be sent to."),
    "delivery.sweep": _("Takes up again what a process has left lying, and ends what is over."),
    "delivery.daily": _("Makes the ledger's coming days, drops those past their time, and takes over new zone data."),
    "delivery.accounts": _("Asks providers what their accounts allow."),
    "delivery.figures": _("Adds up what the dashboard shows."),
    "delivery.mirror_templates": _("Asks the template service what it has published, where there is one."),
    "delivery.seal_audit": _("Seals what the audit has noted."),
    "audit.export": _("Exports the audit's seals, where that is set up."),
    "frontend.tidy": _("Throws away expired tokens and spent keys."),
}
# Django knows no other way to name a library's model and its rows for the admin.
PeriodicTask._meta.verbose_name = _("entry of the clock")
PeriodicTask._meta.verbose_name_plural = _("entries of the clock")
PeriodicTask._meta.app_config.verbose_name = _("Clock")
PeriodicTask.__str__ = lambda entry: entry.name
IntervalSchedule.__str__ = lambda interval: timings.interval(interval.every, interval.period)


class EntryForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        labels: ClassVar[dict[str, Any]] = {
            "interval": _("How often"),
            "expire_seconds": _("Seconds until it expires"),
            "enabled": _("Switched on"),
        }
        help_texts: ClassVar[dict[str, Any]] = {
            "interval": "",
            "expire_seconds": _("A call that has waited longer is left out: the next one does its work."),
            "enabled": _("While it is off, what it does is left undone."),
        }


@admin.register(PeriodicTask, site=site)
class PeriodicTaskAdmin(Admin):
    """Entries come with the migrations: a schedule of ours never becomes one."""

    change_ability = Ability.MANAGE_CLOCK
    form = EntryForm
    list_select_related = ("interval",)
    list_display = ("name", "does", "how_often", "is_on", "last_run", "calls")
    list_filter = ("enabled",)
    search_fields = ("name", "task")
    ordering = ("name",)
    fields = ("called", "does", "of_queue", "interval", "expire_seconds", "enabled", "last_run", "calls")
    readonly_fields = ("called", "does", "of_queue", "last_run", "calls")
    called = named("name", _("Name"))
    of_queue = named("queue", _("queue"))
    last_run = moment("last_run_at", _("last call"))
    calls = named("total_run_count", _("calls so far"))

    @admin.display(description=_("what it does"))
    def does(self, entry: Any) -> str:
        return str(_DOES.get(entry.task, entry.task))

    @admin.display(description=_("How often"), ordering="interval")
    def how_often(self, entry: Any) -> str:
        return str(entry.interval or "—")

    @admin.display(description=_("Switched on"), ordering="enabled", boolean=True)
    def is_on(self, entry: Any) -> bool:
        return bool(entry.enabled)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        before = _of(PeriodicTask.objects.get(pk=obj.pk))
        super().save_model(request, obj, form, change)
        if changes := trail.diff(before, _of(obj)):
            _record(request, Action.CLOCK_UPDATE, {"entry": obj.name, **changes})


def _of(entry: Any) -> dict[str, Any]:
    """What an admin may change of it."""
    return {"interval": _kept(entry.interval), "expire_seconds": entry.expire_seconds, "enabled": entry.enabled}


def _kept(interval: Any) -> str:
    """In English, whoever changes it."""
    return f"every {interval.every} {interval.period}" if interval else ""


def _record(request: HttpRequest, action: Action, changes: dict[str, Any]) -> None:
    trail.record(action=action, by=actor(request.user), now=clock.now(), changes=changes)


@admin.register(IntervalSchedule, site=site)
class IntervalScheduleAdmin(Admin):
    add_ability = Ability.MANAGE_CLOCK
    list_display = ("__str__",)
    list_display_links = None
    search_fields = ("every", "period")
    fields = ("every", "period")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        _record(request, Action.CLOCK_CREATE, {"interval": [None, _kept(obj)]})

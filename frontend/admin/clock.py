"""The clock's entries in django-celery-beat: what beat calls, and how often."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule

from audit import trail
from audit.models import Action
from frontend.access import actor
from frontend.admin.base import Admin
from frontend.admin.columns import moment
from frontend.admin_site import site
from schedules import clock
from schedules.permissions import Ability


@admin.register(PeriodicTask, site=site)
class PeriodicTaskAdmin(Admin):
    """Entries come with the migrations: a schedule of ours never becomes one."""

    change_ability = Ability.MANAGE_CLOCK
    list_display = ("name", "task", "interval", "enabled", "last_run", "total_run_count")
    list_filter = ("enabled",)
    search_fields = ("name", "task")
    ordering = ("name",)
    fields = ("name", "task", "queue", "interval", "expire_seconds", "enabled", "last_run", "total_run_count")
    readonly_fields = ("name", "task", "queue", "last_run", "total_run_count")
    last_run = moment("last_run_at", _("last run"))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        before = _of(PeriodicTask.objects.get(pk=obj.pk))
        super().save_model(request, obj, form, change)
        if changes := trail.diff(before, _of(obj)):
            _record(request, Action.CLOCK_UPDATE, {"entry": obj.name, **changes})


def _of(entry: Any) -> dict[str, Any]:
    """What an admin may change of it."""
    return {"interval": str(entry.interval), "expire_seconds": entry.expire_seconds, "enabled": entry.enabled}


def _record(request: HttpRequest, action: Action, changes: dict[str, Any]) -> None:
    trail.record(action=action, by=actor(request.user), now=clock.now(), changes=changes)


@admin.register(IntervalSchedule, site=site)
class IntervalScheduleAdmin(Admin):
    add_ability = Ability.MANAGE_CLOCK
    list_display = ("__str__", "every", "period")
    search_fields = ("every", "period")
    fields = ("every", "period")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        _record(request, Action.CLOCK_CREATE, {"interval": [None, str(obj)]})


class _Unused(Admin):
    """Other kinds of entries that beat knows and this service never makes; no menu leads there."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return False


site.register([CrontabSchedule, SolarSchedule, ClockedSchedule], _Unused)

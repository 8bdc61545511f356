"""The clock's entries in django-celery-beat: what beat calls, and how often."""

from django.contrib import admin
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule

from frontend.admin.base import Admin
from frontend.admin.columns import moment
from frontend.admin_site import site
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
    last_run = moment("last_run_at")


@admin.register(IntervalSchedule, site=site)
class IntervalScheduleAdmin(Admin):
    add_ability = Ability.MANAGE_CLOCK
    list_display = ("__str__", "every", "period")
    search_fields = ("every", "period")
    fields = ("every", "period")


class _Unused(Admin):
    """Other kinds of entries that beat knows and this service never makes."""


site.register([CrontabSchedule, SolarSchedule, ClockedSchedule], _Unused)

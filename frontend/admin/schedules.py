"""Schedules, their versions: every change goes through ``schedules.operations``."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

from frontend import notices
from frontend.admin.base import Admin, only
from frontend.admin.columns import as_json, badge, moment
from frontend.admin.schedule_form import ScheduleForm
from frontend.admin_site import site
from frontend.instants import show
from schedules import clock, operations
from schedules.definition import Definition, InvalidDefinition
from schedules.models import Schedule, ScheduleStatus, ScheduleVersion, TimeZoneMode
from schedules.occurrences import Effect, Touched, upcoming
from schedules.operations import NotAllowed
from schedules.permissions import Ability
from schedules.recurrence import InvalidTiming, describe

_S = ScheduleStatus
_EDITABLE = {_S.DRAFT, _S.ACTIVE, _S.PAUSED, _S.BROKEN}
# verb: (operation, what it says, from which states a button offers it)
TRANSITIONS: dict[str, tuple[Callable[..., Schedule], str, set[ScheduleStatus]]] = {
    "activate": (operations.activate, "Activate", {_S.DRAFT, _S.BROKEN}),
    "pause": (operations.pause, "Pause", {_S.ACTIVE}),
    "resume": (operations.resume, "Resume", {_S.PAUSED}),
    "cancel": (operations.cancel, "Cancel", _EDITABLE),
}
STATUS_COLOURS = {
    "active": "success",
    "paused": "warning",
    "draft": "info",
    "broken": "danger",
    "cancelled": "danger",
}
_EFFECTS = {
    Effect.UNTOUCHED: "has begun and ends as it began",
    Effect.REPINNED: "follows the edit",
    Effect.REMATERIALISED: "finds its recipients anew",
    Effect.RETIMED: "keeps its people at their new time",
    Effect.POSTPONED: "waits for its new time",
    Effect.CANCELLED: "is cancelled: the new cron no longer names it",
}
_RUNS_SHOWN = 5


def sentence(schedule: Schedule) -> str:
    """The timing in words; of an unfinished draft “—”."""
    try:
        return describe(Definition.of(schedule).timing())
    except (InvalidTiming, ValueError):
        return "—"


def next_runs_of(schedule: Schedule) -> list[str]:
    """When it runs next, in its zone; in user-local mode the wall time."""
    try:
        firings = upcoming(schedule, now=clock.now(), count=_RUNS_SHOWN)
    except (InvalidTiming, ValueError):
        return []
    if schedule.time_zone_mode == TimeZoneMode.USER_LOCAL:
        return [f"{firing.occurrence_at:%Y-%m-%d %H:%M:%S} on each recipient's own clock" for firing in firings]
    return [show(firing.occurrence_at, schedule.time_zone) for firing in firings]


@admin.register(Schedule, site=site)
class ScheduleAdmin(Admin):
    add_ability = change_ability = delete_ability = Ability.EDIT_SCHEDULES
    form = ScheduleForm
    consequence = (
        "The schedule and what of it is open are cancelled, and it leaves every list. What was sent stays sent:"
        " ledger and audit keep what they know. There is no way back."
    )
    change_form_outer_before_template = "frontend/schedule_summary.html"
    list_display = ("name", "status_label", "channel", "timing", "next_run", "template", "version")
    list_filter = ("status", "channel", "schedule_type", "time_zone_mode")
    list_select_related = ("template",)
    search_fields = ("name", "=id")
    search_help_text = "Name or id"
    autocomplete_fields = ("template",)
    ordering = ("-id",)
    actions = ("pause_selected", "resume_selected", "cancel_selected", "delete_chosen")
    conditional_fields = {
        "run_at": "schedule_type != 'cron'",
        "cron": "schedule_type != 'once'",
        "start_at": "schedule_type != 'once'",
        "end_at": "schedule_type != 'once'",
        "max_runs": "schedule_type != 'once'",
        "on_past": "time_zone_mode != 'fixed'",
    }

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [
            (None, {"fields": ["name", "channel", "template"]}),
            ("To whom", {"fields": ["audience_query"]}),
            (
                "When",
                {
                    "fields": [
                        "schedule_type",
                        "time_zone_mode",
                        "run_at",
                        "cron",
                        "time_zone",
                        "start_at",
                        "end_at",
                        "max_runs",
                    ],
                    "description": "Times are UTC. At a recipient's local time, they are read off that person's clock.",
                },
            ),
            (
                "Within which limits",
                {
                    "fields": ["max_per_user_per_day", "max_per_user_per_week", "counts_toward_caps"],
                    "description": "The windows roll: whoever has got so many messages in the 24 hours or 7 days before"
                    " is left out of this run. Counted are all schedules and channels whose messages count.",
                },
            ),
            ("When late", {"fields": ["misfire_grace_minutes", "on_past", "recheck_audience"]}),
            ("Save", {"fields": self._how_to_save(request, obj)}),
        ]

    def _how_to_save(self, request: HttpRequest, obj: Any) -> list[str]:
        if obj is None:
            return ["save_as_draft"]
        return ["apply_to", "expected_version"] if self.has_change_permission(request, obj) else ["version"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [] if obj is None or self.has_change_permission(request, obj) else ["version"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.by = self.by(request)
        return form

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        return super().get_queryset(request).live()  # type: ignore[no-any-return]

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        allowed = super().has_change_permission(request, obj)
        return allowed and (not isinstance(obj, Schedule) or obj.status in _EDITABLE)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        return only(*objs)

    @badge(description="status", ordering="status", colours=STATUS_COLOURS)
    def status_label(self, schedule: Schedule) -> str:
        return schedule.status

    @admin.display(description="when")
    def timing(self, schedule: Schedule) -> str:
        return sentence(schedule)

    @admin.display(description="next run", ordering="next_run_at")
    def next_run(self, schedule: Schedule) -> str:
        if schedule.time_zone_mode == TimeZoneMode.USER_LOCAL:
            return f"from {show(schedule.next_run_at)}" if schedule.next_run_at else "—"
        return show(schedule.next_run_at, schedule.time_zone)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """The form's operation has saved; what it did to open runs is said here."""
        for touched in form.touched:
            messages.info(request, _effect(touched))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        operations.delete(schedule_id=obj.pk, by=self.by(request), now=clock.now())

    def get_actions(self, request: HttpRequest) -> Any:
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    @admin.action(description="Pause", permissions=["change"])
    def pause_selected(self, request: HttpRequest, chosen: QuerySet[Schedule]) -> None:
        self._each(request, chosen, operations.pause, "paused")

    @admin.action(description="Resume", permissions=["change"])
    def resume_selected(self, request: HttpRequest, chosen: QuerySet[Schedule]) -> None:
        self._each(request, chosen, operations.resume, "resumed")

    @admin.action(description="Cancel: end the schedule and what of it is open", permissions=["change"])
    def cancel_selected(self, request: HttpRequest, chosen: QuerySet[Schedule]) -> None:
        self._each(request, chosen, operations.cancel, "cancelled")

    @admin.action(description="Delete", permissions=["delete"])
    def delete_chosen(self, request: HttpRequest, chosen: QuerySet[Schedule]) -> None:
        self._each(request, chosen, operations.delete, "deleted")

    def _each(
        self, request: HttpRequest, chosen: QuerySet[Schedule], operation: Callable[..., Schedule], done: str
    ) -> None:
        """One operation per schedule: what can't be done is said and keeps nobody else from it."""
        count = 0
        for schedule in chosen:
            try:
                operation(schedule_id=schedule.pk, by=self.by(request), now=clock.now())
                count += 1
            except NotAllowed as error:
                messages.error(request, f"{schedule.name}: {error}")
        if count:
            messages.success(request, f"{count} {'schedule' if count == 1 else 'schedules'} {done}.")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.transition))
        own = [path("<int:schedule_id>/do/<slug:verb>/", view, name="schedules_schedule_transition")]
        return own + list(super().get_urls())

    def transition(self, request: HttpRequest, schedule_id: int, verb: str) -> HttpResponse:
        """A button of the schedule's page."""
        schedule = self.get_object(request, str(schedule_id))
        page = reverse("admin:schedules_schedule_change", args=[schedule_id])
        if schedule is None or verb not in TRANSITIONS:
            return self._get_obj_does_not_exist_redirect(request, self.opts, str(schedule_id))  # type: ignore[no-any-return]
        if not Admin.has_change_permission(self, request):
            return HttpResponse("Your role may not change schedules.", status=403)
        operation, _, _ = TRANSITIONS[verb]
        try:
            schedule = operation(schedule_id=schedule_id, by=self.by(request), now=clock.now())
        except InvalidDefinition as error:
            for problem in error.problems:
                messages.error(request, f"{problem.field}: {problem.message}")
        except NotAllowed as error:
            messages.error(request, str(error))
        else:
            messages.success(request, f"The schedule is {schedule.status}.")
        return HttpResponseRedirect(page)

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        schedule = kwargs.get("obj")
        if schedule is not None and schedule.pk:
            may = Admin.has_change_permission(self, request)
            buttons = [(verb, label) for verb, (_, label, states) in TRANSITIONS.items() if schedule.status in states]
            context["summary"] = {
                "sentence": sentence(schedule),
                "next_runs": next_runs_of(schedule) if schedule.status in _EDITABLE else [],
                "buttons": buttons if may else [],
                "held": notices.held(schedule_id=schedule.pk),
                "colour": STATUS_COLOURS.get(schedule.status, ""),
            }
        return super().render_change_form(request, context, *args, **kwargs)  # type: ignore[no-any-return]


def _effect(touched: Touched) -> SafeString:
    link = reverse("occurrence", args=[touched.occurrence_id])
    return format_html('<a href="{}">Run {}</a> {}.', link, touched.occurrence_id, _EFFECTS[Effect(touched.effect)])


@admin.register(ScheduleVersion, site=site)
class ScheduleVersionAdmin(Admin):
    list_display = ("schedule", "version", "created_by", "created")
    list_select_related = ("schedule",)
    search_fields = ("=schedule__id",)
    search_help_text = "Schedule id"
    ordering = ("-id",)
    fields = ("schedule", "version", "created_by", "created", "definition_json")
    readonly_fields = fields
    created = moment("created_at")
    definition_json = as_json("definition")

"""Occurrences and batches, to look at: tick, claims and sweep write them."""

from typing import Any

from django.contrib import admin
from django.db.models import F, IntegerField, OuterRef, QuerySet, Subquery, Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from delivery.models import Batch, State
from frontend.admin.base import Admin
from frontend.admin.columns import badge, moment
from frontend.admin_site import site
from frontend.wording import STATES
from schedules.models import Occurrence

_COLOURS = {
    "running": "info",
    "materialising": "info",
    "finished": "success",
    "missed": "danger",
    "cancelled": "warning",
    "held": "danger",
}


def _summed(*names: str) -> Subquery:
    """The sum of counters over an occurrence's batches; empty where it has none."""
    total = sum((F(name) for name in names[1:]), start=F(names[0]))
    batches = Batch.objects.filter(occurrence=OuterRef("pk")).order_by().values("occurrence")
    return Subquery(batches.annotate(total=Sum(total)).values("total"), output_field=IntegerField())


@admin.register(Occurrence, site=site)
class OccurrenceAdmin(Admin):
    list_display = ("at", "schedule", "state_label", "targeted", "sent", "still_open", "books")
    list_filter = ("state",)
    list_select_related = ("schedule",)
    search_fields = ("=id", "=schedule__id", "schedule__name__startswith")
    search_help_text = "Run id, schedule id, or how the schedule's name begins"
    ordering = ("-occurrence_at", "-id")
    fields = (
        "books",
        "schedule",
        "at",
        "state",
        "reason",
        "version",
        "template_version",
        "opens",
        "ends",
        "targeted",
        "cursor",
        "opened",
        "materialised",
        "begun",
        "closed",
        "held",
        "held_reason",
        "released",
    )
    readonly_fields = fields

    at = moment("occurrence_at", "at")
    opens = moment("opens_at")
    ends = moment("ends_at")
    opened = moment("opened_at")
    materialised = moment("materialised_at")
    begun = moment("begun_at")
    closed = moment("closed_at")
    held = moment("held_at")
    released = moment("released_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        annotated: QuerySet[Any] = rows.annotate(
            sent_sum=_summed("sent"), open_sum=_summed("pending", "sending", "unknown")
        )
        return annotated

    @badge(description="state", ordering="state", colours=_COLOURS)
    def state_label(self, occurrence: Occurrence) -> str:
        return "held" if occurrence.held_reason else occurrence.state

    @admin.display(description="sent")
    def sent(self, occurrence: Any) -> int:
        return occurrence.sent_sum or 0

    @admin.display(description="open")
    def still_open(self, occurrence: Any) -> int:
        return occurrence.open_sum or 0

    @admin.display(description="books")
    def books(self, occurrence: Occurrence) -> SafeString:
        return format_html(
            '<a class="ns-link" href="{}">Books and waves</a>', reverse("occurrence", args=[occurrence.pk])
        )


@admin.register(Batch, site=site)
class BatchAdmin(Admin):
    list_display = ("id", "occurrence_link", "channel", "wave", "size", "next_due", "queued", "outcomes")
    list_filter = ("channel",)
    search_fields = ("=id", "=occurrence__id")
    search_help_text = "Batch id or run id"
    ordering = ("-id",)
    fields = (
        "occurrence_link",
        "day",
        "channel",
        "wave",
        "size",
        *(state.label for state in State),
        "next_due",
        "queued",
        "lease",
        "started",
    )
    readonly_fields = fields

    wave = moment("wave_at")
    next_due = moment("next_due_at")
    queued = moment("queued_at", "queued (real time)")
    lease = moment("lease_until", "lease until (real time)")
    started = moment("started_at")

    @admin.display(description="run", ordering="occurrence")
    def occurrence_link(self, batch: Batch) -> SafeString:
        link = reverse("occurrence", args=[batch.occurrence_id])
        return format_html('<a class="ns-link" href="{}">{}</a>', link, batch.occurrence_id)

    @admin.display(description="counters")
    def outcomes(self, batch: Batch) -> str:
        counts = ((STATES[state], getattr(batch, state.label)) for state in State)
        return ", ".join(f"{count} {name}" for name, count in counts if count)

"""Batches, for who looks into how a run is sent: claims and sweep write them."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from delivery.models import Batch, State
from frontend.admin.base import Admin
from frontend.admin.columns import linked, moment
from frontend.admin_site import site
from frontend.wording import STATES


@admin.register(Batch, site=site)
class BatchAdmin(Admin):
    list_display = ("id", "run", "channel", "wave", "size", "next_due", "queued", "outcomes")
    list_filter = ("channel",)
    search_fields = ("=id", "=occurrence__id")
    search_help_text = _("Batch id or run id")
    ordering = ("-id",)
    fields = (
        "run",
        "of_day",
        "channel",
        "wave",
        "size",
        "outcomes",
        "next_due",
        "queued",
        "lease",
        "started",
    )
    readonly_fields = fields

    run = linked("occurrence", "occurrence_id", _("run"))
    wave = moment("wave_at", _("due"))
    next_due = moment("next_due_at", _("next try"))
    queued = moment("queued_at", _("queued (real time)"))
    lease = moment("lease_until", _("lease until (real time)"))
    started = moment("started_at", _("started"))

    @admin.display(description=_("day"))
    def of_day(self, batch: Batch) -> str:
        return batch.day.isoformat()

    @admin.display(description=_("people by outcome"))
    def outcomes(self, batch: Batch) -> str:
        counts = ((STATES[state], getattr(batch, state.label)) for state in State)
        return ", ".join(f"{count} {name}" for name, count in counts if count)

"""Signs of the service's own health, to look at: open circuits, heartbeats, counters."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from delivery.models import Circuit, Count, Heartbeat
from frontend.admin.base import Admin
from frontend.admin.columns import moment
from frontend.admin_site import site
from frontend.wording import reason


@admin.register(Circuit, site=site)
class CircuitAdmin(Admin):
    """Closed by a probe that the provider takes, and by nobody else."""

    nothing = _("No provider refuses its messages.")
    list_display = ("channel", "why", "opened", "next_try", "openings")
    fields = ("channel", "why", "detail", "opened", "next_try", "openings")
    readonly_fields = fields
    opened = moment("opened_at", _("open since"))
    next_try = moment("probe_at", _("next try (real time)"))

    @admin.display(description=_("why"))
    def why(self, circuit: Circuit) -> str:
        return reason(circuit.reason)


@admin.register(Heartbeat, site=site)
class HeartbeatAdmin(Admin):
    list_display = fields = readonly_fields = ("name", "seen")
    ordering = ("name",)
    seen = moment("seen_at", _("seen (real time)"))


@admin.register(Count, site=site)
class CountAdmin(Admin):
    """Shares of the counters at /metrics."""

    list_display = fields = readonly_fields = ("name", "channel", "label", "slot", "value")
    search_fields = ("name__startswith",)
    ordering = ("name", "channel", "label", "slot")

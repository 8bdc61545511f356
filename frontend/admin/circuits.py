"""Providers that refuse the account, to look at."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from delivery.models import Circuit
from frontend.admin.base import Admin
from frontend.admin.columns import moment
from frontend.admin_site import site
from frontend.wording import reason


@admin.register(Circuit, site=site)
class CircuitAdmin(Admin):
    """Closed by a probe that the provider takes, and by nobody else."""

    nothing = _("No provider refuses its messages.")
    list_display = ("whose", "why", "opened", "next_try", "openings")
    fields = ("whose", "why", "detail", "opened", "next_try", "openings")
    readonly_fields = fields
    opened = moment("opened_at", _("open since"))
    next_try = moment("probe_at", _("next try (real time)"))

    @admin.display(description=_("what waits"), ordering="scope")
    def whose(self, circuit: Circuit) -> str:
        return str(circuit)

    @admin.display(description=_("why"))
    def why(self, circuit: Circuit) -> str:
        return reason(circuit.reason)

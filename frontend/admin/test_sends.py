"""Test sends, to look at."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from delivery.models import TestSend
from frontend.admin.base import Admin
from frontend.admin.columns import linked, maker, moment
from frontend.admin_site import site
from frontend.wording import reason

_STATES = {
    TestSend.State.WAITING: _("waits"),
    TestSend.State.SENDING: _("being sent"),
    TestSend.State.SENT: _("sent"),
    TestSend.State.FAILED: _("failed"),
    TestSend.State.UNANSWERED: _("unanswered"),
}


@admin.register(TestSend, site=site)
class TestSendAdmin(Admin):
    """Without the address that got it: analysts read this list too."""

    nothing = _("No test was sent yet.")
    list_display = ("id", "schedule", "recipient", "channel", "became", "why", "made_by", "created")
    search_fields = ("=schedule_id",)
    search_help_text = _("Schedule id")
    ordering = ("-id",)
    fields = (*list_display, "locale", "subject", "detail", "provider_id", "settled")
    readonly_fields = fields
    schedule = linked("schedule", "schedule_id", _("schedule"))
    recipient = linked("recipient", "recipient_id", _("recipient"))
    made_by = maker
    created = moment("created_at", _("made"))
    settled = moment("settled_at", _("settled"))

    @admin.display(description=_("state"), ordering="state")
    def became(self, test: TestSend) -> str:
        return str(_STATES[TestSend.State(test.state)])

    @admin.display(description=_("reason"))
    def why(self, test: TestSend) -> str:
        return reason(test.reason) if test.reason else "—"

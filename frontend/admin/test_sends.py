"""Test sends, to look at."""

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from delivery.models import TestSend
from frontend.admin.base import Admin
from frontend.admin.columns import moment
from frontend.admin_site import site


@admin.register(TestSend, site=site)
class TestSendAdmin(Admin):
    """Without the address that got it: analysts read this list too."""

    list_display = ("id", "schedule_id", "recipient_id", "channel", "state", "reason", "created_by", "created")
    search_fields = ("=schedule_id",)
    search_help_text = _("Schedule id")
    ordering = ("-id",)
    fields = (*list_display, "locale", "subject", "detail", "provider_id", "settled")
    readonly_fields = fields
    created = moment("created_at")
    settled = moment("settled_at")

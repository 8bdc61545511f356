"""Inbox, outbox and test sends, to look at. The pages below /inbox/ and /outbox/ show the messages themselves."""

from typing import Any

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from delivery.models import InboxMessage, OutboxMessage, TestSend
from frontend.admin.base import Admin
from frontend.admin.columns import moment
from frontend.admin_site import site


class _Messages(Admin):
    """``page`` names the page that shows one."""

    page = ""
    list_select_related = ("recipient",)
    search_fields = ("recipient__external_id__startswith",)
    search_help_text = "How the recipient's external id begins"
    ordering = ("-id",)
    created = moment("created_at")

    @admin.display(description="message")
    def look(self, message: Any) -> SafeString:
        return format_html('<a class="ns-link" href="{}">Open</a>', reverse(self.page, args=[message.pk]))


@admin.register(InboxMessage, site=site)
class InboxMessageAdmin(_Messages):
    page = "inbox-message"
    list_display = ("title", "recipient", "occurrence_id", "created", "read", "look")
    fields = ("look", "recipient", "occurrence_id", "title", "body", "created", "read", "archived")
    readonly_fields = fields
    read = moment("read_at")
    archived = moment("archived_at")


@admin.register(OutboxMessage, site=site)
class OutboxMessageAdmin(_Messages):
    page = "outbox-message"
    list_display = ("__str__", "recipient", "occurrence_id", "created", "look")
    fields = ("look", "recipient", "occurrence_id", "subject", "text", "created")
    readonly_fields = fields


@admin.register(TestSend, site=site)
class TestSendAdmin(Admin):
    """Without the address that got it: analysts read this list too."""

    list_display = ("id", "schedule_id", "recipient_id", "channel", "state", "reason", "created_by", "created")
    search_fields = ("=schedule_id",)
    search_help_text = "Schedule id"
    ordering = ("-id",)
    fields = (*list_display, "locale", "subject", "detail", "provider_id", "settled")
    readonly_fields = fields
    created = moment("created_at")
    settled = moment("settled_at")

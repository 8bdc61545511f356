"""What happened, to read."""

import json
from typing import Any

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from audit.models import Action, AuditEvent
from frontend.admin.base import Admin
from frontend.admin.columns import moment
from frontend.admin_site import site


class ActionFilter(admin.SimpleListFilter):
    """The closed vocabulary: no look into the table."""

    title = "action"
    parameter_name = "action"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(action.value, action.value) for action in Action]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(action=self.value()) if self.value() else queryset


@admin.register(AuditEvent, site=site)
class AuditEventAdmin(Admin):
    list_display = ("created", "action", "actor_id", "schedule_id", "what_changed")
    list_filter = (ActionFilter,)
    search_fields = ("=schedule_id", "=actor_id", "=request_id")
    search_help_text = "Schedule id, actor (user:3) or request id"
    ordering = ("-id",)
    fields = ("created", "action", "actor_id", "schedule_id", "request_id", "difference")
    readonly_fields = fields
    created = moment("created_at", "at")

    @admin.display(description="changed")
    def what_changed(self, event: AuditEvent) -> str:
        return ", ".join(event.payload_diff) or "—"

    @admin.display(description="difference")
    def difference(self, event: AuditEvent) -> SafeString:
        rows = format_html_join(
            "", "<tr><th>{}</th><td>{}</td><td>{}</td></tr>", (_row(*item) for item in event.payload_diff.items())
        )
        head = mark_safe("<tr><th>field</th><th>before</th><th>after</th></tr>")
        return format_html('<table class="ns-diff">{}{}</table>', head, rows) if event.payload_diff else _shown(None)


def _row(field: str, value: Any) -> tuple[str, SafeString, SafeString]:
    """A difference is [before, after]; a plain value, such as which template it was, has no before."""
    before, after = value if isinstance(value, list) and len(value) == 2 else (None, value)
    return field, _shown(before), _shown(after)


def _shown(value: Any) -> SafeString:
    if value is None or value == "":
        return format_html("<span>{}</span>", "—" if value is None else "empty")
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    return format_html("<pre>{}</pre>", text)

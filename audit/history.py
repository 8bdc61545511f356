"""What happened, to be asked."""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import QuerySet

from audit.models import AuditEvent


@dataclass(frozen=True)
class Filters:
    """Whatever is empty is not asked about. ``until`` is not included.

    ``actor`` is as the events have it, or a kind of actors (``system``); ``request_id`` is one or how one begins.
    """

    actor: str = ""
    action: str = ""
    schedule_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    request_id: str = ""


def events(filters: Filters) -> QuerySet[AuditEvent]:
    """The events that fit, in no order: whoever reads them takes the latest ids first, by an index each."""
    found = AuditEvent.objects.order_by()
    if filters.actor:
        is_kind = ":" not in filters.actor
        found = (
            found.filter(actor_id__startswith=f"{filters.actor}:") if is_kind else found.filter(actor_id=filters.actor)
        )
    if filters.action:
        found = found.filter(action=filters.action)
    if filters.schedule_id is not None:
        found = found.filter(schedule_id=filters.schedule_id)
    if filters.since:
        found = found.filter(created_at__gte=filters.since)
    if filters.until:
        found = found.filter(created_at__lt=filters.until)
    if filters.request_id:
        found = found.exclude(request_id="").filter(request_id__startswith=filters.request_id)  # as its index says
    return found

"""The only writer of ``notification_audit``."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from audit.models import Action, AuditEvent


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The fields whose value changed: ``{field: [before, after]}``; an absent field counts as ``None``."""
    fields = sorted({*before, *after})
    return {name: [before.get(name), after.get(name)] for name in fields if before.get(name) != after.get(name)}


def record(
    *,
    action: Action,
    by: str,
    now: datetime,
    schedule_id: int | None = None,
    changes: Mapping[str, Any] | None = None,
    request_id: str = "",
) -> AuditEvent:
    """Write one event in the caller's transaction, so that the change and its trace are kept or lost together.

    ``by`` is the actor: ``user:ID``, ``client:ID`` or ``system:NAME``. ``changes`` is JSON-ready, usually ``diff()``.
    """
    return AuditEvent.objects.create(
        action=action,
        actor_id=by,
        schedule_id=schedule_id,
        payload_diff=dict(changes or {}),
        request_id=request_id,
        created_at=now,
    )

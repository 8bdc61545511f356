"""The only writer of ``notification_audit``."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from audit.models import Action, AuditEvent

# Not an argument of every operation: it changes nothing that is done, it only says where the wish came from.
_request_id: ContextVar[str] = ContextVar("request_id", default="")


@contextmanager
def of_request(request_id: str) -> Iterator[None]:
    """Events recorded inside carry ``request_id``, at most 100 characters."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def request_id() -> str:
    """The request that is being answered; empty outside one."""
    return _request_id.get()


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
) -> AuditEvent:
    """Write one event in the caller's transaction, so that the change and its trace are kept or lost together.

    ``by`` is the actor: ``user:ID``, ``client:ID`` or ``system:NAME``. ``changes`` is JSON-ready, usually ``diff()``.
    """
    return AuditEvent.objects.create(
        action=action,
        actor_id=by,
        schedule_id=schedule_id,
        payload_diff=dict(changes or {}),
        request_id=request_id(),
        created_at=now,
    )

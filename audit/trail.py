"""The only writer of ``notification_audit``."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model

from audit.models import Action, AuditEvent

_LABEL_LENGTH = 200


@dataclass(frozen=True)
class _Request:
    request_id: str = ""
    correlation_id: str = ""
    # Names of the actors that the request's doors have let in.
    labels: dict[str, str] = field(default_factory=dict)


# Not arguments of every operation: they change nothing that is done, they only say where the wish came from.
_request: ContextVar[_Request | None] = ContextVar("request", default=None)


@contextmanager
def of_request(request_id: str, *, correlation_id: str = "") -> Iterator[None]:
    """Events recorded inside carry both ids, at most 100 characters each; the second is the first if none is given."""
    token = _request.set(_Request(request_id, correlation_id or request_id))
    try:
        yield
    finally:
        _request.reset(token)


def request_id() -> str:
    """The request that is being answered; empty outside one."""
    request = _request.get()
    return request.request_id if request else ""


def introduce(actor: str, label: str) -> None:
    """Events of this request by ``actor`` carry ``label``, so that his name need not be looked up for each."""
    if request := _request.get():
        request.labels[actor] = label


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The fields whose value changed: ``{field: [before, after]}``; an absent field counts as ``None``."""
    fields = sorted({*before, *after})
    return {name: [before.get(name), after.get(name)] for name in fields if before.get(name) != after.get(name)}


@dataclass(frozen=True)
class Entry:
    """What one of many events is about."""

    schedule_id: int | None
    changes: Mapping[str, Any]


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
    A recipient stands in them by the surrogate id alone, and nothing that tells who he is.
    """
    return record_many(action=action, by=by, now=now, entries=[Entry(schedule_id, changes or {})])[0]


def record_many(*, action: Action, by: str, now: datetime, entries: Iterable[Entry]) -> list[AuditEvent]:
    """Write the events of one decision about many, in one statement; none for none."""
    entries = list(entries)
    if not entries:
        return []
    request = _request.get() or _Request()
    label = (request.labels.get(by) or _label(by))[:_LABEL_LENGTH]
    return AuditEvent.objects.bulk_create(
        AuditEvent(
            action=action,
            actor_id=by,
            actor_label=label,
            schedule_id=entry.schedule_id,
            payload_diff=dict(entry.changes),
            request_id=request.request_id,
            correlation_id=request.correlation_id,
            created_at=now,
        )
        for entry in entries
    )


def _label(actor: str) -> str:
    """The name of one whom no door has introduced; a program's is known to the doors alone."""
    kind, _colon, who = actor.partition(":")
    if kind == "system":
        return who
    if kind == "user" and who.isdecimal():
        accounts = get_user_model()._default_manager.filter(pk=who)
        return str(accounts.values_list("username", flat=True).first() or "")
    return ""

"""What the user service calls on its own account: signed as Standard Webhooks has it, done once whatever its number."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from psycopg.errors import DeadlockDetected, LockNotAvailable

from frontend import erasing
from frontend.models import HookEvent
from schedules import clock, fingerprints, recipients, standard_webhooks
from schedules.imports.rows import BadLine
from schedules.imports.values import problem_of
from schedules.user_service import client, mirror

BY: Final = "system:user_service"
MOST: Final = 100  # people in one message
KEPT: Final = timedelta(days=30)
_MAX_BYTES: Final = 2 * 1024 * 1024
# Longest wait for somebody who writes people at this moment, an import perhaps; then the sender may come again.
_PATIENCE: Final = "5s"
_COME_AGAIN_S: Final = 30
_NOTE: Final = "INSERT INTO frontend_hookevent (event_id, received_at) VALUES (%s, %s) ON CONFLICT DO NOTHING"

log = structlog.get_logger(__name__)


class _Gone(NamedTuple):
    external_id: str


class _Updated(NamedTuple):
    """How people were at that moment, each as the contract has a profile."""

    profiles: Sequence[object]
    at: datetime


class _Senseless(ValueError):
    """No such message; the text says what was expected."""


@csrf_exempt  # a program has no cookie to be forged with
@require_POST
def user_service(request: HttpRequest) -> HttpResponse:
    """The user service says that somebody is gone, ``{"type": "recipient.deleted", "data": {"externalId": …}}``, or how
    people are now, ``{"type": "recipient.updated", "timestamp": …, "data": {"recipients": [profile, …]}}``.

    204 when that is done, also when it was done before, nobody of that id is known, or more is known already; 200 where
    something of the profiles can't be kept, with what that is; 202 for a type that is none of ours; 503 while an import
    is writing people. Without a secret in the settings there is no such address.
    """
    if not settings.USER_SERVICE_HOOK_SECRET:
        raise Http404
    body = request.read(_MAX_BYTES + 1)  # whatever was announced
    if len(body) > _MAX_BYTES:
        return _refused(413, "The body is too large.")
    event_id = request.headers.get("webhook-id", "")
    keys = standard_webhooks.secrets(settings.USER_SERVICE_HOOK_SECRET)
    if len(event_id) > 200 or not standard_webhooks.is_signed(keys, request.headers, body):
        return _refused(401, "The signature or its time is not right.")
    try:
        message = _read(body)
    except _Senseless as error:
        return _refused(400, str(error))
    if message is None:
        return HttpResponse(status=202)
    try:
        unkept = _done_once(event_id, message, now=clock.now())
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable | DeadlockDetected):
            return _come_again()
        raise
    except mirror.Overlapping:
        return _come_again()
    if not unkept:
        return HttpResponse(status=204)
    log.warning("hook_profiles_unkept", problems=len(unkept))
    return JsonResponse({"problems": [_problem(each) for each in unkept]})


def _read(body: bytes) -> _Gone | _Updated | None:
    """None for a type that is none of ours. Raises ``_Senseless``."""
    try:
        said = json.loads(body)
        match said["type"]:
            case "recipient.deleted":
                return _gone(said["data"]["externalId"])
            case "recipient.updated":
                return _updated(said["data"]["recipients"], said["timestamp"])
    except _Senseless:
        raise
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _Senseless("Send an object with type, timestamp and data.") from None
    return None


def _gone(external_id: object) -> _Gone:
    if not isinstance(external_id, str) or not external_id:
        raise _Senseless("data.externalId is a text that isn't empty.")
    return _Gone(external_id)


def _updated(profiles: object, timestamp: object) -> _Updated:
    if not isinstance(profiles, list) or not 1 <= len(profiles) <= MOST:
        raise _Senseless(f"data.recipients is a list of 1 to {MOST} profiles.")
    at = parse_datetime(timestamp) if isinstance(timestamp, str) else None
    if at is None or at.tzinfo is None:
        raise _Senseless("timestamp is an instant with its offset, such as 2026-11-22T10:00:00Z.")
    return _Updated(profiles, at)


@transaction.atomic
def _done_once(event_id: str, message: _Gone | _Updated, *, now: datetime) -> Sequence[BadLine]:
    """Do what the message says, and tell what of it can't be kept; of two with one id the second waits for the first,
    and does nothing."""
    with connection.cursor() as cursor:
        cursor.execute(_NOTE, [event_id, timezone.now()])
        if not cursor.rowcount:
            return ()
        if isinstance(message, _Updated):
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [_PATIENCE])
    if isinstance(message, _Gone):
        _forget(message.external_id, now=now)
        return ()
    profiles = client.read_profiles(message.profiles)
    mirror.mirror(*profiles, by=BY, now=now, said_at=message.at)
    return [row for row in profiles.rows if isinstance(row, BadLine)]


def _forget(external_id: str, *, now: datetime) -> None:
    try:
        person = recipients.find(external_id=external_id)
        erasing.erase(recipient_id=person.pk, by=BY, now=now)
    except recipients.NoSuchRecipient:
        # A list of people that was written before may still be on its way.
        fingerprints.keep(external_ids=[external_id], address="", now=now)


def _problem(unkept: BadLine) -> dict[str, Any]:
    problem = problem_of(unkept.field, unkept.reason)
    return {"index": unkept.line - 1, "field": problem.field, "detail": problem.message}


def purge() -> int:
    """Drop what nobody repeats any more; how many."""
    return HookEvent.objects.filter(received_at__lt=timezone.now() - KEPT).delete()[0]


def require_secrets() -> None:
    """For the start of a web server, which runs no checks. Raises ``ImproperlyConfigured``."""
    for fault in check_secrets(None):
        raise ImproperlyConfigured(f"{fault.msg} {fault.hint}")


def check_secrets(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """At each start: a secret that anybody could guess would let anybody erase and change people."""
    try:
        secrets = standard_webhooks.secrets(settings.USER_SERVICE_HOOK_SECRET)
    except ValueError:
        said = "USER_SERVICE_HOOK_SECRET can't be read."
    else:
        if all(len(secret) >= standard_webhooks.LEAST_BYTES for secret in secrets):
            return []
        said = f"USER_SERVICE_HOOK_SECRET can be guessed: it has fewer than {standard_webhooks.LEAST_BYTES} bytes."
    written = f"{standard_webhooks.PREFIX} and what this prints: openssl rand -base64 32"
    hint = f"Write {written}. Several are separated by spaces."
    return [Error(said, hint=hint, id="frontend.E001")]


def _come_again() -> JsonResponse:
    return _refused(503, "People are being written at this moment.", {"Retry-After": str(_COME_AGAIN_S)})


def _refused(status: int, words: str, headers: Mapping[str, str] | None = None) -> JsonResponse:
    body: dict[str, Any] = {"status": status, "detail": words}
    return JsonResponse(body, status=status, headers=headers)

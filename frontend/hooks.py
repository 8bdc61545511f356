"""What other services call on their own account: signed as Standard Webhooks (standardwebhooks.com) says.

``webhook-signature`` holds ``v1,BASE64`` of HMAC-SHA256 over ``ID.TIMESTAMP.BODY``, several separated by spaces. The
clock is the real one: a message is taken within five minutes of its timestamp, and done once whatever its number.
"""

import base64
import hashlib
import hmac
import json
import time
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from frontend import erasing
from frontend.models import HookEvent
from schedules import clock, fingerprints, recipients

BY: Final = "system:user_service"
DELETED: Final = "recipient.deleted"
KEPT: Final = timedelta(days=30)
_TOLERANCE_S: Final = 300
_MAX_BYTES: Final = 64 * 1024
_PREFIX: Final = "whsec_"
_LEAST_BYTES: Final = 24  # of a secret, says the specification; 64 at most


@csrf_exempt  # a program has no cookie to be forged with
@require_POST
def user_service(request: HttpRequest) -> HttpResponse:
    """The user service says that somebody is gone: ``{"type": "recipient.deleted", "data": {"externalId": …}}``.

    204 when that is done, also when it was done before or nobody of that id is known; 202 for a type that is none of
    ours. Without a secret in the settings there is no such address.
    """
    if not settings.USER_SERVICE_HOOK_SECRET:
        raise Http404
    body = request.read(_MAX_BYTES + 1)  # whatever was announced
    if len(body) > _MAX_BYTES:
        return _refused(413, "The body is too large.")
    event_id, timestamp = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
    if not 1 <= len(event_id) <= 200 or not _is_signed(request, event_id, timestamp, body):
        return _refused(401, "The signature or its time is not right.")
    try:
        said = json.loads(body)
        kind = said["type"]
        external_id = said["data"]["externalId"] if kind == DELETED else ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return _refused(400, "Send an object with type and data.")
    if kind != DELETED:
        return HttpResponse(status=202)
    if not isinstance(external_id, str) or not external_id:
        return _refused(400, "data.externalId is a text that isn't empty.")
    _forget(event_id, external_id, now=clock.now())
    return HttpResponse(status=204)


@transaction.atomic
def _forget(event_id: str, external_id: str, *, now: datetime) -> None:
    """Of two with one id the second waits for the first, and does nothing."""
    _, is_new = HookEvent.objects.get_or_create(event_id=event_id, defaults={"received_at": timezone.now()})
    if not is_new:
        return
    try:
        person = recipients.find(external_id=external_id)
        erasing.erase(recipient_id=person.pk, by=BY, now=now)
    except recipients.NoSuchRecipient:
        # A list of people that was written before may still be on its way.
        fingerprints.keep(external_ids=[external_id], address="", now=now)


def purge() -> int:
    """Drop what nobody repeats any more; how many."""
    return HookEvent.objects.filter(received_at__lt=timezone.now() - KEPT).delete()[0]


def _is_signed(request: HttpRequest, event_id: str, timestamp: str, body: bytes) -> bool:
    if not (timestamp.isascii() and timestamp.isdigit()) or len(timestamp) > 12:
        return False
    if abs(time.time() - int(timestamp)) > _TOLERANCE_S:
        return False
    content = f"{event_id}.{timestamp}.".encode() + body
    given = [
        each.removeprefix("v1,").encode()
        for each in request.headers.get("webhook-signature", "").split()
        if each.startswith("v1,")
    ]
    # All of them, so that the time says nothing.
    found = [
        hmac.compare_digest(base64.b64encode(hmac.digest(secret, content, hashlib.sha256)), signature)
        for secret in _secrets()
        for signature in given[:10]
    ]
    return any(found)


def require_secrets() -> None:
    """For the start of a web server, which runs no checks. Raises ``ImproperlyConfigured``."""
    for fault in check_secrets(None):
        raise ImproperlyConfigured(f"{fault.msg} {fault.hint}")


def check_secrets(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """At each start: a secret that anybody could guess would let anybody erase people."""
    try:
        short = [secret for secret in _secrets() if len(secret) < _LEAST_BYTES]
    except ValueError:
        said = "USER_SERVICE_HOOK_SECRET can't be read."
    else:
        if not short:
            return []
        said = f"USER_SERVICE_HOOK_SECRET can be guessed: it has fewer than {_LEAST_BYTES} bytes."
    hint = f"Write {_PREFIX} and what this prints: openssl rand -base64 32. Several are separated by spaces."
    return [Error(said, hint=hint, id="frontend.E001")]


def _secrets() -> list[bytes]:
    """Several while one takes the place of another. Raises ValueError for what is no base64, or nothing."""
    found = [
        base64.b64decode(each.removeprefix(_PREFIX), validate=True)
        for each in settings.USER_SERVICE_HOOK_SECRET.split()
    ]
    if not all(found):
        raise ValueError("USER_SERVICE_HOOK_SECRET: write whsec_ and base64, as Standard Webhooks has it.")
    return found


def _refused(status: int, words: str) -> JsonResponse:
    body: dict[str, Any] = {"status": status, "detail": words}
    return JsonResponse(body, status=status)

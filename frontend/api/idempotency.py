"""``Idempotency-Key``: the same POST sent again is done once and answered alike.

As in draft-ietf-httpapi-idempotency-key-header-07, with Stripe's rule that only what was done is kept: a refused
request may be mended and sent again with its key. The key's row is written in the transaction of what the POST did,
so that a crash loses both or neither.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any

from django.db import connection, transaction
from django.utils import timezone
from rest_framework.request import Request
from rest_framework.response import Response

from frontend.api.problems import IN_FLIGHT, INVALID, KEY_REUSED, InHeader, Refused
from frontend.models import IdempotencyKey

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
# The headers of an answer that belong to it; the others are those of the request that is being answered.
_KEPT_HEADERS = ("Location", "ETag")

Handler = Callable[..., Response]


def idempotent(handler: Handler) -> Handler:
    """A POST that creates or sends. The handler's work, the answer and the key are one transaction."""

    @wraps(handler)
    def post(view: Any, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get(HEADER)
        if key is None:
            return handler(view, request, *args, **kwargs)
        _check(key)
        fingerprint = _fingerprint(view, request)
        if known := _known(view.client, key):
            return _again(known, fingerprint)
        with transaction.atomic():
            _lock(view.client, key)
            if known := _known(view.client, key):
                return _again(known, fingerprint)
            IdempotencyKey.objects.filter(client=view.client, key=key).delete()  # one past its day
            response = handler(view, request, *args, **kwargs)
            _keep(view.client, key, fingerprint, response)
            return response

    post.is_idempotent = True  # type: ignore[attr-defined]
    return post


def purge() -> int:
    """Drop the keys whose day is over; how many. A key past its day is taken for a new one even before."""
    return IdempotencyKey.objects.filter(created_at__lt=timezone.now() - KEPT).delete()[0]


def _check(key: str) -> None:
    if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
        problem = InHeader(HEADER, "invalid", "Use 1 to 255 printable ASCII characters, such as a UUID.")
        raise Refused(INVALID, f"The {HEADER} can't be used.", pointed=[problem])


def _fingerprint(view: Any, request: Request) -> str:
    asked = f"{request.method} {request.get_full_path()}\n".encode()
    return hashlib.sha256(asked + view.sent(request)).hexdigest()


def _lock(client: str, key: str) -> None:
    """Until the transaction ends; whoever comes meanwhile is told that the first is at work."""
    name = int.from_bytes(hashlib.sha256(f"{client}\0{key}".encode()).digest()[:8], signed=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [name])
        (got,) = cursor.fetchone()
    if not got:
        message = "The first request with this key has not been answered yet: ask again in a moment."
        raise Refused(IN_FLIGHT, message, headers={"Retry-After": "1"})


def _known(client: str, key: str) -> IdempotencyKey | None:
    fresh = IdempotencyKey.objects.filter(created_at__gt=timezone.now() - KEPT)
    return fresh.filter(client=client, key=key).first()


def _again(known: IdempotencyKey, fingerprint: str) -> Response:
    if known.fingerprint != fingerprint:
        raise Refused(KEY_REUSED, "This key came with another request before: use a new one for each request.")
    headers = {**known.headers, "Idempotency-Replayed": "true"}
    return Response(json.loads(known.body), status=known.status, headers=headers)


def _keep(client: str, key: str, fingerprint: str, response: Response) -> None:
    IdempotencyKey.objects.create(
        client=client,
        key=key,
        fingerprint=fingerprint,
        status=response.status_code,
        body=json.dumps(response.data),
        headers={name: response[name] for name in _KEPT_HEADERS if name in response},
        created_at=timezone.now(),
    )

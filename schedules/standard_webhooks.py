"""Signatures as Standard Webhooks has them (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md).

``webhook-signature`` holds ``v1,BASE64`` of HMAC-SHA256 over ``ID.TIMESTAMP.BODY``, several separated by spaces while
one secret takes the place of another. A secret is written ``whsec_`` and base64.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Final

PREFIX: Final = "whsec_"
LEAST_BYTES: Final = 24  # of a secret, says the specification; 64 at most
_TOLERANCE_S: Final = 300
_MOST_SIGNATURES: Final = 10


def secrets(written: str) -> list[bytes]:
    """Those of a setting, separated by spaces. Raises ValueError for what is no base64, or nothing."""
    found = [base64.b64decode(each.removeprefix(PREFIX), validate=True) for each in written.split()]
    if not all(found):
        raise ValueError(f"write {PREFIX} and base64, as Standard Webhooks has it")
    return found


def signed(keys: Sequence[bytes], *, event_id: str, body: bytes, at: float | None = None) -> dict[str, str]:
    """The headers that go with ``body``, signed by each of the keys. ``at``: seconds since 1970, now by default."""
    timestamp = str(int(time.time() if at is None else at))
    signatures = [f"v1,{_signature(key, event_id, timestamp, body).decode()}" for key in keys]
    return {"webhook-id": event_id, "webhook-timestamp": timestamp, "webhook-signature": " ".join(signatures)}


def is_signed(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes) -> bool:
    """Whether one of the keys has signed it within the last five minutes, or the next. The clock is the real one."""
    event_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not event_id or not (timestamp.isascii() and timestamp.isdigit()) or len(timestamp) > 12:
        return False
    if abs(time.time() - int(timestamp)) > _TOLERANCE_S:
        return False
    words = headers.get("webhook-signature", "").split()
    given = [each.removeprefix("v1,").encode() for each in words if each.startswith("v1,")][:_MOST_SIGNATURES]
    # All of them, so that the time says nothing.
    found = [
        hmac.compare_digest(_signature(key, event_id, timestamp, body), signature)
        for key in keys
        for signature in given
    ]
    return any(found)


def _signature(key: bytes, event_id: str, timestamp: str, body: bytes) -> bytes:
    return base64.b64encode(hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256))

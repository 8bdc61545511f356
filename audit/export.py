"""Seals and their rows as objects that nobody can remove: one for each seal, in a bucket with Object Lock.

An object is lines of JSON: the seal, then its rows in the form that was hashed. What was exported is noted in a table
of its own; the note spares a look into the bucket and proves nothing, for that is ``audit.compare``'s.
"""

import json
import math
import time
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max

from audit import seals, verify
from audit.bucket import Bucket, BucketError, Taken
from audit.models import ExportedSeal, Seal


def export(bucket: Bucket, *, now: datetime, seconds: float = math.inf) -> int:
    """Write what has been sealed since, in order; how many there were. After ``seconds`` no further object is begun.

    Two may do it at once: an object is written where none is, and whoever finds his own there goes on. Raises
    ``BucketError``, and ``verify.Tampered`` where rows are not what was sealed or another object lies in the place.
    """
    begun, done = time.monotonic(), 0
    while time.monotonic() - begun < seconds and (seal := _next()) is not None:
        _put(bucket, seal, now=now)
        done += 1
    return done


def key_of(number: int) -> str:
    """As many digits as keep the keys in the order of the seals."""
    return f"{number:012}.ndjson"


def document(seal: Seal) -> bytes:
    """The seal's object. Raises ``verify.Tampered`` where a row is no longer what was sealed."""
    found = list(seals.rows(first_tx=seal.first_tx, end_tx=seal.end_tx))
    if problem := verify.first_difference(verify.expected(seal), found):
        raise verify.Tampered(f"{problem} (seal {seal.number}, before it was exported)")
    head = {
        "number": seal.number,
        "previous": seal.previous,
        "first_tx": seal.first_tx,
        "end_tx": seal.end_tx,
        "rows": seal.rows,
        "sealed_at": seals.instant(seal.sealed_at),
        "key_id": seal.key_id,
        "digest": seal.digest,
        "signature": seal.signature,
    }
    return b"\n".join([json.dumps(head).encode(), *(row.text for row in found), b""])


def _next() -> Seal | None:
    last = ExportedSeal.objects.aggregate(last=Max("number"))["last"] or 0
    return Seal.objects.filter(number__gt=last).order_by("number").first()


def _put(bucket: Bucket, seal: Seal, *, now: datetime) -> None:
    """No transaction is open while the bucket is written to, so what was put may have gone unnoted."""
    key, body = key_of(seal.number), document(seal)
    days_end = now + timedelta(days=settings.AUDIT_EXPORT_DAYS)
    until: datetime | None = days_end
    try:
        version = bucket.put(key, body, until=days_end)
    except Taken:
        version, until = _same(bucket, key, body, now=now)
    try:
        with transaction.atomic():
            ExportedSeal.objects.create(number=seal.number, version_id=version, exported_at=now, locked_until=until)
    except IntegrityError:
        return  # somebody else has noted it


def _same(bucket: Bucket, key: str, body: bytes, *, now: datetime) -> tuple[str, datetime | None]:
    """The version of that key which holds just this and is locked, and until when."""
    for versions in bucket.versions(key):
        for version in versions:
            if not version.is_marker and (stored := bucket.get(version)).body == body:
                if not stored.is_locked(until=now):
                    raise BucketError(f"{key} lies in the bucket {bucket.name} without a lock")
                return version.version_id, stored.until
    raise verify.Tampered(f"another object lies in the bucket {bucket.name} as {key}")

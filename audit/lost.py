"""What was exported and is not in the database any more, because it was restored to before that."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db.models import Max

from audit import seals
from audit.bucket import Bucket, oldest
from audit.compare import read
from audit.export import key_of
from audit.models import Seal
from audit.verify import Tampered


@dataclass(frozen=True)
class LostEvent:
    """A row of the audit as it was exported."""

    action: str
    actor_id: str
    actor_label: str
    schedule_id: int | None
    changes: Mapping[str, Any]
    at: datetime


def events(bucket: Bucket, keys: Mapping[str, Ed25519PublicKey], *, since: datetime) -> Iterator[LostEvent]:
    """What happened after ``since``, by the seals that follow the last one of then; each is signed by one of ``keys``.

    What the database has sealed since then itself bears numbers that others have in the bucket; and what was sealed
    late may be here all the same. Raises ``Tampered`` for what is not signed, and ``BucketError``.
    """
    number = (Seal.objects.filter(sealed_at__lte=since).aggregate(last=Max("number"))["last"] or 0) + 1
    while (body := _body(bucket, number)) is not None:
        _check(body, number, keys)
        for line in body.split(b"\n")[1:-1]:
            if (event := _event(json.loads(line))).at > since:
                yield event
        number += 1


def _body(bucket: Bucket, number: int) -> bytes | None:
    for versions in bucket.versions(key_of(number)):
        if version := oldest(versions):
            return bucket.get(version).body
    return None


def _check(body: bytes, number: int, keys: Mapping[str, Ed25519PublicKey]) -> None:
    try:
        head, digest = read(body)
        seal = Seal(number=head["number"], digest=digest, signature=head["signature"], key_id=head["key_id"])
    except (KeyError, TypeError, ValueError) as error:
        raise Tampered(f"the object of seal {number} can't be read") from error
    key = keys.get(seal.key_id)
    if seal.number != number or key is None or not seals.is_signed(seal, key):
        raise Tampered(f"the object of seal {number} is not signed by a known key (it says key {seal.key_id})")


def _event(row: Mapping[str, Any]) -> LostEvent:
    # ``payload_diff`` is the text that PostgreSQL writes of it.
    changes = json.loads(row["payload_diff"])
    at = datetime.fromisoformat(row["created_at"])
    return LostEvent(row["action"], row["actor_id"], row["actor_label"], row["schedule_id"], changes, at)

"""Seals over the audit: what was there is signed, so that a change behind the application's back is found.

A seal covers the rows of all transactions from one number up to another. Below the oldest transaction that still runs
every one has ended, so no row of theirs can appear any more, whatever its id: a late commit falls into a later seal.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.db import connection, transaction
from django.db.models import Count, Max, Min

from audit.keys import key_id, private_key
from audit.models import ExportedSeal, Seal

# Rows of one seal, unless a single transaction wrote more.
SEAL_ROWS = 10_000
START = "0" * 64
_HASH_BYTES = 32
_COLUMNS = (
    "tx", "id", "action", "actor_id", "actor_label", "schedule_id", "payload_diff", "request_id", "correlation_id",
    "created_at",
)  # fmt: skip


class OutOfStep(Exception):
    """The database's transactions are numbered below what is sealed: it was restored from a dump."""


@dataclass(frozen=True)
class Row:
    """A row of the audit as it is sealed: ``text`` is its canonical form."""

    id: int
    text: bytes

    @property
    def hash(self) -> bytes:
        return hashlib.sha256(self.text).digest()


def seal(*, now: datetime, limit: int = SEAL_ROWS) -> list[Seal]:
    """Seal every row whose transaction is below the oldest that runs; none for none. One sealer at a time.

    Raises ``OutOfStep``, and ``ImproperlyConfigured`` without a key.
    """
    key = private_key()
    made: list[Seal] = []
    while True:
        with transaction.atomic():
            if not _is_alone() or (new := _next(key, now=now, limit=limit)) is None:
                return made
        made.append(new)


def rows(*, first_tx: int, end_tx: int | None = None) -> Iterator[Row]:
    """Of the transactions from ``first_tx`` to before ``end_tx``, in their order; within one by id."""
    until = "" if end_tx is None else "AND tx < %(end)s"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(_COLUMNS[:6])}, payload_diff::text, {', '.join(_COLUMNS[7:])} FROM notification_audit"
            f" WHERE tx >= %(first)s {until} ORDER BY tx, id",
            {"first": first_tx, "end": end_tx},
        )
        for values in cursor:
            yield Row(values[1], canonical(dict(zip(_COLUMNS, values, strict=True))))


def instant(at: datetime) -> str:
    """In UTC to the microsecond: part of what is hashed and signed."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(row: dict[str, Any]) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8; the instant in UTC to the microsecond.

    ``payload_diff`` stays the text that PostgreSQL writes of it: so no reader's idea of a number matters.
    """
    text = json.dumps(
        {**row, "created_at": instant(row["created_at"])}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return text.encode()


def statement(seal: Seal) -> bytes:
    """What a seal says; its SHA-256 is the digest, which is signed and stands in the next seal."""
    hashes = hashlib.sha256(bytes(seal.row_hashes)).hexdigest()
    ids = hashlib.sha256(",".join(map(str, seal.row_ids)).encode()).hexdigest()
    parts = [
        "notification_audit 1", seal.number, seal.previous, seal.first_tx, seal.end_tx, seal.rows, ids, hashes,
        instant(seal.sealed_at), seal.key_id,
    ]  # fmt: skip
    return "\n".join(map(str, parts)).encode()


def is_signed(seal: Seal, public: Ed25519PublicKey) -> bool:
    try:
        public.verify(bytes.fromhex(seal.signature), bytes.fromhex(seal.digest))
    except (InvalidSignature, ValueError):
        return False
    return True


def _is_alone() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('notification_audit seals'))")
        return bool(cursor.fetchone()[0])


def _next(key: Ed25519PrivateKey, *, now: datetime, limit: int) -> Seal | None:
    last = Seal.objects.order_by("-number").first()
    first_tx = last.end_tx if last else 0
    ended = _ended_below()
    if ended < first_tx:
        raise OutOfStep(
            f"Transactions below {first_tx} are sealed, but this database is at {ended}: it was restored from a dump. "
            "Move its counter on with pg_resetwal --next-transaction-id (docs/security.md)."
        )
    end_tx = _end(first_tx, ended, limit)
    found = list(rows(first_tx=first_tx, end_tx=end_tx))
    if not found:
        return None  # an idle service makes no seals
    new = Seal(
        number=last.number + 1 if last else 1,
        first_tx=first_tx,
        end_tx=end_tx,
        rows=len(found),
        row_ids=[row.id for row in found],
        row_hashes=b"".join(row.hash for row in found),
        previous=last.digest if last else START,
        key_id=key_id(key.public_key()),
        sealed_at=now,
    )
    digest = hashlib.sha256(statement(new)).digest()
    new.digest, new.signature = digest.hex(), key.sign(digest).hex()
    new.save(force_insert=True)
    return new


def _ended_below() -> int:
    """Every transaction with a smaller number has ended, and what it wrote is seen by the statements that follow."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        return int(cursor.fetchone()[0])


def _end(first_tx: int, ended: int, limit: int) -> int:
    """Where a seal of about ``limit`` rows ends: no transaction is cut, however many rows it wrote."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tx, (SELECT min(tx) FROM notification_audit WHERE tx >= %(first)s) FROM notification_audit"
            " WHERE tx >= %(first)s AND tx < %(ended)s ORDER BY tx, id OFFSET %(limit)s LIMIT 1",
            {"first": first_tx, "ended": ended, "limit": limit},
        )
        row = cursor.fetchone()
    if row is None:
        return ended
    tx, least = row
    return int(tx if tx > least else tx + 1)


def unexported() -> tuple[int, datetime | None]:
    """Seals of which no export is noted: how many, and when the oldest was made (real time)."""
    noted = ExportedSeal.objects.aggregate(last=Max("number"))["last"] or 0
    waiting = Seal.objects.filter(number__gt=noted).aggregate(number=Count("*"), oldest=Min("sealed_at"))
    return waiting["number"], waiting["oldest"]


def unsealed() -> tuple[int, datetime | None]:
    """Rows younger than the last seal: how many, and when the oldest was written (business time)."""
    last = Seal.objects.order_by("-number").values_list("end_tx", flat=True).first() or 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*), min(created_at) FROM notification_audit WHERE tx >= %s", [last])
        number, oldest = cursor.fetchone()
    return int(number), oldest

"""Rows against seals, and seals against each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from django.db import connection, transaction

from audit import seals
from audit.models import Seal
from audit.seals import Row

_HASH_BYTES = 32
# Seals that are in memory at once.
_TOGETHER = 20


class Tampered(Exception):
    """The audit is not what was sealed; the words name the first row or seal."""

    names_nobody = True  # as logs ask


@dataclass(frozen=True)
class Verified:
    """How much was looked at. ``unsealed`` rows are younger than the last seal: nothing is said of them."""

    seals: int
    rows: int
    unsealed: int


@transaction.atomic
def verify(keys: Mapping[str, Ed25519PublicKey]) -> Verified:
    """Compare every sealed row with its seal, by the public keys by their ids. Raises ``Tampered``."""
    with connection.cursor() as cursor:
        # One snapshot for all that is read: a seal made meanwhile is none of ours.
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    previous, end_tx, count, total = seals.START, 0, 0, 0
    for seal in _seals():
        count += 1
        if seal.number != count:
            raise Tampered(f"seal {count} is gone")
        _check_seal(seal, keys, previous=previous, first_tx=end_tx)
        if problem := first_difference(expected(seal), list(seals.rows(first_tx=seal.first_tx, end_tx=seal.end_tx))):
            raise Tampered(f"{problem} (seal {seal.number} of {seal.sealed_at:%Y-%m-%d %H:%M:%S} UTC)")
        previous, end_tx, total = seal.digest, seal.end_tx, total + seal.rows
    return Verified(count, total, _unsealed(end_tx))


def _seals() -> Iterator[Seal]:
    """All of them in order, some at a time: an iterator without a cursor at the server would read all of them first."""
    some = list(Seal.objects.order_by("number")[:_TOGETHER])
    while some:
        yield from some
        some = list(Seal.objects.filter(number__gt=some[-1].number).order_by("number")[:_TOGETHER])


def _check_seal(seal: Seal, keys: Mapping[str, Ed25519PublicKey], *, previous: str, first_tx: int) -> None:
    if seal.previous != previous or seal.first_tx != first_tx:
        raise Tampered(f"seal {seal.number} does not follow the one before it")
    if sha256(seals.statement(seal)).hexdigest() != seal.digest or not (
        seal.rows == len(seal.row_ids) == len(seal.row_hashes) / _HASH_BYTES
    ):
        raise Tampered(f"seal {seal.number} was changed")
    key = keys.get(seal.key_id)
    if key is None or not seals.is_signed(seal, key):
        raise Tampered(f"seal {seal.number} is not signed by a known key (it says key {seal.key_id})")


def expected(seal: Seal) -> list[tuple[int, bytes]]:
    """Id and hash of each row that the seal covers, in its order."""
    hashes = bytes(seal.row_hashes)
    return [(pk, hashes[index * _HASH_BYTES : (index + 1) * _HASH_BYTES]) for index, pk in enumerate(seal.row_ids)]


def first_difference(sealed: Sequence[tuple[int, bytes]], found: Sequence[Row]) -> str:
    """The first row that was changed, removed, added or put elsewhere, in words; empty if none was."""
    sealed_ids, found_ids = {pk for pk, _ in sealed}, {row.id for row in found}
    for index in range(max(len(sealed), len(found))):
        was = sealed[index] if index < len(sealed) else None
        row = found[index] if index < len(found) else None
        if was and was[0] not in found_ids:
            return f"row {was[0]} was removed"
        if row and row.id not in sealed_ids:
            return f"row {row.id} was added"
        if was and row and was[0] != row.id:
            return f"row {row.id} was reordered"
        if was and row and was[1] != row.hash:
            return f"row {row.id} was changed"
    return ""


def _unsealed(end_tx: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT min(id) FROM notification_audit WHERE tx < 0"
            " OR tx >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        )
        if (impossible := cursor.fetchone()[0]) is not None:
            raise Tampered(f"row {impossible} was added: no transaction has the number it gives")
        cursor.execute("SELECT count(*) FROM notification_audit WHERE tx >= %s", [end_tx])
        return int(cursor.fetchone()[0])

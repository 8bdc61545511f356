"""Seals of the database against those that were exported, which nobody could remove."""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Max, Min, OuterRef, Q, QuerySet, Subquery

from audit import seals
from audit.bucket import COMPLIANCE, READERS, Bucket, Stored, Version, oldest
from audit.models import ExportedSeal, Seal
from audit.verify import Tampered

# Objects that are in memory at once.
_TOGETHER = 4 * READERS
_KEY = re.compile(r"(\d{12})\.ndjson")


@dataclass(frozen=True)
class Compared:
    """``waiting`` seals are not exported yet, the oldest of them made at ``waiting_since``."""

    objects: int
    waiting: int
    waiting_since: datetime | None


@dataclass(frozen=True)
class _Exported:
    number: int
    versions: list[Version]


def compare(bucket: Bucket, *, now: datetime) -> Compared:
    """Every exported object against the seal in the database. Raises ``Tampered`` and ``BucketError``.

    The seals themselves, their rows and signatures are ``verify.verify``'s: here a digest stands for all of it. An
    object may be gone once its lock is over, which can't be shortened: by the export's note of it, or for one of before
    there were such notes by ``AUDIT_EXPORT_DAYS`` from its seal's instant on.
    """
    # Before the bucket is listed: what is exported meanwhile may be missing in the list.
    noted = ExportedSeal.objects.aggregate(last=Max("number"))["last"] or 0
    last = count = 0
    with ThreadPoolExecutor(READERS) as readers:
        for some in _batches(_exported(bucket)):
            numbers = [each.number for each in some]
            known = _plain(Seal.objects.filter(number__in=numbers)).in_bulk()
            locks = dict(ExportedSeal.objects.filter(number__in=numbers).values_list("number", "locked_until"))
            firsts = [_first(each) for each in some]
            for each, stored in zip(some, readers.map(bucket.get, firsts), strict=True):
                _check_none_missing(after=last, before=each.number, now=now)
                _check(each, stored, known.get(each.number), now=now, locked_until=locks.get(each.number))
                last, count = each.number, count + 1
    _check_none_missing(after=last, before=max(noted, last) + 1, now=now)
    waiting = Seal.objects.filter(number__gt=max(noted, last))
    return Compared(count, waiting.count(), waiting.aggregate(since=Min("sealed_at"))["since"])


def _exported(bucket: Bucket) -> Iterator[_Exported]:
    for versions in bucket.versions():
        if named := _KEY.fullmatch(versions[0].key):
            yield _Exported(int(named[1]), versions)


def _batches(exported: Iterator[_Exported]) -> Iterator[list[_Exported]]:
    some: list[_Exported] = []
    for each in exported:
        some.append(each)
        if len(some) == _TOGETHER:
            yield some
            some = []
    if some:
        yield some


def _plain(found: QuerySet[Seal]) -> QuerySet[Seal]:
    return found.defer("row_ids", "row_hashes")


def _first(each: _Exported) -> Version:
    version = oldest(each.versions)
    if version is None:
        raise Tampered(f"the object of seal {each.number} is gone: only a marker of its deletion is left")
    return version


def _check_none_missing(*, after: int, before: int, now: datetime) -> None:
    if before == after + 1:
        return
    note = ExportedSeal.objects.filter(number=OuterRef("number")).values("locked_until")[:1]
    missing = Seal.objects.filter(number__gt=after, number__lt=before).annotate(locked_until=Subquery(note))
    unnoted = Q(locked_until=None, sealed_at__gt=now - timedelta(days=settings.AUDIT_EXPORT_DAYS))
    locked = missing.filter(unnoted | Q(locked_until__gt=now))
    if first := locked.order_by("number").values_list("number", flat=True).first():
        raise Tampered(f"the object of seal {first} is gone from the bucket")


def _check(each: _Exported, stored: Stored, seal: Seal | None, *, now: datetime, locked_until: datetime | None) -> None:
    try:
        head, digest = read(stored.body)
    except (KeyError, TypeError, ValueError) as error:
        raise Tampered(f"the object of seal {each.number} was changed: it can't be read") from error
    if (head["number"], head["digest"]) != (each.number, digest):
        raise Tampered(f"the object of seal {each.number} was changed: it is not what its own digest says")
    if seal is None:
        raise Tampered(f"seal {each.number}, made {head['sealed_at']}, was exported and is gone from the database")
    if seal.digest != digest:
        raise Tampered(f"seal {each.number} was made anew: another one was exported, of {head['sealed_at']}")
    if seal.signature != head["signature"]:
        raise Tampered(f"the object of seal {each.number} was changed: its signature is another")
    until = locked_until or (stored.until if stored.mode == COMPLIANCE else None)
    if (until is None or until > now) and not stored.is_locked(until=now):
        raise Tampered(f"the object of seal {each.number} is not locked any more")
    if len(each.versions) > 1:
        latest = each.versions[-1]
        raise Tampered(
            f"the object of seal {each.number} was {'deleted' if latest.is_marker else 'written again'} at"
            f" {latest.modified:%Y-%m-%d %H:%M:%S} UTC; its first version {_first(each).version_id} is as it was"
        )


def read(body: bytes) -> tuple[dict[str, Any], str]:
    """An object's seal as it stands there, and the digest of what really does. Raises what a stranger's bytes raise."""
    first, *lines, end = body.split(b"\n")
    if end:
        raise ValueError("it does not end with a line's end")
    head = json.loads(first)
    seal = Seal(
        **{name: head[name] for name in ("number", "previous", "first_tx", "end_tx", "key_id")},
        rows=len(lines),
        row_ids=[json.loads(line)["id"] for line in lines],
        row_hashes=b"".join(hashlib.sha256(line).digest() for line in lines),
        sealed_at=datetime.fromisoformat(head["sealed_at"]),
    )
    return head, hashlib.sha256(seals.statement(seal)).hexdigest()

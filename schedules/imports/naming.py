"""Uploaded files in which a person stands who is erased: they are thrown away, whoever is at them."""

import json
from collections.abc import Collection, Iterator
from datetime import datetime

from django.db import transaction

from schedules.encryption import Undecryptable
from schedules.models import RecipientImport, RecipientImportChunk

FAILURE = "person_erased"


@transaction.atomic
def discard_naming(*, words: Collection[str], now: datetime) -> int:
    """Throw away each kept file that holds one of ``words``, in small letters or large; how many.

    A worker that is at it has lost its lease by that, and so has imported nothing.
    """
    gone = 0
    waiting = RecipientImport.objects.filter(pk__in=RecipientImportChunk.objects.values("upload")).order_by("id")
    for upload in waiting.only("pk", "encoding"):
        if not _holds(upload, {spelt for word in words for spelt in _spellings(word, upload.encoding)}):
            continue
        RecipientImport.objects.filter(pk=upload.pk).update(
            state=RecipientImport.State.FAILED,
            failure=FAILURE,
            token=None,
            leased_until=None,
            stage="",
            report={},
            bad=[],
            settled_at=now,
        )
        upload.chunks.all().delete()
        gone += 1
    return gone


def _spellings(word: str, encoding: str) -> Iterator[bytes]:
    """As CSV has it and as JSON may escape it, in the encodings in which the file may be."""
    for text in {word, json.dumps(word)[1:-1], json.dumps(word, ensure_ascii=False)[1:-1], word.replace('"', '""')}:
        for each in {encoding, "utf-8", "utf-16-le", "utf-16-be"}:
            try:
                spelt = text.encode("utf-16-le" if each.lower() in ("utf-16", "utf_16") else each)
            except (UnicodeEncodeError, LookupError):
                continue
            yield spelt.lower()


def _holds(upload: RecipientImport, spelt: Collection[bytes]) -> bool:
    """Piece by piece, each with the end of the one before: a word may lie across the cut.

    A file that can't be read, which nobody can import either, is taken to hold one.
    """
    overlap = max(map(len, spelt)) - 1
    rest = b""
    for number in upload.chunks.order_by("number").values_list("number", flat=True):
        try:
            data = rest + bytes(upload.chunks.get(number=number).data).lower()
        except Undecryptable:
            return True
        if any(each in data for each in spelt):
            return True
        rest = data[-overlap:] if overlap else b""
    return False

"""Uploaded files of people: kept in pieces, looked through by a worker, imported when somebody says so.

A row is the truth and a message to a worker only a hint: whoever has the lease works, a lease that runs out is given
to the next, and what a worker did is kept in the transaction of its last word or not at all. One file at a time: an
import takes its turn in the database in any case, and materialising shall not wait for two.
"""

import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, BinaryIO, Final

import structlog
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from schedules.imports.lines import Unreadable
from schedules.imports.recipients import Format, Report, Stage, import_recipients
from schedules.imports.rows import BadLine, Column
from schedules.models import RecipientImport, RecipientImportChunk
from schedules.problems import packed

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 100 * 1024 * 1024
MAX_BAD: Final = 10_000  # bad lines that are kept
KEEP_FILE: Final = timedelta(days=1)
KEEP_REPORT: Final = timedelta(days=30)
_CHUNK: Final = 1024 * 1024
_SHOWN_VALUES: Final = 20  # unknown zones and locales that are named
_LEASE: Final = timedelta(seconds=30)  # renewed each second
_HANDED_OUT: Final = timedelta(seconds=15)  # until a message that nobody took is sent again
_MOST_ATTEMPTS: Final = 3
_IN_MEMORY: Final = 4 * 1024 * 1024

State = RecipientImport.State
_OPEN: Final = (State.CHECK, State.IMPORT)
ENDINGS: Final[Mapping[str, Format]] = {
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".txt": Format.CSV,
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
}


class TooLarge(ValueError):
    """The file has more than ``MAX_BYTES``."""


class Moved(Exception):
    """The upload isn't in the state in which that can be done: somebody else was quicker, or its day is over."""

    def __init__(self, upload: RecipientImport) -> None:
        super().__init__(f"The upload is {upload.state} by now.")
        self.upload = upload


@dataclass(frozen=True)
class Found:
    """What a worker found in a file, or did with it. ``lines``: people in it, the bad ones included."""

    lines: int = 0
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    devices_added: int = 0
    devices_moved: int = 0
    devices_renewed: int = 0
    left_out: int = 0
    bad_lines: int = 0
    unknown_zones: Mapping[str, int] = field(default_factory=dict)
    unknown_locales: Mapping[str, int] = field(default_factory=dict)
    number_like: list[str] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)

    @property
    def good(self) -> int:
        """People whom an import writes, or finds as they are."""
        return self.lines - self.bad_lines - self.left_out

    @classmethod
    def of(cls, report: Report) -> "Found":
        return cls(
            lines=report.lines,
            **report.written._asdict(),
            bad_lines=report.bad_lines,
            unknown_zones=_first(report.unknown_zones),
            unknown_locales=_first(report.unknown_locales),
            number_like=list(report.number_like),
            columns=list(report.columns),
        )

    @classmethod
    def read(cls, kept: Mapping[str, Any]) -> "Found":
        """From the row; what an older version did not keep is empty."""
        known = {each.name for each in fields(cls)}
        found = {name: value for name, value in kept.items() if name in known}
        return cls(**{**found, "columns": [Column(*column) for column in found.get("columns", [])]})


def _first(values: Mapping[str, int]) -> dict[str, int]:
    return dict(list(values.items())[:_SHOWN_VALUES])


@transaction.atomic
def keep(
    *,
    name: str,
    chunks: Iterable[bytes],
    format: Format,
    by: str,
    now: datetime,
    encoding: str = "utf-8",
    delimiter: str = "",
    infer_types: bool = False,
    bring_back: bool = False,
) -> RecipientImport:
    """Keep a file, to be looked through as soon as a worker is free. Raises ``TooLarge``; then nothing is kept."""
    upload = RecipientImport.objects.create(
        name=name[-200:],
        size=0,
        format=format,
        encoding=encoding,
        delimiter=delimiter,
        infer_types=infer_types,
        bring_back=bring_back,
        created_by=by,
        created_at=now,
    )
    for number, data in enumerate(_in_pieces(chunks)):
        upload.size += len(data)
        if upload.size > MAX_BYTES:
            raise TooLarge
        RecipientImportChunk.objects.create(upload=upload, number=number, data=data)
    upload.save(update_fields=["size"])
    return upload


def _in_pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    piece = bytearray()
    for chunk in chunks:
        piece += chunk
        if len(piece) >= _CHUNK:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def listed() -> QuerySet[RecipientImport]:
    """The uploads, without their long parts; the latest first."""
    return RecipientImport.objects.defer("bad").order_by("-id")


def is_at_work(upload: RecipientImport) -> bool:
    return upload.state in _OPEN and upload.token is not None


def confirm(*, import_id: int, by: str, now: datetime) -> RecipientImport:
    """Have the people of a file that was looked through imported, bad lines left out. Raises ``Moved``.

    ``by`` is who answers for it in the audit. Repeating it while it waits or runs changes nothing.
    """
    fresh: dict[str, Any] = {"stage": "", "people": 0, "position": 0, "attempts": 0, "token": None}
    changed = RecipientImport.objects.filter(pk=import_id, state=State.CHECKED).update(
        state=State.IMPORT, created_by=by, leased_until=None, **fresh
    )
    upload = RecipientImport.objects.get(pk=import_id)
    if not changed and upload.state != State.IMPORT:
        raise Moved(upload)
    log.info("import_confirmed", import_id=import_id, by=by)
    return upload


@transaction.atomic
def discard(*, import_id: int, now: datetime) -> RecipientImport:
    """Throw a file away that nobody is at, with what was found in it. Raises ``Moved``."""
    upload: RecipientImport = RecipientImport.objects.select_for_update().get(pk=import_id)
    if upload.state == State.DISCARDED:
        return upload
    if upload.state not in (State.CHECKED, State.FAILED) and not (upload.state == State.CHECK and not upload.token):
        raise Moved(upload)
    upload.state, upload.settled_at, upload.report, upload.bad = State.DISCARDED, now, {}, []
    upload.save()
    upload.chunks.all().delete()
    return upload


@transaction.atomic
def take_waiting() -> int | None:
    """The id of the file that a worker shall be told of now; None while one is at work or none waits."""
    real = timezone.now()
    waiting = RecipientImport.objects.filter(state__in=_OPEN)
    if not waiting.exists():
        return None
    with connection.cursor() as cursor:  # of two clocks one hands out
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('schedules.imports.uploads'))")
        if not cursor.fetchone()[0]:
            return None
    if waiting.filter(leased_until__gte=real).exists():
        return None
    _give_up(waiting.filter(attempts__gte=_MOST_ATTEMPTS))
    first = waiting.order_by("id").first()
    if first is None:
        return None
    RecipientImport.objects.filter(pk=first.pk).update(leased_until=real + _HANDED_OUT, token=None)
    return int(first.pk)


def _give_up(lost: QuerySet[RecipientImport]) -> None:
    for upload in lost:
        _settle(upload, state=State.FAILED, failure="worker_lost")


def run(*, import_id: int, now: datetime) -> None:
    """Look through the file, or import it; of two workers with the same message one does it."""
    token = uuid.uuid4()
    mine = RecipientImport.objects.filter(pk=import_id, token=token)
    free = RecipientImport.objects.filter(pk=import_id, state__in=_OPEN)
    real = timezone.now()
    free = free.filter(Q(token=None) | Q(leased_until__lt=real))
    attempts = free.values_list("attempts", flat=True).first()
    if attempts is None or not free.update(
        token=token, leased_until=real + _LEASE, attempts=attempts + 1, people=0, position=0, stage=Stage.READ.name
    ):
        return
    upload = mine.get()
    log.info("import_started", import_id=upload.pk, state=upload.state, attempt=upload.attempts)
    try:
        with _file(upload) as file, _beating(upload, file) as beat, transaction.atomic():
            found, bad = _read(upload, file, beat, now=now)
            # The last word is said in the transaction of the import: who has lost the lease has imported nothing.
            done = {"state": State.CHECKED if upload.state == State.CHECK else State.DONE, "token": None}
            kept = {"report": asdict(found), "bad": bad, "people": found.lines, "stage": ""}
            if not mine.update(**done, **kept, leased_until=None, settled_at=now):
                transaction.set_rollback(True)
                return
            if upload.state == State.IMPORT:
                upload.chunks.all().delete()
    except Unreadable as error:
        words = str(error)
        told = {"unreadable": packed(words)}
        _settle(upload, state=State.FAILED, failure="unreadable", detail=words[:1000], report=told, settled_at=now)
    except Exception:  # whatever it is, who waits is told
        log.exception("import_failed", import_id=upload.pk)
        _settle(upload, state=State.FAILED, failure="error", settled_at=now)
    else:
        log.info("import_ended", import_id=upload.pk, lines=found.lines, bad=found.bad_lines)


def _read(
    upload: RecipientImport, file: BinaryIO, beat: "_Beat", *, now: datetime
) -> tuple[Found, list[tuple[int, str, Any]]]:
    """``bad``: lines with what is wrong as ``problems.packed``."""
    bad: list[BadLine] = []
    report = import_recipients(
        stream=file,
        format=Format(upload.format),
        by=upload.created_by,
        now=now,
        dry_run=upload.state == State.CHECK,
        skip_bad=True,
        encoding=upload.encoding,
        delimiter=upload.delimiter,
        infer_types=upload.infer_types,
        bring_back=upload.bring_back,
        on_bad=lambda line: bad.append(line) if len(bad) < MAX_BAD else None,
        progress=beat.tell,
    )
    return Found.of(report), [(each.line, each.field, packed(each.reason)) for each in sorted(bad)]


def _settle(upload: RecipientImport, **values: Any) -> None:
    """The end of whoever has the lease still: the file has done its service."""
    with transaction.atomic():
        still = RecipientImport.objects.filter(pk=upload.pk, token=upload.token, state__in=_OPEN)
        if still.update(token=None, leased_until=None, stage="", **values):
            upload.chunks.all().delete()


@contextmanager
def _file(upload: RecipientImport) -> Iterator[Any]:
    """The pieces as one file, without a name: nothing of it is left when the worker dies."""
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        for number in upload.chunks.order_by("number").values_list("number", flat=True):
            file.write(bytes(upload.chunks.get(number=number).data))
        file.seek(0)
        yield file


class _Beat:
    """How far a worker has come, told each second through a connection of its own: the import's shows nothing yet."""

    def __init__(self, upload: RecipientImport, file: BinaryIO) -> None:
        self._mine = RecipientImport.objects.filter(pk=upload.pk, token=upload.token)
        self._file = file
        self._told: dict[str, Any] = {}
        self.ended = threading.Event()

    def tell(self, stage: Stage, people: int) -> None:
        self._told = {"stage": stage.name, "people": people, "position": self._file.tell()}

    def run(self) -> None:
        try:
            while not self.ended.wait(1.0):
                self._mine.update(leased_until=timezone.now() + _LEASE, **self._told)
        except Exception:  # the lease runs out by itself
            log.exception("import_progress_failed")
        finally:
            connection.close()


@contextmanager
def _beating(upload: RecipientImport, file: BinaryIO) -> Iterator[_Beat]:
    beat = _Beat(upload, file)
    thread = threading.Thread(target=beat.run, daemon=True)
    thread.start()
    try:
        yield beat
    finally:
        beat.ended.set()
        thread.join()


def purge(*, now: datetime) -> int:
    """Throw away files that have lain for a day, and reports after thirty; how many files."""
    old = RecipientImport.objects.filter(created_at__lt=now - KEEP_FILE, token=None).exclude(
        state__in=(State.DONE, State.FAILED, State.DISCARDED)
    )
    gone = 0
    for upload in old.only("pk"):
        with transaction.atomic():
            # Whoever confirms or takes it at this moment has the row; it is left for the next time.
            if old.filter(pk=upload.pk).update(state=State.FAILED, failure="too_old", settled_at=now):
                upload.chunks.all().delete()
                gone += 1
    RecipientImport.objects.filter(created_at__lt=now - KEEP_REPORT, token=None).delete()
    return gone

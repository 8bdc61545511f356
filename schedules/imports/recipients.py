"""Importing people: a file is merged into the profiles as a whole, or not at all."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import BinaryIO, Final

from babel import Locale, UnknownLocaleError
from django.db import transaction

from audit import trail
from audit.models import Action
from schedules import topics
from schedules.content import locale_chain
from schedules.imports import merging, staging
from schedules.imports.columns import consent_key
from schedules.imports.csv_rows import CsvRows
from schedules.imports.lines import Unreadable
from schedules.imports.merging import Written
from schedules.imports.ndjson_rows import NdjsonRows
from schedules.imports.rows import BadLine, Column, Rows
from schedules.problems import say
from schedules.recurrence.zones import ZONE_NAMES

MAX_KEPT: Final = 100  # bad lines in a report; all of them go to on_bad


class Format(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"


class Stage(StrEnum):
    """What an import is doing; the callback of progress gets it with the number of people read so far."""

    READ = "Reading"
    CHECK = "Checking"
    WRITE = "Writing"


@dataclass(frozen=True, slots=True)
class Report:
    """What an import did, or would have done.

    ``lines``: people in the file, bad ones included. ``is_kept``: false after a dry run, and when bad lines prevented
    the import; ``written`` then holds what would have been written, or nothing. ``bad`` holds the first ``MAX_KEPT``
    of ``bad_lines``. ``unknown_zones`` and ``unknown_locales`` count people by a value that is kept as it came and
    falls back when it is used. ``columns`` says how a CSV file's columns were understood; ``renamed`` tells which
    column gave which attribute where the names differ.
    """

    lines: int
    written: Written
    is_kept: bool
    bad_lines: int
    bad: tuple[BadLine, ...]
    unknown_zones: Mapping[str, int]
    unknown_locales: Mapping[str, int]
    renamed: Mapping[str, str]
    number_like: tuple[str, ...]
    columns: tuple[Column, ...] = ()


def import_recipients(
    *,
    stream: BinaryIO,
    format: Format,
    by: str,
    now: datetime,
    dry_run: bool = False,
    skip_bad: bool = False,
    encoding: str = "utf-8",
    delimiter: str = "",
    infer_types: bool = False,
    bring_back: bool = False,
    on_bad: Callable[[BadLine], None] | None = None,
    progress: Callable[[Stage, int], None] | None = None,
) -> Report:
    """Merge the people of ``stream`` into the profiles, by ``external_id``, in one transaction.

    A person who is new is created. Of one who is known, what the file says replaces what was there: attributes and
    consent by key (an empty attribute is removed, an empty consent says nothing), everything else as a whole; what
    the file has no column or key for stays. Devices are added, and move here when another person had them.

    With a bad line nothing is written, unless ``skip_bad`` leaves those lines out. What stands twice in the file is
    bad but for its first line. Who was erased before is left out, unless ``bring_back``. ``dry_run`` does it all and
    keeps nothing. ``encoding``, ``delimiter`` and ``infer_types`` as in ``CsvRows``. Raises ``lines.Unreadable`` when
    the file as a whole makes no sense.
    """
    tell = progress or (lambda stage, count: None)
    bad = _Bad(on_bad)
    with transaction.atomic():
        rows: Rows
        if format is Format.CSV:
            rows = CsvRows(stream, encoding=encoding, delimiter=delimiter, infer_types=infer_types)
            _refuse_unknown_topics(rows.columns)
        else:
            rows = NdjsonRows(stream, encoding=encoding)
        lines = staging.fill(rows, on_bad=bad.add, progress=lambda count: tell(Stage.READ, count))
        tell(Stage.CHECK, lines)
        for repeated in staging.drop_repeated():
            bad.add(repeated)
        zones, locales = staging.counts_of("time_zone"), staging.counts_of("locale")
        written = Written()
        if skip_bad or not bad.count:
            tell(Stage.WRITE, lines)
            written = merging.merge(now=now, by=by, bring_back=bring_back)
        is_kept = not dry_run and (skip_bad or not bad.count)
        if is_kept:
            counts = {"lines": lines, "skipped": bad.count, **written._asdict()}
            trail.record(action=Action.RECIPIENT_IMPORT, by=by, now=now, changes=counts)
        else:
            transaction.set_rollback(True)
    return Report(
        lines=lines,
        written=written,
        is_kept=is_kept,
        bad_lines=bad.count,
        bad=tuple(sorted(bad.first)),
        unknown_zones={zone: count for zone, count in zones.items() if zone not in ZONE_NAMES},
        unknown_locales={locale: count for locale, count in locales.items() if not _is_known_locale(locale)},
        renamed=rows.renamed,
        number_like=rows.number_like,
        columns=rows.columns,
    )


def _refuse_unknown_topics(columns: Iterable[Column]) -> None:
    names = {key: column.name for column in columns if (key := consent_key(column.field))}
    if unknown := topics.unknown(names):
        words = say(
            "has a column %(column)s, and there is no topic of this key: make the topic first, or correct the column",
            column=f"{names[unknown[0]]!r}",
        )
        raise Unreadable(words)


class _Bad:
    """Counts bad lines and keeps the first of them."""

    def __init__(self, on_bad: Callable[[BadLine], None] | None) -> None:
        self.count = 0
        self.first: list[BadLine] = []
        self._on_bad = on_bad

    def add(self, line: BadLine) -> None:
        self.count += 1
        if len(self.first) < MAX_KEPT:
            self.first.append(line)
        if self._on_bad:
            self._on_bad(line)


def _is_known_locale(locale: str) -> bool:
    for candidate in locale_chain(locale=locale, default_locale=""):
        try:
            Locale.parse(candidate, sep="-")
        except (ValueError, UnknownLocaleError):
            continue
        return True
    return False

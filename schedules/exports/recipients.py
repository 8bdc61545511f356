"""Exporting people: a page at a time by their external ids, so that nothing grows and no transaction lasts."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast

from audit import trail
from audit.models import Action
from schedules import recipients
from schedules.exports.cells import Person, csv_lines, ndjson_lines
from schedules.fields import UnreadableText
from schedules.imports.recipients import Format
from schedules.models import Device, Recipient

log = structlog.get_logger(__name__)

_PAGE: Final = 1_000  # people that are in memory at once
_PIECE: Final = 64 * 1024  # characters that are handed on together
_WRITERS: Final = {Format.CSV: csv_lines, Format.NDJSON: ndjson_lines}


@dataclass(frozen=True)
class Wanted:
    """Whom to export; everybody unless something is said. As ``recipients.matching`` has it."""

    prefix: str | None = None
    locale: str | None = None
    time_zone: str | None = None
    tag: str | None = None
    has_email: bool | None = None

    def rows(self) -> "QuerySet[Recipient]":
        return recipients.matching(**asdict(self)).prefetch_related(None)

    def told(self) -> dict[str, Any]:
        """What the audit keeps. Of an external id it keeps not even how it begins, since that may be a whole one."""
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return {**said, "prefix": "…"} if "prefix" in said else said


def export_recipients(
    *,
    format: Format,
    by: str,
    now: datetime,
    wanted: Wanted | None = None,
    on_left_out: Callable[[int], None] | None = None,
) -> Iterator[bytes]:
    """The people whom ``wanted`` asks for, in the order of their external ids, in pieces of a UTF-8 file.

    The audit has it before the first piece is read, with how many there were then. Each person is as of the moment at
    which his page of 1,000 is read: who is there all the time is in it once, who comes or goes meanwhile may be.
    ``on_left_out`` is told the number of each whose address or token can't be read: half a person would empty, when it
    is imported, what is missing.
    """
    wanted = wanted or Wanted()
    changes = {"file": f"people.{format}", "people": wanted.rows().count()}
    if told := wanted.told():
        changes["filter"] = ", ".join(f"{name}={value}" for name, value in told.items())
    trail.record(action=Action.EXPORT_FILE, by=by, now=now, changes=changes)
    return _pieces(_WRITERS[format](_people(wanted, on_left_out)))


def _pieces(lines: Iterator[str]) -> Iterator[bytes]:
    waiting, size = [], 0
    for line in lines:
        waiting.append(line)
        size += len(line)
        if size >= _PIECE:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting).encode()


def _people(wanted: Wanted, on_left_out: Callable[[int], None] | None) -> Iterator[Person]:
    rows = wanted.rows().order_by("external_id")
    texts = [Cast(name, TextField()) for name in ("tags", "consent", "attributes")]
    columns = rows.values_list("id", "external_id", "email", "locale", "time_zone", "quiet_hours", *texts)
    after = None
    while True:
        page = list((columns if after is None else columns.filter(external_id__gt=after))[:_PAGE])
        if not page:
            return
        after = page[-1][1]
        devices = _devices_of([row[0] for row in page])
        for pk, *fields in page:
            theirs = devices.get(pk, [])
            if any(isinstance(text, UnreadableText) for text in (fields[1], *(token for _, token in theirs))):
                log.error("export_left_out", recipient_id=pk)
                if on_left_out:
                    on_left_out(pk)
                continue
            yield Person._make([*fields, sorted(theirs)])


def _devices_of(ids: list[int]) -> dict[int, list[tuple[str, str]]]:
    """Those in use; one that a provider has retired would be switched on again by an import."""
    found = defaultdict(list)
    in_use = Device.objects.filter(recipient__in=ids, active=True)
    for pk, platform, token in in_use.values_list("recipient_id", "platform", "token"):
        found[pk].append((platform, token))
    return found

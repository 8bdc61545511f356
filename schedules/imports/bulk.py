"""People from NDJSON, a result for each line: what is wrong with one of them is no concern of the others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, BinaryIO

from django.db import transaction

from audit import trail
from audit.models import Action
from schedules.imports import merging, staging
from schedules.imports.lines import Unreadable
from schedules.imports.ndjson_rows import NdjsonRows
from schedules.imports.rows import BadLine, Row
from schedules.imports.values import Refused, UnknownField, problem_of
from schedules.problems import Problem, say


class Status(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    INVALID = "invalid"
    LEFT_OUT = "left_out"


@dataclass(slots=True)
class Line:
    """What became of one line. ``external_id`` is None where none could be read."""

    line: int
    external_id: str | None
    status: Status = Status.UNCHANGED
    problems: tuple[Problem, ...] = ()


@transaction.atomic
def merge_lines(*, stream: BinaryIO, by: str, now: datetime, bring_back: bool = False) -> list[Line]:
    """Merge the people of ``stream`` into the profiles as ``import_recipients`` does, leaving bad lines out.

    Who was erased before is left out too, unless ``bring_back``.

    The results are in the order of the lines, without the empty ones, and all in memory: limit the stream. Raises
    ``Unreadable``.
    """
    results = _Results()
    rows = NdjsonRows(stream, encoding="utf-8", on_bad_person=results.bad_person, is_public=True)
    staging.fill(results.noting(rows), on_bad=results.bad_line, progress=lambda count: None)
    if not results.lines:
        raise Unreadable(say("holds nothing but empty lines: send one JSON object a line"))
    for repeated in staging.drop_repeated():
        results.bad_line(repeated)
    written = merging.merge(
        now=now, by=by, on_person=results.written, on_left_out=results.left_out, bring_back=bring_back
    )
    counts = {"lines": len(results.lines), "skipped": results.bad, **written._asdict()}
    trail.record(action=Action.RECIPIENT_IMPORT, by=by, now=now, changes=counts)
    return [results.lines[number] for number in sorted(results.lines)]


def _problem(fault: Refused) -> Problem:
    if isinstance(fault, UnknownField):
        return Problem(fault.field.replace("~", "~0").replace("/", "~1"), "unknown", f"It {fault.reason}.")
    return problem_of(fault.field, fault.reason)


class _Results:
    def __init__(self) -> None:
        self.lines: dict[int, Line] = {}
        self.bad = 0
        self._good: dict[str, Line] = {}

    def noting(self, rows: NdjsonRows) -> Iterator[Row | BadLine]:
        for row in rows:
            if isinstance(row, Row):
                line = self.lines[row.line] = Line(row.line, row.external_id)
                self._good.setdefault(row.external_id, line)  # of several the first is taken
            yield row

    def bad_person(self, number: int, found: Mapping[str, Any], faults: list[Refused]) -> None:
        problems = tuple(map(_problem, faults))
        self.lines[number] = Line(number, found.get("external_id"), Status.INVALID, problems)

    def bad_line(self, bad: BadLine) -> None:
        self.bad += 1
        line = self.lines.setdefault(bad.line, Line(bad.line, None))
        line.status = Status.INVALID
        line.problems = line.problems or (problem_of(bad.field, bad.reason),)

    def written(self, external_id: str, is_new: bool) -> None:
        self._good[external_id].status = Status.CREATED if is_new else Status.UPDATED

    def left_out(self, external_id: str) -> None:
        self._good[external_id].status = Status.LEFT_OUT

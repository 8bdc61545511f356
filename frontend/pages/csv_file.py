"""Tables as files, streamed line by line. No cell is one that a spreadsheet would compute."""

import csv
from collections.abc import Iterable, Iterator

from django.http import HttpRequest, StreamingHttpResponse

from audit import trail
from audit.models import Action
from frontend.access import actor
from schedules import clock
from schedules.spreadsheets import guarded


class _Line:
    """Stands for a file: what csv writes is handed on."""

    def write(self, text: str) -> str:
        return text


def streamed(request: HttpRequest, rows: Iterable[Iterable[object]], *, name: str) -> StreamingHttpResponse:
    """``rows``, headings first, as the download ``name``.csv; the audit keeps who asked for it."""
    trail.record(action=Action.EXPORT_FILE, by=actor(request.user), now=clock.now(), changes={"file": name})
    return StreamingHttpResponse(
        _lines(rows),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "no-store"},
    )


def _lines(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    writer = csv.writer(_Line())
    yield "\ufeff"  # by which spreadsheets know that it is UTF-8
    for row in rows:
        yield str(writer.writerow([_safe(cell) for cell in row]))


def _safe(cell: object) -> object:
    """What begins as a formula becomes a text, by an apostrophe in front. Numbers stay numbers."""
    if not isinstance(cell, str):
        return cell
    text = guarded(cell)
    # What spreadsheets strip before they look.
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text

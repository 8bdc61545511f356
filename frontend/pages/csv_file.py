"""Tables as files, streamed line by line. No cell is one that a spreadsheet would compute."""

import csv
import re
from collections.abc import Iterable, Iterator

from django.http import HttpRequest, StreamingHttpResponse

from audit import trail
from audit.models import Action
from frontend.access import actor
from schedules import clock

# What a spreadsheet takes for a formula, and what it strips before it looks (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# Where spreadsheets of other countries than ours would begin a cell: they split at semicolons or tabs, and drop quotes
# and spaces that come next.
_SPLIT = re.compile("([;\t\r\n][\"' ]*)(?=[=+@＝＋－＠-])")


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
    text = _SPLIT.sub(r"\1'", cell)
    return f"'{text}" if text.startswith(_FORMULA) else text

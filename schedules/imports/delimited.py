"""CSV records with the number of the line each begins on.

The dialect is RFC 4180 with any of three delimiters and any line ends; quotes are read strictly, since what a stray
quote swallows would be lost. A record that can't be read costs its first line only: reading goes on at the next one.
"""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from schedules.imports.lines import MAX_LINE, fault_of
from schedules.problems import say

DELIMITERS: Final = {",": "comma", ";": "semicolon", "\t": "tab"}

_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_QUOTES = say(
    'has a quote that isn\'t closed as it should be: each " needs its partner, and inside a quoted field it is ""'
)


class Record(NamedTuple):
    """``fault`` says why the record can't be used; it is empty when ``cells`` can be."""

    line: int
    cells: list[str]
    fault: str


class _TooLong(Exception):
    pass


def read_records(lines: Iterator[str], *, delimiter: str, encoding: str, first_line: int = 1) -> Iterator[Record]:
    """The records of ``lines``; the first is the header, and sets how many cells the others must have.

    Records without any content are left out.
    """
    line, width = first_line, 0
    taken: list[str] = []  # lines of the record at hand
    again: deque[str] = deque()  # lines to be read once more
    while True:
        reader = csv.reader(_feed(lines, taken, again), delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            for cells in reader:
                if any(cells):
                    width = width or len(cells)
                    yield Record(line, cells, _fault(cells, width, taken, encoding))
                    if len(cells) != width:
                        _give_back(taken, again)
                line += len(taken)
                taken.clear()
            return
        except (csv.Error, _TooLong) as error:
            yield Record(line, [], _reason(error, taken))
            _give_back(taken, again)
            line += len(taken)
            taken.clear()


def choose_delimiter(header: str, *, is_key: Callable[[str], bool]) -> str:
    """The delimiter that gives the line ``header`` a cell that ``is_key``; else the one that gives most cells."""

    def score(delimiter: str) -> tuple[bool, int]:
        cells = header.split(delimiter)
        return any(is_key(cell.strip(' "\r\n')) for cell in cells), len(cells)

    return max(DELIMITERS, key=score)


def separator_of(line: str) -> str:
    """The delimiter that Excel's first line ``sep=;`` names; empty when ``line`` is none such."""
    found = _SEPARATOR_LINE.fullmatch(line)
    return found[1] if found else ""


def _feed(lines: Iterator[str], taken: list[str], again: deque[str]) -> Iterator[str]:
    size = 0
    while True:
        line = again.popleft() if again else next(lines, "")
        if not line:
            return
        size = size + len(line) if taken else len(line)
        taken.append(line)
        if size > MAX_LINE:
            raise _TooLong
        yield line


def _give_back(taken: list[str], again: deque[str]) -> None:
    """All but the first line: they may be whole records that a stray quote has tied together."""
    again.extendleft(reversed(taken[1:]))
    del taken[1:]


def _fault(cells: list[str], width: int, taken: list[str], encoding: str) -> str:
    text = taken[0] if len(taken) == 1 else "".join(taken)
    # The quick test first: almost every line passes it, and isascii() costs nothing.
    fault = "" if text.isascii() and "\0" not in text else fault_of(text, encoding=encoding)
    if len(cells) == width or fault:
        return fault
    if len(cells) < width:
        return say(
            "has %(size)s of the header's %(width)s fields: add the missing ones, if only as empty cells",
            size=len(cells),
            width=width,
        )
    return say(
        "has %(size)s fields where the header has %(width)s: put a field that holds the delimiter in quotes",
        size=len(cells),
        width=width,
    )


def _reason(error: Exception, taken: list[str]) -> str:
    if isinstance(error, _TooLong) and len(taken) == 1:
        return say("is longer than %(most)s characters: shorten it", most=MAX_LINE)
    if "field limit" in str(error):
        return say(
            "has a field of more than %(most)s characters: shorten it, or close its quote",
            most=csv.field_size_limit(),
        )
    return _QUOTES

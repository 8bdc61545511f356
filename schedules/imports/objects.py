"""NDJSON: one JSON object a line, whatever is in it."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO

from schedules.imports.lines import MAX_LINE, Unreadable, fault_of, read_lines
from schedules.imports.values import Refused, read_json
from schedules.problems import say


def lines_of(stream: BinaryIO, *, encoding: str) -> Iterator[tuple[int, str]]:
    """Each line that is not empty, with its number. Raises ``Unreadable``, also when the file is one JSON list."""
    lines = read_lines(stream, encoding=encoding, newline="\n")
    first = next(lines)
    if first.lstrip().startswith("["):
        raise Unreadable(say("is one JSON list: write one object a line, as “jq -c '.[]'” does"))
    return ((number, line) for number, line in enumerate(chain([first], lines), start=1) if not line.isspace())


def read_object(line: str, *, encoding: str, such_as: str, is_exact: bool = False) -> dict[str, Any]:
    """Raises ``Refused``, with the words ``such_as`` for what is no object. ``is_exact`` as in ``values.read_json``."""
    if len(line) > MAX_LINE:
        raise Refused("", say("is longer than %(most)s characters: shorten it", most=MAX_LINE))
    if (not line.isascii() or "\0" in line) and (fault := fault_of(line, encoding=encoding)):
        raise Refused("", fault)
    found = read_json("", line.rstrip("\r\n"), is_exact=is_exact)
    if not isinstance(found, dict):
        raise Refused("", such_as)
    return found

"""People from CSV."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, BinaryIO

from schedules.imports import values
from schedules.imports.columns import Layout, consent_key, field_of, read_header
from schedules.imports.delimited import choose_delimiter, read_records, separator_of
from schedules.imports.lines import Unreadable, read_lines
from schedules.imports.rows import BadLine, Column, Row, attributes_of
from schedules.imports.values import Refused, quote
from schedules.problems import say
from schedules.spreadsheets import unguarded

_SAMPLED = 1_000  # rows in which columns of numbers are looked for

_REMEMBERED = 1_000  # short cells of a column, each of which is read once only: most columns repeat themselves
_SHORT = 100  # characters

Reader = Callable[[str], str]


def _of_spreadsheet(read: Reader) -> Reader:
    """Of a text that may have an apostrophe in front, as exports write it before what begins as a formula."""
    return lambda cell: read(unguarded(cell) if "'" in cell else cell)


_READERS: dict[str, Reader] = {
    "external_id": _of_spreadsheet(values.read_external_id),
    "email": _of_spreadsheet(values.read_email),
    "locale": _of_spreadsheet(partial(values.read_text, "locale")),
    "time_zone": _of_spreadsheet(partial(values.read_text, "time_zone")),
    "tags": values.read_tags_cell,
    "quiet_hours": values.read_quiet_hours_cell,
    "devices": values.read_devices_cell,
}
_REPEATING = ("locale", "time_zone", "tags", "quiet_hours")
_CONSENT, _ATTRIBUTES, _DROPPED = (Row._fields.index(field) for field in ("consent", "attributes", "dropped"))
_NOTHING = (None,) * (len(Row._fields) - 1)


class CsvRows:
    """The people of a CSV file; see ``rows.Rows``.

    ``delimiter`` empty: found by the header. ``infer_types`` makes numbers and booleans of untyped attributes that
    look like one. The header is read at once: raises ``Unreadable``.
    """

    def __init__(self, stream: BinaryIO, *, encoding: str, delimiter: str, infer_types: bool) -> None:
        lines = read_lines(stream, encoding=encoding, newline="")
        first = next(lines)
        separator = separator_of(first)
        start = next(lines, "") if separator else first
        self._records = read_records(
            chain([start], lines),
            delimiter=delimiter or separator or choose_delimiter(start, is_key=_is_key),
            encoding=encoding,
            first_line=2 if separator else 1,
        )
        self._layout = layout = self._read_header(infer_types)
        self._fields = [
            (Row._fields.index(field), layout.fields[field], _remembering(read) if field in _REPEATING else read)
            for field, read in _READERS.items()
            if field in layout.fields
        ]
        self._consents = [
            (index, _remembering(partial(values.read_consent_cell, field, key)))
            for field, index in layout.fields.items()
            if (key := consent_key(field))
        ]
        self._attributes = [
            (each.index, each.name, _remembering(partial(_member, each.name, each.read))) for each in layout.attributes
        ]
        self._document = layout.fields.get("attributes", -1)
        self._consent = layout.fields.get("consent", -1)
        self._texts = {each.index: each.name for each in layout.attributes if each.read is values.as_text}
        self._numbers: set[int] = set()
        self._sampled = 0

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._layout.columns

    @property
    def renamed(self) -> dict[str, str]:
        return dict(self._layout.renamed)

    @property
    def number_like(self) -> tuple[str, ...]:
        return tuple(name for index, name in self._texts.items() if index in self._numbers)

    def __iter__(self) -> Iterator[Row | BadLine]:
        for line, cells, fault in self._records:
            if fault:
                yield BadLine(line, "", fault)
                continue
            try:
                row = self._row(line, cells)
            except Refused as refused:
                yield BadLine(line, refused.field, refused.reason)
            else:
                if self._sampled < _SAMPLED:
                    self._sample(cells)
                yield row

    def _row(self, line: int, cells: list[str]) -> Row:
        row: list[Any] = [line, *_NOTHING]
        for place, index, read in self._fields:
            row[place] = read(cells[index])
        for index in self._layout.nameless:
            if cells[index]:
                raise Refused(
                    "",
                    say("has a value in column %(number)s, which has no name: name it in the header", number=index + 1),
                )
        if self._consents or self._consent >= 0:
            row[_CONSENT] = self._read_consents(cells)
        row[_ATTRIBUTES], row[_DROPPED] = self._read_attributes(cells)
        return Row._make(row)

    def _read_consents(self, cells: list[str]) -> str:
        """A column of its own comes last, and so wins over what the JSON object says under the same key."""
        document = cells[self._consent].strip() if self._consent >= 0 else ""
        said = values.read_consent(values.read_json("consent", document))[1:-1] if document else ""
        return "{" + ",".join(filter(None, [said, *(read(cells[index]) for index, read in self._consents)])) + "}"

    def _read_attributes(self, cells: list[str]) -> tuple[str | None, str | None]:
        kept: list[str] = []
        dropped: list[str] = []
        for index, name, read in self._attributes:
            if member := read(cells[index]):
                kept.append(member)
            else:
                dropped.append(name)
        if self._document >= 0 and (document := cells[self._document].strip()):
            named = {name for _, name, _ in self._attributes}
            for name, value in values.read_attribute_names(
                values.read_json("attributes", document, is_exact=True)
            ).items():
                if name in named:
                    continue
                if value is None:
                    dropped.append(name)
                else:
                    kept.append(f"{quote(name)}:{values.read_attribute(name, value)}")
        return attributes_of(kept, dropped)

    def _sample(self, cells: list[str]) -> None:
        self._sampled += 1
        for index in list(self._texts):
            cell = cells[index].strip()
            if values.is_number(cell):
                self._numbers.add(index)
            elif cell:
                del self._texts[index]

    def _read_header(self, infer_types: bool) -> Layout:
        header = next(self._records, None)
        if header is None:
            raise Unreadable(say("holds nothing but empty lines: the first line must name the columns"))
        if header.fault:
            raise Unreadable(say("has a header (line %(line)s) that %(fault)s", line=header.line, fault=header.fault))
        return read_header([cell.removeprefix("\ufeff") for cell in header.cells], infer_types=infer_types)


def _member(name: str, read: values.AttributeReader, cell: str) -> str:
    """A member of the JSON object of attributes; empty for an empty cell."""
    return f"{quote(name)}:{read(name, cell)}" if cell.strip() else ""


class _Remembered(dict[str, str]):
    def __init__(self, read: Reader) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, cell: str) -> str:
        found = self._read(cell)
        if len(self) < _REMEMBERED and len(cell) <= _SHORT:
            self[cell] = found
        return found


def _remembering(read: Reader) -> Reader:
    return _Remembered(read).__getitem__


def _is_key(name: str) -> bool:
    return field_of(name) == "external_id"

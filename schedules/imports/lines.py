"""A file's bytes as text lines, whatever the file turns out to be.

Nothing here takes more memory than one line of `MAX_LINE` characters, and no byte stops the reading: what is
invalid in the encoding becomes a lone surrogate, which `fault_of` finds again, so that a bad byte is one bad
line with a number and not the end of the file.
"""

import codecs
import io
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from schedules.problems import say

MAX_LINE: Final = 1024 * 1024  # characters; a longer line is cut here, and refused by whoever reads it

_ENCODINGS: Final = say(
    "cp1252 (Windows, Western Europe), cp1250 (Central Europe), cp1251 (Cyrillic), shift_jis or utf-16"
)
_MARKS: Final = (  # UTF-32 before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_TEXT: Final = (
    (b"PK\x03\x04", say("is a workbook or an archive: open it and save it as “CSV UTF-8”")),
    (b"\xd0\xcf\x11\xe0", say("is an old Excel workbook: open it and save it as “CSV UTF-8”")),
    (b"\x1f\x8b", say("is compressed: unpack it first")),
    (b"PAR1", say("is a Parquet file: export it as CSV or NDJSON")),
)


class Unreadable(ValueError):
    """The file as a whole can't be imported; the message completes “The file …” and names the remedy."""


def read_lines(stream: BinaryIO, *, encoding: str, newline: str) -> Iterator[str]:
    """The lines of ``stream`` with their ends, decoded. A byte-order mark is dropped, and wins over ``encoding``.

    ``newline`` is ``""`` for lines that end in CR, LF or CRLF, ``"\\n"`` for LF alone. Raises ``Unreadable`` for an
    empty file, one that is no text, an unknown encoding, and for bytes that the encoding can't step over.
    """
    buffered = io.BufferedReader(_Borrowed(stream), buffer_size=64 * 1024)
    start = buffered.peek(1024)[:1024]
    codec = _codec_of(start, encoding)
    try:
        text = io.TextIOWrapper(buffered, encoding=codec, errors="surrogateescape", newline=newline)
    except LookupError:
        raise Unreadable(
            say(
                "can't be read as %(encoding)s: give an encoding such as utf-8, %(encodings)s",
                encoding=f"{encoding!r}",
                encodings=_ENCODINGS,
            )
        ) from None
    number = 0
    try:
        while line := text.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE and not line.endswith(("\n", "\r")):
                _skip_rest(text)
            yield line
    except UnicodeError:  # of encodings with units of two or four bytes
        raise Unreadable(say("has a line %(number)s that is %(fault)s", number=number + 1, fault=_not(codec))) from None
    if not number:
        raise Unreadable(say("is empty but for its byte-order mark"))


def fault_of(text: str, *, encoding: str) -> str:
    """Why ``text`` can't be kept, empty when it can: it holds a NUL, or bytes that were invalid in the encoding."""
    if "\0" in text:
        return say("holds a NUL character: remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        return say("is %(fault)s", fault=_not(encoding))
    return ""


class _Borrowed(io.RawIOBase):
    """A stream that its owner closes, and not whoever wraps it here."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _codec_of(start: bytes, encoding: str) -> str:
    if not start:
        raise Unreadable(say("is empty"))
    for magic, message in _NO_TEXT:
        if start.startswith(magic):
            raise Unreadable(message)
    for mark, codec in _MARKS:
        if start.startswith(mark):
            return codec
    if start.count(0) > len(start) // 4 and not encoding.lower().startswith(("utf-16", "utf-32", "utf16", "utf32")):
        likely = "utf-16-be" if start[0] == 0 else "utf-16-le"
        raise Unreadable(
            say("looks like UTF-16 (every second byte is NUL): give its encoding, %(likely)s", likely=likely)
        )
    return encoding


def _skip_rest(text: io.TextIOWrapper) -> None:
    while rest := text.readline(MAX_LINE):
        if rest.endswith(("\n", "\r")):
            break


def _not(encoding: str) -> str:
    name = "UTF-8" if encoding.lower().startswith("utf-8") else encoding
    return say(
        "not valid %(name)s: save the file as UTF-8, or give the encoding it is in, such as %(encodings)s",
        name=name,
        encodings=_ENCODINGS,
    )

"""Zip archives from anybody: unpacked into a folder that is gone afterwards, and no more of them than it can take."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Final

from schedules.imports.lines import Unreadable
from schedules.problems import say

MAX_ENTRIES: Final = 5_000
MAX_UNPACKED: Final = 100 * 1024 * 1024  # bytes


@contextmanager
def unpacked(stream: IO[bytes]) -> Iterator[Path]:
    """The folder in which its files lie. Raises ``Unreadable``.

    No name leads out of the folder, since ``zipfile`` takes ``..`` and roots away, and no entry grows past the size it
    gives.
    """
    with TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(stream) as archive:
                _check(archive.infolist())
                archive.extractall(folder)
        except Unreadable:
            raise
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError):
            raise Unreadable(say("is no zip archive, or a damaged one: send it as an export gives it")) from None
        except OSError:
            words = say("has names that no folder can hold: give its files short names, each once")
            raise Unreadable(words) from None
        yield Path(folder)


def _check(entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAX_ENTRIES:
        raise Unreadable(say("holds more than %(most)s files: split it", most=MAX_ENTRIES))
    if sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise Unreadable(say("unpacks to more than %(most)s bytes: split it", most=MAX_UNPACKED))
    if any(entry.flag_bits & 0x1 for entry in entries):
        raise Unreadable(say("is encrypted: send it without a password"))

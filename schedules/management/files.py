"""Files that commands read and write."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from django.core.management.base import CommandError

from schedules.imports.recipients import Format
from schedules.imports.uploads import ENDINGS


def format_of(name: str, given: str | None) -> Format:
    """``given``, or what the file's ending says."""
    found = given or ENDINGS.get(Path(name).suffix.lower())
    if found is None:
        raise CommandError(
            f"{name}: whether it is CSV or NDJSON can't be told by its name: add --format csv or ndjson."
        )
    return Format(found)


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """For reading; ``-`` is the standard input."""
    if name == "-":
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file


@contextmanager
def written_to(name: str) -> Iterator[BinaryIO]:
    """For its owner alone to read, and there as a whole or not at all; ``-`` is the standard output."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = Path(f"{name}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            yield file
        part.replace(name)
    except OSError as error:
        raise CommandError(f"{error.filename or name}: {error.strerror}. Nothing was exported.") from None
    finally:
        part.unlink(missing_ok=True)

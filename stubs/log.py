"""What a stub has accepted, as lines of a file that only grows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Accepted(NamedTuple):
    """A message the stub has taken; `at` is UTC.

    `failure`: why the service would not render it after all. `collapse_id`: under which a device shows it, in the place
    of an earlier one with the same id; `replaces`: the message id of that one. `list_unsubscribe`: the header's value,
    where RFC 8058's other one stands beside it. `run`: the value of that message tag.
    """

    at: str
    message_id: str
    to: str
    subject: str
    delivery: str
    text: str
    html: str
    failure: str = ""
    collapse_id: str = ""
    replaces: str = ""
    list_unsubscribe: str = ""
    run: str = ""


_quoted = json.encoder.encode_basestring_ascii  # a line by json.dumps takes twice as long
_PARTS = ("text", "html")
_OPTIONAL = ("html", "failure", "collapse_id", "replaces", "list_unsubscribe", "run")


class Log:
    """NDJSON, a line a message: at, message_id, to, subject, delivery, text_sha256 and, where there is any,
    html_sha256, failure, collapse_id, replaces, list_unsubscribe and run. With `bodies` text and html stand there, not
    their hashes.

    Written without a buffer of our own; a path of None writes nothing.
    """

    def __init__(self, path: Path | None, *, bodies: bool = False) -> None:
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._bodies = bodies

    def write(self, messages: Sequence[Accepted]) -> None:
        if self._file is None or not messages:
            return
        lines = memoryview("".join(map(self._line, messages)).encode())
        while lines:
            lines = lines[os.write(self._file, lines) :]

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def _line(self, message: Accepted) -> str:
        fields = []
        for name, value in zip(Accepted._fields, message, strict=True):
            if name in _PARTS and not self._bodies and (value or name == "text"):
                fields.append(f'"{name}_sha256": "{hashlib.sha256(value.encode()).hexdigest()}"')
            elif value or name not in _OPTIONAL:
                fields.append(f'"{name}": {_quoted(value)}')
        return f"{{{', '.join(fields)}}}\n"

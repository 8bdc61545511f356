"""From the body of an answer to its members. Of a body that can't be used it is said where the fault is, not what is
there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from schedules.remote.errors import Unavailable
from schedules.storable import MAX_INTEGER

MAX_CURSOR: Final = 2000  # characters


def text_of(body: bytes, error: type[Unavailable]) -> str:
    """Raises ``error`` (no_json)."""
    with suppress(UnicodeDecodeError):
        return body.decode()
    # Not as an answer to that error, which holds the body.
    raise error("no_json", "sent a body that is no UTF-8")


def object_of(text: str, error: type[Unavailable]) -> Mapping[str, Any]:
    """Raises ``error`` (no_json, wrong_shape)."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as failure:
        where = f" from character {failure.pos + 1:,} of {len(text):,} on"
    except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
        where = ""
    else:
        if isinstance(content, dict):
            return content
        raise error("wrong_shape", "sent JSON that is no object")
    raise error("no_json", f"sent a body that is no JSON{where}")


def whole_number(content: Mapping[str, Any], name: str, error: type[Unavailable]) -> int:
    """Raises ``error`` (wrong_shape)."""
    value = content.get(name)
    if isinstance(value, float) and value.is_integer():  # one number in JSON, however it is written
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INTEGER:
        raise misshapen(name, f"a whole number from 0 to {MAX_INTEGER}", error)
    return value


def next_cursor(content: Mapping[str, Any], error: type[Unavailable]) -> str | None:
    """None on the last page. Raises ``error`` (wrong_shape)."""
    if "nextCursor" not in content:
        raise misshapen("nextCursor", "null on the last page, else a text", error)
    value = content["nextCursor"]
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CURSOR or not value.isprintable():
        raise misshapen("nextCursor", f"null, or a text of 1 to {MAX_CURSOR} printable characters", error)
    return value


def misshapen(name: str, wanted: str, error: type[Unavailable]) -> Unavailable:
    return error("wrong_shape", f"sent an object whose member {name} is not {wanted}")

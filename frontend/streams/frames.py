"""Server-sent events as bytes (WHATWG HTML, 9.2)."""

import json
from collections.abc import Mapping
from typing import Any, Final

HEARTBEAT: Final = b":\n\n"
"""A comment: proxies and readers see that somebody is there."""


def event(name: str, data: Mapping[str, Any], *, last: str = "") -> bytes:
    """``last``: what the reader sends as ``Last-Event-ID`` when it comes again after this event."""
    head = f"id: {last}\n" if last else ""
    return f"{head}event: {name}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()

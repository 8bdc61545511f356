"""Where a name leads, asked for a bounded time.

The system's resolver has no limit of its own that could be set here, so it is asked in a thread, and a thread that it
holds up is left behind: at most ``_AT_ONCE`` of them.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Thread
from typing import Final

from schedules.outgoing.errors import Unavailable
from schedules.outgoing.targets import IPAddress, Target

_AT_ONCE: Final = 16
_free = BoundedSemaphore(_AT_ONCE)


def resolve(target: Target, *, timeout_s: float) -> list[IPAddress]:
    """Every address of the target's host, each once, in the system's order. Raises ``Unavailable``."""
    if target.literal is not None:
        return [target.literal]
    came: SimpleQueue[list[IPAddress]] = SimpleQueue()
    free = _free
    if not free.acquire(timeout=timeout_s):
        raise Unavailable("unresolved", "can't be looked up: the resolver of this machine keeps too many waiting")
    Thread(target=_ask, args=(target, came, free), name="resolve", daemon=True).start()
    with suppress(Empty):
        if found := came.get(timeout=timeout_s):
            return found
    raise Unavailable("unresolved", "has a name that leads nowhere at the moment")


def _ask(target: Target, came: SimpleQueue[list[IPAddress]], free: BoundedSemaphore) -> None:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        came.put([*dict.fromkeys(ip_address(each[4][0]) for each in found)])
    except (OSError, ValueError):  # no such name, no resolver, or a name that it can't put into a question
        came.put([])
    finally:
        free.release()

"""Word to open streams that something has happened in somebody's inbox, passed on by Redis once it is committed.

It may be lost: whoever listens looks by himself too, only later. PostgreSQL's NOTIFY would not be, but takes one lock
for all commits that notify, and LISTEN does not go through PgBouncer in transaction mode.
"""

from collections.abc import Collection

import structlog

from delivery import counters
from delivery.counters import CountersAway, Listener

log = structlog.get_logger(__name__)

_CHANNEL = "inbox"


def tell(recipient_ids: Collection[int]) -> None:
    """Once for all of a call. Costs nothing but a log line where Redis is away."""
    if not recipient_ids or counters.rest():
        return
    try:
        counters.publish(_CHANNEL, ",".join(map(str, recipient_ids)))
    except CountersAway as error:
        log.warning("wakeup_lost", error=error)


class Ear:
    """Hears of whose inboxes there is word."""

    def __init__(self) -> None:
        self._listener = Listener(_CHANNEL)

    def next(self, *, seconds: float) -> list[int]:
        """Ids of recipients, none if nothing is heard in so many seconds. Raises ``CountersAway``; then ask again."""
        heard = self._listener.next(seconds=seconds)
        return [int(each) for each in (heard or "").split(",") if each.isdecimal()]

    def close(self) -> None:
        self._listener.close()

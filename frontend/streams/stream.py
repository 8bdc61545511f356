"""One person's open stream: what it was told, and what waits to be written."""

import asyncio
from enum import StrEnum

from delivery.arrivals import Arrived, Cursor, Watched
from frontend.api.inbox import shown
from frontend.api.inbox_stream import Admission
from frontend.streams.frames import event

# Pieces that may wait to be written. Who reads so slowly is better off with the list.
_WAITING = 50


class End(StrEnum):
    """Why a stream ends, other than that its reader went away."""

    EXPIRED = "token_expired"
    REVOKED = "token_revoked"
    RESTART = "restart"
    SLOW = "slow"
    FAILED = "failed"


class Stream:
    """``told`` and ``end`` are for the hub, ``next`` for who writes to the reader."""

    def __init__(self, admission: Admission) -> None:
        self.recipient_id, self.token_id = admission.recipient_id, admission.token_id
        self.ended: End | None = None
        self._cursor = Cursor.parse(admission.last_event_id)
        self._is_lost = bool(admission.last_event_id) and self._cursor is None
        self._unread: int | None = None
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)

    @property
    def watched(self) -> Watched:
        return Watched(self.recipient_id, self._cursor)

    def told(self, arrived: Arrived) -> list[str]:
        """Have the reader told what there is to tell; names of the events."""
        names, pieces = [], []
        if arrived.is_cut or self._is_lost:
            names.append("reset")
            pieces.append(event("reset", {}))
        for message, place in arrived.messages:
            names.append("message")
            pieces.append(event("message", shown(message), last=str(place)))
        if names or arrived.unread != self._unread:
            names.append("unread")
            pieces.append(event("unread", {"unread": arrived.unread}, last=str(arrived.cursor)))
        self._cursor, self._unread, self._is_lost = arrived.cursor, arrived.unread, False
        if pieces:
            self._put(b"".join(pieces))
        return names

    def end(self, why: End) -> None:
        """What waits is still written, then the reason. The first one stands."""
        if self.ended is None:
            self.ended = why
            if not self._waiting.full():
                self._waiting.put_nowait(b"")  # whoever waits for the next piece wakes up

    async def next(self) -> bytes:
        """The next piece, once there is one; the event ``end`` when that is all."""
        if self.ended and self._waiting.empty():
            return self.farewell
        return await self._waiting.get() or self.farewell

    @property
    def farewell(self) -> bytes:
        return event("end", {"reason": self.ended})

    def _put(self, piece: bytes) -> None:
        if self.ended is None:
            try:
                self._waiting.put_nowait(piece)
            except asyncio.QueueFull:
                self.end(End.SLOW)

"""The open streams of a process, and the rounds in which the inboxes behind them are looked at.

A round asks one statement for each 500 streams, on one connection. Word of a message starts one at once; all streams
have theirs every few seconds anyway, so that word which is lost delays and does no more.
"""

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any, TypeVar

import structlog
from django.db import InterfaceError, OperationalError, close_old_connections, connections

from delivery.arrivals import look
from delivery.counters import CountersAway
from delivery.wakeups import Ear
from frontend.api.access import bearers
from frontend.streams.pace import Pace
from frontend.streams.stream import End, Stream
from schedules.models import Recipient

log = structlog.get_logger(__name__)
T = TypeVar("T")

_TOGETHER = 500
# Seconds that the ear listens before it looks whether it is to end, and for which it rests where Redis is away.
_LISTENED_S = 0.5


class Hub:
    """Belongs to one event loop, where all but ``_listen`` and what asks the database runs."""

    def __init__(self, pace: Pace) -> None:
        self.streams: set[Stream] = set()
        self.events: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.is_listening = False
        self.looked_at = time.monotonic()
        self._pace = pace
        self._of_person: dict[int, set[Stream]] = defaultdict(set)
        self._due: set[Stream] = set()
        self._word = asyncio.Event()
        self._over = threading.Event()
        # Django's connections belong to threads.
        self._database = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rounds")

    def open(self, stream: Stream) -> None:
        self.streams.add(stream)
        self._of_person[stream.recipient_id].add(stream)
        self._due.add(stream)
        self._word.set()

    def close(self, stream: Stream) -> None:
        self.streams.discard(stream)
        self._due.discard(stream)
        self._of_person[stream.recipient_id].discard(stream)
        if not self._of_person[stream.recipient_id]:
            del self._of_person[stream.recipient_id]
        self.ends[stream.ended or "left"] += 1

    def heard(self, recipient_ids: Iterable[int]) -> None:
        """There is word of these inboxes."""
        if found := {stream for each in recipient_ids for stream in self._of_person.get(each, ())}:
            self._due |= found
            self._word.set()

    async def run(self) -> None:
        """Rounds, until it is cancelled."""
        listening = threading.Thread(target=self._listen, args=[asyncio.get_running_loop()], name="ear", daemon=True)
        listening.start()
        try:
            await self._rounds()
        finally:
            self._over.set()
            self._database.submit(connections.close_all)
            self._database.shutdown()

    def end_all(self) -> None:
        for stream in self.streams:
            stream.end(End.RESTART)

    async def _rounds(self) -> None:
        full_at = time.monotonic()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._word.wait(), max(full_at - time.monotonic(), 0.001))
            self._word.clear()
            try:
                if time.monotonic() >= full_at:
                    full_at = time.monotonic() + self._pace.look_s
                    self._due |= self.streams
                    await self._end_without_token()
                await self._look_at_due()
                self.looked_at = time.monotonic()
            except (OperationalError, InterfaceError) as error:
                log.warning("streams_database_away", error=error, streams=len(self.streams))
                full_at = time.monotonic() + self._pace.again_s
            await asyncio.sleep(self._pace.between_s)

    async def _look_at_due(self) -> None:
        while self._due:
            some = list(islice(self._due, _TOGETHER))
            await self._look_at(some)
            self._due.difference_update(some)

    async def _look_at(self, some: Sequence[Stream]) -> None:
        try:
            arrived = await self._ask(look, [stream.watched for stream in some])
            told = [(stream, stream.told(each)) for stream, each in zip(some, arrived, strict=True)]
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            log.exception("round_failed", streams=len(some))
            if len(some) == 1:
                some[0].end(End.FAILED)
            else:  # whoever it is, the others are told
                for stream in some:
                    await self._look_at([stream])
        else:
            self.events.update(name for _, names in told for name in names)

    async def _end_without_token(self) -> None:
        standing = list(self.streams)
        if not standing:
            return
        good = await self._ask(_good, {(stream.token_id, stream.recipient_id) for stream in standing})
        for stream in standing:
            if (stream.token_id, stream.recipient_id) not in good:
                stream.end(End.REVOKED)

    async def _ask(self, question: Callable[[Any], T], about: Any) -> T:
        """In the thread of the database's connection."""
        return await asyncio.get_running_loop().run_in_executor(self._database, _asked, question, about)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        ear = Ear()
        while not self._over.is_set():
            try:
                recipient_ids = ear.next(seconds=_LISTENED_S)
                self.is_listening = True
            except CountersAway as error:
                if self.is_listening:
                    log.warning("streams_hear_nothing", error=error)
                self.is_listening = False
                self._over.wait(_LISTENED_S)
                continue
            with suppress(RuntimeError):  # the loop has ended meanwhile
                if recipient_ids:
                    loop.call_soon_threadsafe(self.heard, recipient_ids)
        ear.close()


def _asked(question: Callable[[Any], T], about: Any) -> T:
    close_old_connections()
    return question(about)


def _good(pairs: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those whose token is good still and whose bearer is that recipient still."""
    names = bearers({token_id for token_id, _ in pairs})
    people = dict(Recipient.objects.filter(pk__in={each for _, each in pairs}).values_list("pk", "external_id"))
    return {(token_id, each) for token_id, each in pairs if token_id in names and names[token_id] == people.get(each)}

"""An audience that the user service tells, page by page.

A page is one transaction: its people mirrored into the profiles, their numbers kept, the cursor of the next one in the
place of its own. So whoever dies between two pages, or has read one twice, loses and doubles nobody. The service is
asked outside of transactions. Nobody is sent to from half an audience: rows are written when the last page is in.
"""

import gc
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected, LockNotAvailable

from delivery import counts
from delivery.materialise import sharing
from delivery.materialise.sharing import AskedByAnother, Superseded, UnderWay
from schedules import clock, encryption
from schedules.models import EVERYBODY, Resolution, ResolutionUse
from schedules.user_service import client, left_alone, standing
from schedules.user_service.mirror import Overlapping, Told, mirror

__all__ = ["AskedByAnother", "Crowded", "Superseded", "TurnOver", "UnderWay", "mirror_everybody", "resolve", "some_of"]

# Who has changed the profiles, in the audit.
BY: Final = "system:user_service"
# Of one page, before the occurrence is put off; seconds before the second try, twice as many before each further one,
# and the longest wait that a worker sits out.
TRIES: Final = 3
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 5.0
# Beginnings of one attempt after the service has forgotten the cursor, or left people out.
RESTARTS: Final = 2
# Pages in a row in which somebody comes again and nobody is new: by then the service goes in a circle, whatever its
# cursors say. And those of people alone of whom nobody can say whether they came before: erased here, or unreadable.
BARREN_PAGES: Final = 3
IDLE_PAGES: Final = 100
# Seconds after which an attempt ends and another one goes on: others wait too, and no task may run for ever.
TURN_S: Final = 240.0
# For so long a page waits for whoever writes the same people or imports a file.
PATIENCE: Final = "5s"
# Failures by which the service as a whole is away, and not this audience; seconds for which nobody asks after one of
# them, at first and at the most.
SILENT: Final = frozenset({"unreachable", "timeout", "throttled", "server_error"})
LEFT_ALONE_S: Final = 15.0
LONGEST_LEFT_ALONE_S: Final = 60.0
LEFT_ALONE: Final = "left_alone"
# Real seconds, besides an answer's own, in which who asks it alone tells how that went.
ASKED_S: Final = sharing.ASKED_S

# Nobody is told that a page is kept, so nobody waits until it is on the disk: the rows do, and what was written before
# them is there then. A server that breaks down loses the last pages whole, with the cursor that stood beside them.
_OF_A_PAGE: Final = "SELECT set_config('lock_timeout', %s, true), set_config('synchronous_commit', 'off', true)"

log = structlog.get_logger(__name__)
_rng = random.SystemRandom()


class Crowded(Exception):
    """Others write people at this moment; nothing of the page was kept."""


class TurnOver(Exception):
    """The audience is too large for one attempt: what has come is kept, and the next one goes on there."""


class _Useless(Exception):
    """What has been read is of no use, nor is the cursor: it begins again, now or later."""

    def __init__(self, error: client.Unavailable | client.Refused) -> None:
        self.error = error


def resolve(
    audience: Mapping[str, Any],
    *,
    occurrence_id: int = EVERYBODY,
    since: datetime,
    now: datetime,
    turn_s: float = TURN_S,
    before_call: Callable[[], None] = lambda: None,
    on_page: Callable[[Resolution], None] = lambda resolution: None,
) -> Resolution:
    """The whole audience, from where it was left if that was within the hour; its people are in ``Resolution.read``.

    Runs that ask the same share it, if it is as of ``since`` or later. ``before_call`` keeps the lease, and may raise
    to end it here. Raises ``UnderWay``, ``AskedByAnother``, ``Crowded``, ``TurnOver``, ``client.Unavailable`` when it
    is to be tried later, and ``client.Refused`` when somebody has to see to it.
    """
    known = ResolutionUse.objects.select_related("resolution").filter(pk=occurrence_id).first()
    before_call()  # whoever has used that one up has ended the search with it
    restarts, ends = 0, time.monotonic() + turn_s
    while True:
        resolution = sharing.found(audience, known, occurrence_id=occurrence_id, since=since, now=now)
        if resolution.completed_at is not None:
            return resolution
        reader = _Reader(audience, resolution, occurrence_id)
        try:
            with sharing.asking(resolution) as go_on:
                whole = reader.read(ends=ends, before_calls=(before_call, go_on), on_page=on_page)
            sharing.wake(whole, besides=occurrence_id)
            return whole
        except Superseded:
            sharing.wake(resolution, besides=occurrence_id)  # one of the others goes on
            raise
        except _Useless as useless:
            reader.count_failure(useless.error.code)
            sharing.throw_away(reader.resolution)
            restarts += 1
            if restarts > RESTARTS or isinstance(useless.error, client.Refused):
                raise useless.error from None
        known, now = None, clock.now()


class _Reader:
    """Reads one resolution's pages; ``resolution`` is what is kept of it so far."""

    def __init__(self, audience: Mapping[str, Any], resolution: Resolution, occurrence_id: int) -> None:
        self.resolution = resolution
        self._audience = audience
        self._occurrence_id = occurrence_id
        self._is_copy = occurrence_id == EVERYBODY

    def read(
        self, *, ends: float, before_calls: Iterable[Callable[[], None]], on_page: Callable[[Resolution], None]
    ) -> Resolution:
        """All that is left of them; ``ends``: of the monotonic clock."""
        while self.resolution.completed_at is None:
            if time.monotonic() > ends:
                raise TurnOver
            with _uncollected():
                page = self._ask(before_calls)
                self.resolution = self._keep(page, now=clock.now())  # later than the attempt began
            on_page(self.resolution)
        return self.resolution

    def count_failure(self, code: str) -> None:
        page = self.resolution.pages + 1
        log.warning("user_service_failed", code=code, occurrence_id=self._occurrence_id, page=page)
        counts.add({counts.Key(counts.USER_SERVICE_FAILURES, label=code): 1})

    def _ask(self, before_calls: Iterable[Callable[[], None]]) -> client.Page:
        """The next page. What may pass by itself is tried again after a while, in part of chance; but a service that
        has answered nobody is asked by one, once."""
        tries = self._tries()
        tried = 0
        while True:
            for keep in before_calls:
                keep()
            tried += 1
            try:
                page = client.read_page(
                    self._audience,
                    as_of=self.resolution.as_of,
                    cursor=self.resolution.cursor or None,
                    limit=settings.USER_SERVICE_PAGE,
                )
            except client.CursorGone as gone:
                raise _Useless(client.Unavailable(gone.code, gone.reason)) from None
            except client.Refused as refused:
                self.count_failure(refused.code)
                raise
            except client.Unavailable as away:
                self.count_failure(away.code)
                wait_s = max(away.retry_after_s or 0.0, some_of(FIRST_WAIT_S * 2**tried))
                if tried >= tries or wait_s > LONGEST_WAIT_S:
                    _leave_alone(away)
                    raise
            else:
                left_alone.answered(left_alone.PAGES)
                return page
            time.sleep(wait_s)

    def _tries(self) -> int:
        if self._is_copy:  # somebody sits there and waits
            return TRIES
        leave = left_alone.ask(left_alone.PAGES, within_s=ASKED_S + settings.USER_SERVICE_TIMEOUT_S)
        if leave.wait_s:
            words = f"has answered nobody, and is left alone for {leave.wait_s:.0f} s"
            raise client.Unavailable(LEFT_ALONE, words, leave.wait_s)
        return 1 if leave.is_probe else TRIES

    def _keep(self, page: client.Page, *, now: datetime) -> Resolution:
        """Raises ``UnderWay`` where another worker has kept this page or is at it."""
        try:
            with transaction.atomic():
                return self._kept(page, now=now)
        except Overlapping:
            raise Crowded from None
        except OperationalError as error:
            if isinstance(error.__cause__, LockNotAvailable | DeadlockDetected):
                raise Crowded from error
            raise

    def _kept(self, page: client.Page, *, now: datetime) -> Resolution:
        came_by, following = _index(self.resolution.cursor), _index(page.next_cursor)
        unread = Resolution.objects.filter(pk=self.resolution.pk, pages=self.resolution.pages, completed_at=None)
        held = unread.select_for_update(skip_locked=True).first()
        if held is None:
            raise UnderWay
        if following is not None and (following == came_by or held.read.filter(came_by=following).exists()):
            raise _Useless(client.Refused(counts.REPEATING, "sent a cursor for the second time"))
        with connection.cursor() as cursor:
            cursor.execute(_OF_A_PAGE, [PATIENCE])
        told = mirror(
            page.rows,
            page.updated,
            page.consented,
            page.quieted,
            by=BY,
            now=now,
            as_of=held.as_of,
            resolution_id=held.pk,
        )
        _add(held, told, page, now=now)
        _keep_ids(held, [] if self._is_copy else told.ids, came_by=came_by)
        if held.completed_at is not None and not self._is_copy:  # whose pages hold no numbers
            held.people -= (doubled := _doubled(held))
            held.repeated += doubled
        _require_whole(held)
        held.save()
        _count_page(told)
        return held


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles. A page makes some hundred thousand objects, none in a cycle, and while they come
    it would look through all there are again and again: a fifth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _leave_alone(away: client.Unavailable) -> None:
    if away.code in SILENT:
        least_s = min(away.retry_after_s or 0.0, LONGEST_LEFT_ALONE_S)
        left_alone.failed(left_alone.PAGES, first_s=LEFT_ALONE_S, longest_s=LONGEST_LEFT_ALONE_S, least_s=least_s)


def some_of(seconds: float) -> float:
    """Half of it or more, by chance: so that not all who wait come at once."""
    return _rng.uniform(seconds / 2, seconds)


def _add(held: Resolution, told: Told, page: client.Page, *, now: datetime) -> None:
    """Raises ``_Useless`` where the pages go in a circle."""
    # Who was left out or can't be made out may have come before as well: nobody knows.
    is_barren = bool(told.repeated) and not told.ids
    held.pages += 1
    held.people += len(told.ids)
    held.repeated += told.repeated
    held.flawed += told.flawed
    held.unreadable += told.unreadable
    held.left_out += told.left_out
    held.barren = held.barren + 1 if is_barren else 0
    held.idle = 0 if told.ids else held.idle + 1
    held.total = page.total if held.total is None else held.total
    held.cursor = page.next_cursor or ""
    held.last_page_at = now
    if page.next_cursor is None:
        held.completed_at = now
    elif held.barren == BARREN_PAGES or held.idle == IDLE_PAGES:
        raise _circle(f"sent {held.idle} pages in a row in which nobody was new")
    elif held.idle and held.total is not None and _came(held) > held.total:
        raise _circle(f"named {_came(held):,} people and more where it had announced {held.total:,}")


def _circle(words: str) -> _Useless:
    return _Useless(client.Refused(counts.REPEATING, words))


def _came(held: Resolution) -> int:
    return held.people + held.unreadable + held.left_out


def _require_whole(held: Resolution) -> None:
    """Raises ``_Useless`` where the pages end before everybody has come who was announced."""
    if held.completed_at is not None and held.total is not None and _came(held) < held.total:
        words = f"named {_came(held):,} people where it had announced {held.total:,}"
        raise _Useless(client.Unavailable(counts.INCOMPLETE, words))


def _keep_ids(held: Resolution, ids: Sequence[int], *, came_by: UUID | None) -> None:
    """Of the page that has just been added. In one text: Django would look at each number."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO schedules_resolutionpage (resolution_id, number, came_by, ids)"
            " VALUES (%s, %s, %s, %s::bigint[])",
            [held.pk, held.pages, came_by, standing.array(ids)],
        )


def _doubled(held: Resolution) -> int:
    """How many were taken for new once more, since another resolution had named them in between."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) - count(DISTINCT person) FROM schedules_resolutionpage, unnest(ids) AS person"
            " WHERE resolution_id = %s",
            [held.pk],
        )
        doubled: int = cursor.fetchone()[0]
        return doubled


def _index(cursor: str | None) -> UUID | None:
    """By which a cursor is known again; None for the first page's, which is none."""
    return encryption.index_of_token(cursor or "")


def mirror_everybody(*, now: datetime, on_page: Callable[[Resolution], None]) -> Resolution:
    """Bring the copy up to everybody whom the user service knows. Raises as ``resolve``, but waits for imports."""
    while True:
        try:
            resolution = resolve({"all": []}, since=now, now=clock.now(), turn_s=math.inf, on_page=on_page)
            break
        except Crowded:
            log.info("mirroring_waits")
    sharing.use(resolution, occurrence_id=EVERYBODY, now=now)
    sharing.forget(resolution)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE schedules_recipient, schedules_mirroredperson")
    return resolution


def _count_page(told: Told) -> None:
    people = (len(told.ids), told.repeated, told.flawed, told.unreadable, told.left_out)
    found = {
        counts.Key(counts.USER_SERVICE_PEOPLE, label=what): number
        for what, number in zip(counts.TOLD, people, strict=True)
    }
    counts.add({counts.Key(counts.USER_SERVICE_PAGES): 1, **found})

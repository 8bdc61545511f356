"""An audience that the user service tells, page by page.

A page is one transaction: its people mirrored into the profiles, their numbers kept, the cursor of the next one in the
place of its own. So whoever dies between two pages, or has read one twice, loses and doubles nobody. The service is
asked outside of transactions. Nobody is sent to from half an audience: rows are written when the last page is in.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Exists, OuterRef, QuerySet

from delivery import counts
from schedules import clock, encryption
from schedules.audience.parser import parse
from schedules.audience.tree import digest
from schedules.fields import UnreadableText
from schedules.models import (
    EVERYBODY,
    MirroredPerson,
    Occurrence,
    OccurrenceState,
    Recipient,
    Resolution,
    ResolutionPage,
)
from schedules.user_service import client
from schedules.user_service.mirror import Told, mirror

# Who has changed the profiles, in the audit.
BY: Final = "system:user_service"
# Of one page, before the occurrence is put off; seconds before the second try, twice as many before each further one,
# and the longest wait that a worker sits out.
TRIES: Final = 3
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 5.0
# Beginnings of one attempt after the service has forgotten the cursor, or left people out.
RESTARTS: Final = 2
# Pages in a row in which nobody is new: by then the service goes in a circle, whatever its cursors say.
BARREN_PAGES: Final = 3
# Seconds after which an attempt ends and another one goes on: others wait too, and no task may run for ever.
TURN_S: Final = 240.0
# After so long without a page the audience is another one, and the cursor forgotten.
STALE: Final = timedelta(hours=1)

log = structlog.get_logger(__name__)
_rng = random.SystemRandom()


class Superseded(Exception):
    """Somebody else materialised the occurrence or an edit came in between; nothing was written."""


class UnderWay(Exception):
    """Another worker is materialising the occurrence at this moment; nothing was written."""


class TurnOver(Exception):
    """The audience is too large for one attempt: what has come is kept, and the next one goes on there."""


def resolve(
    audience: Mapping[str, Any],
    *,
    occurrence_id: int = EVERYBODY,
    now: datetime,
    turn_s: float = TURN_S,
    before_call: Callable[[], None] = lambda: None,
    on_page: Callable[[Resolution], None] = lambda resolution: None,
) -> Resolution:
    """The whole audience, from where it was left if that was within the hour; its people are in ``Resolution.read``.

    ``before_call`` keeps the lease, and may raise to end it here. Raises ``UnderWay``, ``TurnOver``,
    ``client.Unavailable`` when it is to be tried later, and ``client.Refused`` when somebody has to see to it.
    """
    known = Resolution.objects.filter(occurrence_id=occurrence_id).first()
    before_call()  # whoever has used that one up has ended the search with it
    resolution = _continued(known, audience, now=now) or _start(audience, occurrence_id=occurrence_id, now=now)
    restarts, begun = 0, time.monotonic()
    while resolution.completed_at is None:
        if time.monotonic() - begun > turn_s:
            raise TurnOver
        try:
            page = _ask(audience, resolution, before_call)
            resolution = _keep(page, resolution, now=clock.now())  # later than the attempt began
        except _Useless as useless:
            _count_failure(useless.error.code, resolution)
            _throw_away(resolution)
            restarts += 1
            if restarts > RESTARTS or isinstance(useless.error, client.Refused):
                raise useless.error from None
            resolution = _start(audience, occurrence_id=occurrence_id, now=clock.now())
        else:
            on_page(resolution)
    return resolution


class _Useless(Exception):
    """What has been read is of no use, nor is the cursor: it begins again, now or later."""

    def __init__(self, error: client.Unavailable | client.Refused) -> None:
        self.error = error


def _continued(known: Resolution | None, audience: Mapping[str, Any], *, now: datetime) -> Resolution | None:
    """What there is of this very audience, if it is young enough and not used up; else it is thrown away."""
    if known is None:
        return None
    is_same = known.used_at is None and known.audience == digest(parse(audience))
    if is_same and abs(now - known.last_page_at) <= STALE and not isinstance(known.cursor, UnreadableText):
        return known
    _throw_away(known)
    return None


def _start(audience: Mapping[str, Any], *, occurrence_id: int, now: datetime) -> Resolution:
    try:
        with transaction.atomic():
            return Resolution.objects.create(
                occurrence_id=occurrence_id, audience=digest(parse(audience)), as_of=now, last_page_at=now
            )
    except IntegrityError:  # another worker has begun at the same moment
        raise UnderWay from None


def _throw_away(resolution: Resolution) -> None:
    """Raises ``UnderWay`` where another worker is at it or has come further."""
    if not _drop(Resolution.objects.filter(pk=resolution.pk, pages=resolution.pages)):
        raise UnderWay


@transaction.atomic
def _drop(unwanted: QuerySet[Resolution]) -> int:
    """With their pages, but for those that somebody is at; how many."""
    held = list(unwanted.select_for_update(skip_locked=True).values_list("pk", flat=True))
    Resolution.objects.filter(pk__in=held).delete()
    return len(held)


def _ask(audience: Mapping[str, Any], resolution: Resolution, before_call: Callable[[], None]) -> client.Page:
    """The next page. What may pass by itself is tried again after a while, in part of chance."""
    tried = 0
    while True:
        before_call()
        tried += 1
        try:
            return client.read_page(
                audience,
                as_of=resolution.as_of,
                cursor=resolution.cursor or None,
                limit=settings.USER_SERVICE_PAGE,
            )
        except client.CursorGone as gone:
            raise _Useless(client.Unavailable(gone.code, gone.reason)) from None
        except client.Refused as refused:
            _count_failure(refused.code, resolution)
            raise
        except client.Unavailable as away:
            _count_failure(away.code, resolution)
            wait_s = max(away.retry_after_s or 0.0, some_of(FIRST_WAIT_S * 2**tried))
            if tried == TRIES or wait_s > LONGEST_WAIT_S:
                raise
        time.sleep(wait_s)


def some_of(seconds: float) -> float:
    """Half of it or more, by chance: so that not all who wait come at once."""
    return _rng.uniform(seconds / 2, seconds)


def _keep(page: client.Page, resolution: Resolution, *, now: datetime) -> Resolution:
    """One transaction; raises ``UnderWay`` where another worker has kept this page or is at it."""
    came_by, following = _index(resolution.cursor), _index(page.next_cursor)
    with transaction.atomic():
        unread = Resolution.objects.filter(pk=resolution.pk, pages=resolution.pages, completed_at=None)
        held = unread.select_for_update(skip_locked=True).first()
        if held is None:
            raise UnderWay
        if following is not None and (following == came_by or held.read.filter(came_by=following).exists()):
            raise _Useless(client.Refused(counts.REPEATING, "sent a cursor for the second time"))
        told = mirror(page.rows, page.updated, by=BY, now=now, as_of=held.as_of, resolution_id=held.pk)
        _add(held, told, page, now=now)
        ids = told.ids if held.occurrence_id != EVERYBODY else []
        ResolutionPage.objects.create(resolution=held, number=held.pages, came_by=came_by, ids=ids)
        held.save()
        _count_page(told)
    return held


def _add(held: Resolution, told: Told, page: client.Page, *, now: datetime) -> None:
    """Raises ``_Useless`` where the pages go in a circle, or end before everybody has come who was announced."""
    # Who was left out or can't be made out may have come before as well: nobody knows.
    is_barren = bool(told.repeated) and not told.ids
    held.pages += 1
    held.people += len(told.ids)
    held.repeated += told.repeated
    held.flawed += told.flawed
    held.unreadable += told.unreadable
    held.left_out += told.left_out
    held.barren = held.barren + 1 if is_barren else 0
    held.total = page.total if held.total is None else held.total
    held.cursor = page.next_cursor or ""
    held.last_page_at = now
    if page.next_cursor is not None:
        if held.barren == BARREN_PAGES:
            raise _Useless(
                client.Refused(counts.REPEATING, f"sent {held.barren} pages in a row in which nobody was new")
            )
        return
    held.completed_at = now
    held.people -= (doubled := _doubled(held, told))
    held.repeated += doubled
    came = held.people + held.unreadable + held.left_out
    if held.total is not None and came < held.total:
        words = f"named {came:,} people where it had announced {held.total:,}"
        raise _Useless(client.Unavailable(counts.INCOMPLETE, words))


def _doubled(held: Resolution, told: Told) -> int:
    """How many were taken for new once more, since another resolution had named them in between."""
    if held.occurrence_id == EVERYBODY:  # whose pages hold no numbers
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) - count(DISTINCT id) FROM ("
            " SELECT unnest(ids) FROM schedules_resolutionpage WHERE resolution_id = %s"
            " UNION ALL SELECT unnest(%s::bigint[])) AS named(id)",
            [held.pk, told.ids],
        )
        doubled: int = cursor.fetchone()[0]
        return doubled


def _index(cursor: str | None) -> UUID | None:
    """By which a cursor is known again; None for the first page's, which is none."""
    return encryption.index_of_token(cursor or "")


def use(resolution: Resolution, *, now: datetime) -> None:
    """In the transaction that writes its people's rows, before these are read; raises ``Superseded`` where it is gone.

    The pages go; the row says until the end of the ledger's day how it was.
    """
    whole = Resolution.objects.filter(pk=resolution.pk, used_at=None).exclude(completed_at=None)
    if not whole.update(used_at=now):
        raise Superseded


def forget(resolution: Resolution) -> None:
    """Once the rows are written nobody asks for the pages."""
    resolution.read.all().delete()


def mirror_everybody(*, now: datetime, on_page: Callable[[Resolution], None]) -> Resolution:
    """Bring the copy up to everybody whom the user service knows. Raises as ``resolve``."""
    resolution = resolve({"all": []}, now=now, turn_s=math.inf, on_page=on_page)
    with transaction.atomic():
        use(resolution, now=now)
        forget(resolution)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE schedules_recipient, schedules_mirroredperson")
    return resolution


def purge(*, before: datetime) -> None:
    """Drop what is left of audiences whose occurrence looks for nobody any more, and all that is older.

    And what is left of people who were erased in the moment in which a page told of them.
    """
    _drop(Resolution.objects.filter(last_page_at__lt=before))
    looking = Occurrence.objects.open().filter(state__in=[OccurrenceState.MATERIALISING, OccurrenceState.WAITING])
    given_up = Resolution.objects.filter(used_at=None).exclude(occurrence_id=EVERYBODY)
    _drop(given_up.exclude(occurrence_id__in=looking.values("pk")))
    MirroredPerson.objects.exclude(Exists(Recipient.objects.filter(pk=OuterRef("pk")))).delete()


def _count_failure(code: str, resolution: Resolution) -> None:
    log.warning("user_service_failed", code=code, occurrence_id=resolution.occurrence_id, page=resolution.pages + 1)
    counts.add({counts.Key(counts.USER_SERVICE_FAILURES, label=code): 1})


def _count_page(told: Told) -> None:
    people = (len(told.ids), told.repeated, told.flawed, told.unreadable, told.left_out)
    found = {
        counts.Key(counts.USER_SERVICE_PEOPLE, label=what): number
        for what, number in zip(counts.TOLD, people, strict=True)
    }
    counts.add({counts.Key(counts.USER_SERVICE_PAGES): 1, **found})

"""Which runs take their people from which resolution, and who asks the user service for its pages.

Runs that ask the same share one resolution, if it began no earlier than each of them: an answer is never older than the
question. One worker at a time asks for its pages; those whose run waits for it give way, and are woken when the last
page is in. That is about work alone: of two who ask for one page all the same, the second keeps nothing of it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from django.conf import settings
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import Exists, OuterRef, QuerySet

from schedules import encryption
from schedules.audience.parser import parse
from schedules.audience.tree import digest
from schedules.fields import UnreadableText
from schedules.models import EVERYBODY, Occurrence, OccurrenceState, Resolution, ResolutionPage, ResolutionUse
from schedules.user_service import counting, mirror

# After so long without a page the audience is another one, and the cursor forgotten.
STALE: Final = timedelta(hours=1)
# Real seconds, besides an answer's own, after which who asks for pages and is silent counts as gone.
ASKED_S: Final = 30.0


class Superseded(Exception):
    """Somebody else materialised the occurrence or an edit came in between; nothing was written."""


class UnderWay(Exception):
    """Another worker is materialising the occurrence at this moment; nothing was written."""


class AskedByAnother(Exception):
    """Somebody else asks for the pages of this resolution at this moment, for another run perhaps."""

    def __init__(self, resolution_id: int) -> None:
        self.resolution_id = resolution_id


def found(
    audience: Mapping[str, Any], known: ResolutionUse | None, *, occurrence_id: int, since: datetime, now: datetime
) -> Resolution:
    """Where the run takes its people from: as before, with others who ask the same, or from the beginning.

    ``known`` is what the run had so far, ``since`` the instant from which on an answer is young enough for it. Raises
    ``UnderWay``.
    """
    key = _key(audience, occurrence_id)
    if known is not None:
        if known.used_at is None and _is_good(known.resolution, key, now=now):
            return known.resolution
        _leave(known)
    try:
        with transaction.atomic():
            # Hundreds of runs open at one hour: the first begins, and the others find what it has begun.
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"resolution {key}"])
            begun = Resolution.objects.filter(audience=key, as_of__gte=since).order_by("-as_of", "-pk")[:3]
            shared = next((each for each in begun if _is_good(each, key, now=now)), None)
            taken = shared or Resolution.objects.create(audience=key, as_of=now, last_page_at=now)
            ResolutionUse.objects.create(occurrence_id=occurrence_id, resolution=taken)
    except IntegrityError:  # another worker has begun with this run at the same moment
        raise UnderWay from None
    return taken


def _key(audience: Mapping[str, Any], occurrence_id: int) -> str:
    """By which an audience of this service is known again, and by nobody else. Everybody's pages hold no numbers."""
    asked = [settings.USER_SERVICE_URL, digest(parse(audience)), *(["copy"] if occurrence_id == EVERYBODY else [])]
    index = encryption.index_of_token(" ".join(asked))
    assert index is not None
    return index.hex


def _is_good(resolution: Resolution, key: str, *, now: datetime) -> bool:
    """Of this audience and service, young enough, and with its pages, which may have been dropped."""
    if resolution.audience != key or abs(now - resolution.last_page_at) > STALE:
        return False
    if isinstance(resolution.cursor, UnreadableText):
        return False
    return resolution.completed_at is None or resolution.read.count() == resolution.pages


def _leave(use: ResolutionUse) -> None:
    """The run asks something else, or anew; others may go on."""
    ResolutionUse.objects.filter(pk=use.pk, resolution=use.resolution_id).delete()
    _drop(Resolution.objects.filter(pk=use.resolution_id).exclude(Exists(_uses())))


def throw_away(resolution: Resolution) -> None:
    """It is of no use to anybody. Raises ``UnderWay`` where another worker is at it or has come further."""
    if not _drop(Resolution.objects.filter(pk=resolution.pk, pages=resolution.pages)):
        raise UnderWay


@transaction.atomic
def _drop(unwanted: QuerySet[Resolution]) -> int:
    """With their pages, but for those that somebody is at; how many."""
    held = list(unwanted.select_for_update(skip_locked=True).values_list("pk", flat=True))
    Resolution.objects.filter(pk__in=held).delete()
    return len(held)


@contextmanager
def asking(resolution: Resolution) -> Iterator[Callable[[], None]]:
    """Be the one who asks for its pages. What is yielded says that one still does, and raises ``AskedByAnother``."""
    worker = uuid4()

    def go_on() -> None:
        if not _hold(resolution.pk, worker):
            raise AskedByAnother(resolution.pk)

    go_on()
    try:
        yield go_on
    finally:
        with suppress(DatabaseError):  # whoever has lost the database has lost this too, after a while
            Resolution.objects.filter(pk=resolution.pk, asked_by=worker).update(asked_by=None, asked_until=None)


def _hold(resolution_id: int, worker: UUID) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE schedules_resolution
            SET asked_by = %(worker)s, asked_until = clock_timestamp() + make_interval(secs => %(seconds)s)
            WHERE id = %(id)s AND completed_at IS NULL
              AND (asked_by IS NULL OR asked_by = %(worker)s OR asked_until <= clock_timestamp())
            """,
            {"id": resolution_id, "worker": worker, "seconds": ASKED_S + settings.USER_SERVICE_TIMEOUT_S},
        )
        return bool(cursor.rowcount)


def is_over(resolution_id: int) -> bool:
    """Whether nobody need wait for it any more."""
    return not Resolution.objects.filter(pk=resolution_id, completed_at=None).exists()


def wake(resolution: Resolution, *, besides: int) -> None:
    """Let the other runs that wait for it start at once; one that somebody changes at this moment wakes later."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH waiting AS MATERIALIZED (
                SELECT o.id FROM schedules_occurrence o
                JOIN schedules_resolutionuse u ON u.occurrence_id = o.id
                WHERE u.resolution_id = %s AND u.used_at IS NULL AND o.id <> %s AND o.state = 'materialising'
                ORDER BY o.id FOR NO KEY UPDATE OF o SKIP LOCKED
            )
            UPDATE schedules_occurrence o SET materialise_queued_at = NULL, materialise_lease_until = NULL
            FROM waiting w WHERE o.id = w.id
            """,
            [resolution.pk, besides],
        )


def use(resolution: Resolution, *, occurrence_id: int, now: datetime) -> None:
    """In the transaction that writes its people's rows, before these are read; raises ``Superseded`` where the run
    takes them from elsewhere by now. The row says until the end of the ledger's day how it was."""
    whole = ResolutionUse.objects.filter(pk=occurrence_id, resolution=resolution, used_at=None)
    if not whole.update(used_at=now):
        raise Superseded


# In a table of its own, of which the planner is told: of arrays it believes that each holds ten.
_GATHER = (
    "DROP TABLE IF EXISTS pg_temp.told_people",
    "CREATE TEMPORARY TABLE told_people (id bigint) ON COMMIT DROP",
    "INSERT INTO pg_temp.told_people"
    " SELECT DISTINCT unnest(ids) FROM schedules_resolutionpage WHERE resolution_id = %(told)s",
)


def gather(cursor: Any, resolution: Resolution) -> None:
    """Its people into ``pg_temp.told_people``. Raises ``Superseded`` where its pages have gone meanwhile."""
    for statement in _GATHER:
        cursor.execute(statement, {"told": resolution.pk})
    if cursor.rowcount != resolution.people:
        raise Superseded
    cursor.execute("ANALYZE pg_temp.told_people")


def forget(resolution: Resolution) -> None:
    """Once nobody asks for its people any more its pages go, and by which audience it was known."""
    waiting = Occurrence.objects.filter(state=OccurrenceState.MATERIALISING, opened_at__lte=resolution.as_of)
    if not waiting.exists():
        _forget(Resolution.objects.filter(pk=resolution.pk))


@transaction.atomic
def _forget(resolutions: QuerySet[Resolution]) -> None:
    """But those that a run is going to use, or that somebody is at."""
    done = resolutions.exclude(completed_at=None).exclude(Exists(_uses().filter(used_at=None)))
    held = list(done.select_for_update(skip_locked=True).values_list("pk", flat=True))
    ResolutionPage.objects.filter(resolution__in=held).delete()
    Resolution.objects.filter(pk__in=held).update(audience="")


def purge(*, before: datetime) -> None:
    """Drop what is left of audiences whose occurrence looks for nobody any more, of people who are gone, of old counts,
    and all that is older."""
    _drop(Resolution.objects.filter(last_page_at__lt=before))
    looking = Occurrence.objects.open().filter(state__in=[OccurrenceState.MATERIALISING, OccurrenceState.WAITING])
    given_up = ResolutionUse.objects.filter(used_at=None).exclude(occurrence_id=EVERYBODY)
    given_up.exclude(occurrence_id__in=looking.values("pk")).delete()
    _drop(Resolution.objects.exclude(Exists(_uses())))
    _forget(Resolution.objects.exclude(audience=""))
    mirror.drop_strays()
    counting.purge()


def _uses() -> QuerySet[ResolutionUse]:
    return ResolutionUse.objects.filter(resolution=OuterRef("pk"))

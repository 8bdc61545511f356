"""Whether this database is the one that the service left off with, or an earlier state of it that was restored.

Every second a look raises a number in the database and, once that is committed, outside of it (``delivery.marks``). A
database that has a lower one was set back, however that was done. The server's own identity decides where nothing is
told outside: another cluster, or another timeline after a recovery. A failover to a synchronous standby loses no
commit, hence no number, and passes.

A look proves the database for two minutes of its own real time, and no claim is made later. So a restored database, in
which the last look lies farther back, is born stopped, before anybody has compared anything (docs/adr/0030).
"""

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final

import structlog
from django.db import connection, transaction
from django.db.models.functions import Now

from delivery import marks
from delivery.counters import CountersAway
from delivery.marks import Mark
from delivery.models import Continuity
from schedules import stops
from schedules.models import StopSwitch

log = structlog.get_logger(__name__)

BY: Final = "system:restore"
# The reason of the stop; pages say it in words.
REASON: Final = "restored"
# Real time for which a look proves the database, and in which a call may begin that was claimed within it.
PROVEN_S: Final = 120
_CALL_S: Final = 5
# A look whose answer was lost, or some at once, are committed and not told outside; a Redis that was away lags more.
_LAG: Final = 10
# So many numbers are left out for what was made after the backup and is named by others: in the tags of messages that
# their provider still tells of, in collapse ids on people's devices, in messages of the broker. And so many more for
# each minute since the backup: whoever restores it a second time gives other numbers than after the first.
_GAP: Final = 100_000_000
_GAP_A_MINUTE: Final = 1_000_000
RUNS: Final = "schedules_occurrence"
OTHERS: Final = (
    *("schedules_schedule", "schedules_recipient", "schedules_device"),
    *("delivery_batch", "delivery_testsend"),
)
_SERVER = """
SELECT (SELECT system_identifier FROM pg_control_system())::text || '/'
       || CASE WHEN pg_is_in_recovery() THEN '' ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
       clock_timestamp()"""


class Verdict(Enum):
    GOES_ON = auto()
    WAITS = auto()
    RESTORED = auto()


class _Looked:
    """Of this process, by its own clock: the last look that let go on; questions that Redis did not answer."""

    at: float | None = None
    first_away: float | None = None
    last_away: float = 0.0


_looked = _Looked()


def look(*, now: datetime, every_s: float = 0.0) -> bool:
    """Whether sending may go on: this is the database that was left off. Stops everything where it is not.

    With ``every_s`` it only reads while others renew the proof, and not at all when this process has looked within so
    many real seconds, with success. False too while nothing can be known; then nothing is stopped for good.
    """
    if _looked.at is not None and time.monotonic() - _looked.at < every_s:
        return True
    if may_go := _look(now=now, renews=not every_s):
        _looked.at = time.monotonic()
    return may_go


def restored() -> Continuity | None:
    """What was found out of a database that was restored and has not been settled since."""
    return Continuity.objects.filter(restored_to__isnull=False).first()


def until(kept: Continuity) -> datetime:
    """When, at the latest, the service that was lost may have begun a call (business time)."""
    if kept.last_seen_at is None:
        assert kept.noticed_at is not None
        return kept.noticed_at
    return kept.last_seen_at + timedelta(seconds=PROVEN_S + _CALL_S)


def forget() -> None:
    """Look again at the next occasion, however short ago the last one was."""
    _looked.at = _looked.first_away = None


@transaction.atomic
def declare(*, restored_to: datetime, now: datetime) -> Continuity:
    """Somebody says so of a database of which it could not be found out."""
    kept = _locked(now=now)
    _set_back(kept, to=restored_to, last_seen_at=None, now=now)
    return kept


@transaction.atomic
def settled(*, now: datetime) -> None:
    """From now on this is the database that goes on; the stop stays until somebody lets go.

    Under another name: the one that was lost may turn out to live, or its backup may be restored once more. Each finds
    under the former name that another has taken its place.
    """
    kept = _locked(now=now)
    former = kept.service
    kept.restored_to = kept.noticed_at = kept.last_seen_at = kept.runs_from = None
    kept.service, kept.number, kept.server, kept.seen_at = uuid.uuid4(), 0, _server()[0], now
    _prove(kept)
    successor = kept.service
    _afterwards(lambda: marks.hand_over(former, successor=successor, at=now))


def judge(
    kept: Continuity, mark: Mark | None, *, server: str, is_proven: bool, is_away: bool, is_patient: bool
) -> Verdict:
    """``mark``: what is told outside, None where nothing is or Redis ``is_away``. ``server``: the one that answers.

    ``is_patient``: Redis may come yet, for this process has not asked in vain for long.
    """
    if kept.restored_to is not None:  # or the backup is of a time when it waited, before others went on
        return Verdict.RESTORED if mark is not None and mark.successor else Verdict.WAITS
    if mark is not None and mark.is_ahead_of(kept.number):
        return Verdict.RESTORED
    if mark is not None and kept.number - mark.number <= _LAG:
        return Verdict.GOES_ON
    # A failover takes less than a look proves and changes the timeline; no failover leads to another cluster.
    is_another = server.partition("/")[0] != kept.server.partition("/")[0] or (server != kept.server and not is_proven)
    if is_another:
        return Verdict.WAITS if is_away else Verdict.RESTORED
    return Verdict.WAITS if is_away and is_patient and not is_proven else Verdict.GOES_ON


def _look(*, now: datetime, renews: bool) -> bool:
    service = Continuity.objects.values_list("service", flat=True).first()
    try:
        # Before the row is locked: whatever is told by now was committed before.
        mark, is_away = marks.read(service) if service else None, False
    except CountersAway:
        mark, is_away = None, True
    if not renews and service and mark and _stands(service, mark):
        return True
    with transaction.atomic():
        kept = _locked(now=now)
        if service not in (None, kept.service):
            return False  # somebody has settled it this moment
        server, real = _server()
        verdict = judge(
            kept,
            mark,
            server=server,
            is_proven=kept.proven_until > real,
            is_away=is_away,
            is_patient=_is_patient(is_away=is_away),
        )
        if verdict is Verdict.GOES_ON:
            kept.server, kept.seen_at = server, now
            _prove(kept)
        elif verdict is Verdict.RESTORED:
            at = None
            if mark is not None and mark.is_ahead_of(kept.number):
                kept.service, at = _latest(kept.service, mark)
            _set_back(kept, to=kept.restored_to or kept.seen_at, last_seen_at=at, now=now)
    return verdict is Verdict.GOES_ON


def _stands(service: uuid.UUID, mark: Mark) -> bool:
    """Whether what others have written lately is enough; nothing is locked."""
    late = Now() + timedelta(seconds=PROVEN_S / 2)
    fits = Continuity.objects.filter(service=service, restored_to=None, number__gte=mark.number, proven_until__gt=late)
    return mark.successor is None and fits.exists()


def _is_patient(*, is_away: bool) -> bool:
    """Whether Redis, which does not answer, is waited for yet: for as long as a look proves. A pause begins anew."""
    at = time.monotonic()
    if not is_away:
        _looked.first_away = None
        return False
    if _looked.first_away is None or at - _looked.last_away > PROVEN_S / 2:
        _looked.first_away = at
    _looked.last_away = at
    return at - _looked.first_away < PROVEN_S


def _latest(service: uuid.UUID, mark: Mark) -> tuple[uuid.UUID, datetime]:
    try:
        return marks.latest(service, mark)
    except CountersAway:
        return service, mark.at


def _locked(*, now: datetime) -> Continuity:
    server, real = _server()
    first = {"service": uuid.uuid4(), "server": server, "seen_at": now, "proven_until": real}
    Continuity.objects.get_or_create(pk=1, defaults=first)
    return Continuity.objects.select_for_update().get(pk=1)


def _server() -> tuple[str, datetime]:
    """Which server answers, as system identifier and timeline, and its real time."""
    with connection.cursor() as cursor:
        cursor.execute(_SERVER)
        server, real = cursor.fetchone()
    return server, real


def _prove(kept: Continuity) -> None:
    kept.number += 1
    kept.proven_until = _server()[1] + timedelta(seconds=PROVEN_S)
    kept.save()
    service, told, at = kept.service, kept.number, kept.seen_at
    _afterwards(lambda: marks.tell(service, number=told, at=at))


def _afterwards(tell: Callable[[], None]) -> None:
    def told() -> None:
        try:
            tell()
        except CountersAway:
            log.debug("continuity_untold")  # the next look tells more

    transaction.on_commit(told)


def _set_back(kept: Continuity, *, to: datetime, last_seen_at: datetime | None, now: datetime) -> None:
    kept.restored_to, kept.last_seen_at, kept.noticed_at = to, last_seen_at, now
    gap = _GAP + _GAP_A_MINUTE * max(int((now - kept.seen_at).total_seconds() // 60), 0)
    kept.runs_from = _leave(gap, RUNS)
    for table in OTHERS:
        _leave(gap, table)
    kept.proven_until = datetime.fromtimestamp(0, UTC)
    kept.save()
    stops.stop_sending(scope=StopSwitch.ALL, by=BY, now=now, reason=REASON)
    log.error("database_restored", restored_to=to.isoformat(), last_seen_at=last_seen_at and last_seen_at.isoformat())


def _leave(gap: int, table: str) -> int:
    """The number before the next one that a row gets."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT setval(s.name, nextval(s.name) + %s) FROM (SELECT pg_get_serial_sequence(%s, 'id')) AS s(name)",
            [gap, table],
        )
        return int(cursor.fetchone()[0])

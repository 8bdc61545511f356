"""Taking an occurrence and materialising it, whole or not at all."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.conf import settings
from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected, QueryCanceled, UniqueViolation

from delivery import brake, counts
from delivery.counts import OUTCOMES, Key
from delivery.materialise import again, resolving, rows, sharing
from delivery.materialise.resolving import AskedByAnother, Crowded, Superseded, TurnOver, UnderWay
from schedules import clock
from schedules.audience.sources import AudienceTooSlow
from schedules.models import Occurrence, OccurrenceState, Resolution, ScheduleVersion
from schedules.occurrences import CURSOR_KEPT
from schedules.template_service import client as template_service
from schedules.template_service import mirror as templates
from schedules.user_service import client

# Rows from which on the planner is told of an occurrence at once.
LARGE = 2_000
# Real time after which another worker tries. It finds out by a lock whether this one still lives, so that the largest
# audience may take longer; and for as long this one may be silent within its transaction.
LEASE_S = 30
# Real time after which an audience that took too long is looked for again.
SLOW_S = 300
# The same where the user service did not answer, at least and, whatever it asks for, at most; where it refused.
AWAY_S = 30
LONGEST_AWAY_S = 600
REFUSED_S = 300
# The same, at most, where people are being written by others; where another run's worker asks for the same people, and
# neither ends nor tells.
CROWDED_S = 10
WAITING_S = 60
CURSOR_END = "end"
# Why an occurrence still waits for its people, as long as it does.
TOO_SLOW = "audience_too_slow"
AWAY = "user_service_away"
REFUSED = "user_service_refused"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Materialised:
    """``targeted`` counts every row, ``pending`` those that will be tried."""

    occurrence_id: int
    targeted: int
    pending: int


def attempt(*, occurrence_id: int, now: datetime) -> Materialised | None:
    """Take the occurrence and materialise it; ``None`` where nothing was written.

    That is so when another worker has it or was quicker, when an edit came in between, when the user service has more
    to tell than fits an attempt or is telling it another run, when others write people, and when the audience takes too
    long or isn't told: ``Occurrence.reason`` then says ``audience_too_slow``, ``user_service_away`` or
    ``user_service_refused``, and the next attempt waits. After any error it is tried again when the lease has run out,
    and sooner where the database was away.
    """
    if not lease(occurrence_id):
        return None
    session = connection.connection
    try:
        done = materialise(occurrence_id=occurrence_id, now=now)
    except UnderWay:  # whose lease has run out, and runs anew by ours
        log.info("materialise_under_way", occurrence_id=occurrence_id)
    except (Superseded, TurnOver, AskedByAnother, Crowded) as interrupted:
        _interrupted(occurrence_id, interrupted)
    except AudienceTooSlow:
        _put_off(occurrence_id, TOO_SLOW, SLOW_S)
        log.warning(TOO_SLOW, occurrence_id=occurrence_id)
    except client.Unavailable as away:
        asked_s = min(away.retry_after_s or 0.0, LONGEST_AWAY_S)
        if away.code == resolving.LEFT_ALONE:  # it may answer this one, once it has answered somebody
            _wait(occurrence_id, asked_s + resolving.some_of(CROWDED_S), AWAY)
        else:
            _put_off(occurrence_id, AWAY, max(asked_s, resolving.some_of(2 * AWAY_S)))
        log.warning(AWAY, occurrence_id=occurrence_id, code=away.code)
    except client.Refused as refused:
        _put_off(occurrence_id, REFUSED, REFUSED_S)
        log.error(REFUSED, occurrence_id=occurrence_id, code=refused.code, error=refused)
    except (OperationalError, InterfaceError):
        connection.close_if_unusable_or_obsolete()
        if connection.connection is not session:
            with suppress(OperationalError, InterfaceError):
                give_back(occurrence_id)
        raise
    else:
        log.info("materialised", occurrence_id=occurrence_id, targeted=done.targeted, pending=done.pending)
        return done
    return None


def _interrupted(occurrence_id: int, by: Exception) -> None:
    """Another attempt goes on: at once, in a few seconds, or when whoever asks for the same people has them."""
    match by:
        case AskedByAnother():
            event = "materialise_waits"
            _wait(occurrence_id, resolving.some_of(WAITING_S))
            if sharing.is_over(by.resolution_id):  # since it was looked at: nobody is woken twice
                give_back(occurrence_id)
        case Crowded():
            event = "materialise_crowded"
            _wait(occurrence_id, resolving.some_of(CROWDED_S))
        case _:
            event = "materialise_turn_over" if isinstance(by, TurnOver) else "materialise_superseded"
            give_back(occurrence_id)
    log.info(event, occurrence_id=occurrence_id)


def lease(occurrence_id: int) -> bool:
    """Take the occurrence for this worker; false when another one has it or nothing is to be done."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE schedules_occurrence SET materialise_lease_until = clock_timestamp() + make_interval(secs => %s)
            WHERE id = %s AND state = 'materialising'
              AND (materialise_lease_until IS NULL OR materialise_lease_until < clock_timestamp())
            """,
            [LEASE_S, occurrence_id],
        )
        return bool(cursor.rowcount)


def give_back(occurrence_id: int) -> None:
    """Let the next attempt start at once."""
    Occurrence.objects.filter(pk=occurrence_id, state=OccurrenceState.MATERIALISING).update(
        materialise_queued_at=None, materialise_lease_until=None
    )


def _wait(occurrence_id: int, seconds: float, reason: str = "") -> None:
    """Let the next attempt start after so long, or when somebody gives the occurrence back. Another reason stays."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE schedules_occurrence SET materialise_queued_at = NULL, reason = COALESCE(NULLIF(%s, ''), reason),
                   materialise_lease_until = clock_timestamp() + make_interval(secs => %s)
            WHERE id = %s AND state = 'materialising'
            """,
            [reason, seconds, occurrence_id],
        )


def _renew(occurrence: Occurrence) -> None:
    """Keep the occurrence for as long as a page may take. Raises ``Superseded``, also after an edit."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE schedules_occurrence SET materialise_lease_until = clock_timestamp() + make_interval(secs => %s)
            WHERE id = %s AND state = 'materialising' AND version = %s
            """,
            [LEASE_S + settings.USER_SERVICE_TIMEOUT_S, occurrence.pk, occurrence.version],
        )
        if not cursor.rowcount:
            raise Superseded


def _put_off(occurrence_id: int, reason: str, seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE schedules_occurrence
            SET reason = %s, materialise_lease_until = clock_timestamp() + make_interval(secs => %s)
            WHERE id = %s AND state = 'materialising'
            """,
            [reason, seconds, occurrence_id],
        )


def materialise(*, occurrence_id: int, now: datetime) -> Materialised:
    """Write the rows and batches of an occurrence and let it run.

    Raises ``Superseded``, ``UnderWay``, ``AudienceTooSlow`` when the query exceeds its time, and where a user service
    answers audiences ``TurnOver``, ``client.Unavailable`` and ``client.Refused``.
    """
    occurrence = Occurrence.objects.select_related("schedule").get(pk=occurrence_id)
    if occurrence.state != OccurrenceState.MATERIALISING:
        raise Superseded
    pinned = ScheduleVersion.objects.get(schedule=occurrence.schedule_id, version=occurrence.version)
    told = None
    if client.is_configured() and occurrence.cursor != CURSOR_KEPT:
        told = _resolve(occurrence, pinned, now=now)
        now = clock.now()  # it may have taken minutes, with a pause in them
        occurrence.schedule.refresh_from_db(fields=["paused_at", "resumed_at"])
    template_version = _template_version(pinned, now=now)
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            done = _materialise(cursor, occurrence, pinned, told, template_version, now=now)
    except IntegrityError as error:
        if isinstance(error.__cause__, UniqueViolation):  # another worker wrote the same rows first
            raise Superseded from error
        raise
    except OperationalError as error:
        if isinstance(error.__cause__, DeadlockDetected):
            raise Superseded from error
        if isinstance(error.__cause__, QueryCanceled):
            raise AudienceTooSlow(timeout_ms=settings.MATERIALISE_STATEMENT_TIMEOUT) from error
        raise
    if told is not None:
        sharing.forget(told)
    _tell_planner(occurrence, rows=done.pending)
    return done


def _resolve(occurrence: Occurrence, pinned: ScheduleVersion, *, now: datetime) -> Resolution:
    return resolving.resolve(
        pinned.definition["audienceQuery"],
        occurrence_id=occurrence.pk,
        since=max(occurrence.opened_at, pinned.created_at),
        now=now,
        before_call=lambda: _renew(occurrence),
    )


def _template_version(pinned: ScheduleVersion, *, now: datetime) -> int | None:
    """Of a template that the template service keeps, what it has published by now; None of our own."""
    template_id = pinned.definition.get("templateId")
    return templates.current(template_id, now=now) if template_id and template_service.is_configured() else None


def _materialise(
    cursor: Any,
    occurrence: Occurrence,
    pinned: ScheduleVersion,
    told: Resolution | None,
    template_version: int | None,
    *,
    now: datetime,
) -> Materialised:
    """``told``: the audience as the user service has told it; None where people are kept here.

    ``template_version``: with which it is to run, where that is another than it was opened with.
    """
    _be_the_only_one(cursor, occurrence)
    if told is not None:
        sharing.use(told, occurrence_id=occurrence.pk, now=now)
    has_people = occurrence.targeted > 0
    if has_people:
        again.withdraw(cursor, occurrence, now=now)
    written = rows.write(cursor, occurrence, pinned, told, again=has_people, now=now)
    targeted, left_out = written.total(), Counter[again.Fate]()
    if has_people:
        left_out = again.settle_withdrawn(cursor, occurrence)
        targeted = again.recount(cursor, occurrence) - occurrence.targeted
    _advance(cursor, occurrence, targeted=targeted, template_version=template_version, now=now)
    brake.hold_grown(occurrence_id=occurrence.pk, now=now)
    channel = pinned.definition["channel"]
    outcomes = {fate: people for fate, people in (written + left_out).items() if fate.state.is_outcome}
    counts.add({Key(OUTCOMES[state], channel, why): people for (state, why), people in outcomes.items()})
    return Materialised(occurrence.pk, occurrence.targeted + targeted, _count_pending(cursor, occurrence))


def _be_the_only_one(cursor: Any, occurrence: Occurrence) -> None:
    """Until the transaction ends, with its session at the latest. Raises ``UnderWay``."""
    cursor.execute(
        "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0)), set_config('statement_timeout', %s, true),"
        " set_config('idle_in_transaction_session_timeout', %s, true)",
        [
            f"materialise {occurrence.pk}",
            str(settings.MATERIALISE_STATEMENT_TIMEOUT),
            str(LEASE_S * 1000),
        ],
    )
    if not cursor.fetchone()[0]:
        raise UnderWay


def _tell_planner(occurrence: Occurrence, *, rows: int) -> None:
    """Have the ledger's day analysed if these rows are a good part of it.

    Autovacuum comes up to a minute later. Until then the planner would know of no row, or of small occurrences only,
    and might read far more than a call's people at each call.
    """
    if rows < LARGE:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE reltuples * 0.1 <= %s AND oid = ("
            "SELECT tableoid FROM delivery_delivery WHERE day = %s AND occurrence_id = %s LIMIT 1)",
            [rows, occurrence.day, occurrence.pk],
        )
        for (partition,) in cursor.fetchall():
            cursor.execute(f"ANALYZE (SKIP_LOCKED) {partition}")


def _advance(
    cursor: Any, occurrence: Occurrence, *, targeted: int, template_version: int | None, now: datetime
) -> None:
    """Who has begun to be sent to ends with the version of the template that it began with."""
    cursor.execute(
        """
        UPDATE schedules_occurrence SET cursor = %s, targeted = targeted + %s, state = 'running',
               reason = '', materialised_at = %s, materialise_lease_until = NULL,
               template_version = CASE WHEN begun_at IS NULL THEN COALESCE(%s, template_version)
                                       ELSE template_version END
        WHERE id = %s AND state = 'materialising' AND cursor = %s AND version = %s AND opens_at = %s
          AND targeted = %s
        """,
        [
            CURSOR_END,
            targeted,
            now,
            template_version,
            occurrence.pk,
            occurrence.cursor,
            occurrence.version,
            occurrence.opens_at,
            occurrence.targeted,
        ],
    )
    if not cursor.rowcount:
        raise Superseded


def _count_pending(cursor: Any, occurrence: Occurrence) -> int:
    cursor.execute("SELECT COALESCE(sum(pending), 0) FROM delivery_batch WHERE occurrence_id = %s", [occurrence.pk])
    pending: int = cursor.fetchone()[0]
    return pending

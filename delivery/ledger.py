"""The only writer of what becomes of a delivery, and of the counts that go with it.

A function here is called inside the caller's transaction and never leaves the two records apart: rows move from one
state to another in one statement, the same numbers move on their batch, and the database refuses a batch that does
not add up. Every statement names ``day``, so that the planner looks at one partition.

Locks are taken in one order: the occurrence (first claim only), delivery rows, batches by id.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connection

from delivery.models import State

# Real time. Longer than permit (3 s), connecting (3 s) and reading (10 s) together.
LEASE_S = 30
# Real time in which the provider's event may still tell what an unanswered call came to.
UNKNOWN_S = 15 * 60

_STATES = [state.label for state in State]


class Work(NamedTuple):
    """A batch as a worker takes it up. ``is_late``: its oldest pending row is past the misfire grace."""

    batch_id: int
    day: date
    occurrence_id: int
    channel: str
    next_due_at: datetime | None
    is_late: bool


class Person(NamedTuple):
    """A claimed row with what its message needs of the profile, read in the statement that claimed it."""

    recipient_id: int
    wave_at: datetime
    attempt: int
    external_id: str
    email: str
    locale: str
    time_zone: str
    attributes: dict[str, Any]
    tags: list[str]
    consent: dict[str, bool]
    created_at: datetime
    has_device: bool
    devices: list[str]


@dataclass(frozen=True, slots=True)
class Claim:
    """The rows of one provider call, and what they run with.

    ``found`` counts the rows picked, those included that turned out not to be sendable; fewer than the limit means
    that the batch has nothing more that is due.
    """

    work: Work
    token: UUID | None
    schedule_id: int
    occurrence_at: datetime
    version: int
    template_version: int
    people: list[Person]
    found: int


class Outcome(NamedTuple):
    """What became of one claimed row.

    ``due_at`` is set when it goes back to pending, ``was_asked`` when the provider was asked for it.
    """

    recipient_id: int
    state: State
    reason: str = ""
    provider_id: str = ""
    due_at: datetime | None = None
    is_attempt: bool = True
    verdict: str = ""
    detail: str = ""
    was_asked: bool = False


class Tally:
    """Moves of rows between states, gathered per batch and written by ``flush`` at the end of the transaction."""

    def __init__(self) -> None:
        self._moves: dict[int, Counter[str]] = defaultdict(Counter)
        self._due: dict[int, datetime] = {}
        self._claimed: dict[int, datetime] = {}

    def move(self, batch_id: int, source: State, target: State, count: int = 1) -> None:
        self._moves[batch_id][source.label] -= count
        self._moves[batch_id][target.label] += count

    def due(self, batch_id: int, at: datetime) -> None:
        """A row of the batch is pending again and due at ``at``."""
        self._due[batch_id] = min(at, self._due.get(batch_id, at))

    def claimed(self, batch_id: int, at: datetime) -> None:
        self._claimed[batch_id] = at

    def flush(self) -> None:
        """Write the counts, batches in the order of their ids, so that two workers can't lock each other out."""
        with connection.cursor() as cursor:
            for batch_id in sorted(self._moves):
                moves = {name: self._moves[batch_id].get(name, 0) for name in _STATES}
                claimed_at = self._claimed.get(batch_id)
                cursor.execute(
                    _COUNT,
                    {
                        **moves,
                        "batch": batch_id,
                        "due": self._due.get(batch_id),
                        "claimed": claimed_at,
                        "lease": LEASE_S,
                    },
                )
        self._moves.clear()
        self._due.clear()
        self._claimed.clear()


_COUNT = f"""
UPDATE delivery_batch SET
    {", ".join(f"{name} = {name} + %({name})s" for name in _STATES)},
    next_due_at = CASE WHEN pending + %(pending)s > 0 THEN LEAST(next_due_at, %(due)s::timestamptz) END,
    started_at = COALESCE(started_at, %(claimed)s::timestamptz),
    lease_until = CASE WHEN %(claimed)s::timestamptz IS NULL THEN lease_until
                       ELSE clock_timestamp() + make_interval(secs => %(lease)s) END,
    queued_at = CASE WHEN queued_at IS NOT NULL THEN clock_timestamp() END
WHERE id = %(batch)s
"""


def take_up(batch_ids: Sequence[int], *, now: datetime) -> list[Work]:
    """The batches of a message, soonest due first; those that have nothing pending are left out."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH locked AS MATERIALIZED (
                SELECT id FROM delivery_batch WHERE id = ANY(%(ids)s::bigint[]) AND pending > 0
                ORDER BY id FOR UPDATE
            ), taken AS (
                UPDATE delivery_batch b SET queued_at = clock_timestamp() FROM locked
                WHERE b.id = locked.id
                RETURNING b.id, b.day, b.occurrence_id, b.channel, b.next_due_at
            )
            SELECT t.id, t.day, t.occurrence_id, t.channel, t.next_due_at,
                   t.next_due_at < %(now)s - make_interval(mins => s.misfire_grace_minutes)
            FROM taken t
            JOIN schedules_occurrence o ON o.id = t.occurrence_id
            JOIN schedules_schedule s ON s.id = o.schedule_id
            ORDER BY t.next_due_at, t.id
            """,
            {"ids": list(batch_ids), "now": now},
        )
        return [Work(*row) for row in cursor.fetchall()]


def release(batch_id: int, *, day: date) -> None:
    """Let go of a batch: it is published again when its next pending row is due."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE delivery_batch SET queued_at = NULL, next_due_at = CASE WHEN pending > 0 THEN (
                SELECT min(due_at) FROM delivery_delivery WHERE day = %(day)s AND batch_id = %(batch)s AND state = 0
            ) END WHERE id = %(batch)s
            """,
            {"batch": batch_id, "day": day},
        )


# Whether anything of the occurrence may be sent now. Every claim reads it in its own statement: pause, cancel,
# delete, an edit in progress and the stop switch write these rows and nothing else.
_GATE = """
gate AS MATERIALIZED (
    SELECT o.schedule_id, o.occurrence_at, o.version, o.template_version
    FROM schedules_occurrence o JOIN schedules_schedule s ON s.id = o.schedule_id
    WHERE o.id = %(occurrence)s AND o.state = 'running' AND o.ends_at > %(now)s AND s.status = 'active'
      AND NOT EXISTS (
          SELECT 1 FROM schedules_stopswitch w
          WHERE w.scope IN ('all', 'channel:' || %(channel)s, 'schedule:' || s.id)
      )
), picked AS MATERIALIZED (
    SELECT d.recipient_id, d.wave_at, d.attempt FROM delivery_delivery d
    WHERE d.day = %(day)s AND d.batch_id = %(batch)s AND d.state = 0 AND d.due_at <= %(now)s
      AND EXISTS (SELECT 1 FROM gate)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)"""

_DEVICES = "ARRAY(SELECT v.token FROM schedules_device v WHERE v.recipient_id = r.id AND v.active ORDER BY v.id)"
_NO_DEVICES = "ARRAY[]::text[]"
_HAS_DEVICE = "EXISTS (SELECT 1 FROM schedules_device v WHERE v.recipient_id = r.id AND v.active) AS has_device"
_PROFILE = """
    r.id AS profile_id, r.external_id, r.email, r.locale, r.time_zone, r.attributes, r.tags, r.consent, r.created_at"""

# What a claim finds out by itself, without asking the provider.
_VERDICT = """
    CASE WHEN r.id IS NULL THEN 16
         WHEN r.consent -> %(channel)s = 'false'::jsonb THEN 13
         WHEN %(channel)s = 'email' AND r.email = '' THEN 14
         WHEN %(channel)s = 'push' AND NOT EXISTS (
             SELECT 1 FROM schedules_device v WHERE v.recipient_id = r.id AND v.active) THEN 14
         ELSE 1 END AS state"""
_REASON_OF = {State.ERASED: "profile_gone", State.SUPPRESSED: "opted_out", State.UNADDRESSABLE: "no_address"}


# A day's first large occurrence meets statistics that know of small ones only, whence the planner would read the whole
# occurrence for each call. The array of recipients binds it to the rows of the call, whatever it believes.
def _claim_sql(devices: str) -> str:
    return f"""
WITH {_GATE}, judged AS MATERIALIZED (
    SELECT p.recipient_id, p.wave_at, p.attempt, {_VERDICT}, {_PROFILE}, {_HAS_DEVICE}, {devices} AS devices
    FROM picked p LEFT JOIN schedules_recipient r ON r.id = p.recipient_id
), claimed AS (
    UPDATE delivery_delivery d SET
        state = j.state,
        reason = CASE j.state WHEN 16 THEN 'profile_gone' WHEN 13 THEN 'opted_out' WHEN 14 THEN 'no_address'
                 ELSE '' END,
        attempt = CASE j.state WHEN 1 THEN d.attempt + 1 ELSE d.attempt END,
        claim_token = CASE j.state WHEN 1 THEN %(token)s::uuid END,
        leased_until = CASE j.state WHEN 1 THEN clock_timestamp() + make_interval(secs => %(lease)s) END,
        settled_at = CASE j.state WHEN 1 THEN NULL ELSE %(now)s END,
        version = gate.version
    FROM judged j, gate
    WHERE d.day = %(day)s AND d.occurrence_id = %(occurrence)s
      AND d.recipient_id = ANY(ARRAY(SELECT recipient_id FROM judged)) AND d.recipient_id = j.recipient_id
    RETURNING d.recipient_id
)
SELECT g.schedule_id, g.occurrence_at, g.version, g.template_version, j.state, j.recipient_id, j.wave_at,
       j.attempt + 1, j.external_id, j.email, j.locale, j.time_zone, j.attributes, j.tags, j.consent, j.created_at,
       j.has_device, j.devices
FROM gate g LEFT JOIN (judged j JOIN claimed c ON c.recipient_id = j.recipient_id) ON true
"""


def _hold_sql(devices: str) -> str:
    return f"""
WITH {_GATE}, judged AS MATERIALIZED (
    SELECT p.recipient_id, p.wave_at, p.attempt, {_VERDICT}, {_PROFILE}, {_HAS_DEVICE}, {devices} AS devices
    FROM picked p LEFT JOIN LATERAL (
        SELECT * FROM schedules_recipient WHERE id = p.recipient_id FOR KEY SHARE
    ) r ON true
)
SELECT g.schedule_id, g.occurrence_at, g.version, g.template_version, j.state, j.recipient_id, j.wave_at,
       j.attempt + 1, j.external_id, j.email, j.locale, j.time_zone, j.attributes, j.tags, j.consent, j.created_at,
       j.has_device, j.devices
FROM gate g LEFT JOIN judged j ON true
"""


def _sql_by_channel(build: Any) -> dict[str, str]:
    return {
        "email": build(_NO_DEVICES),
        "push": build(_DEVICES),
        "in_app": build(_NO_DEVICES),
    }


_CLAIM = _sql_by_channel(_claim_sql)
_HOLD = _sql_by_channel(_hold_sql)


def claim(work: Work, *, token: UUID, limit: int, now: datetime, tally: Tally) -> Claim | None:
    """Claim up to ``limit`` due rows of a batch for one call; ``None`` while the batch may not send at all.

    ``token`` is fresh: every later write of these rows must name it. People who can't be sent to are settled in the
    same statement and are not among ``people``.
    """
    rows, found = _pick(_CLAIM[work.channel], work, limit=limit, now=now, token=token)
    if not rows:
        return None
    for state, count in Counter(row[4] for row in found).items():
        tally.move(work.batch_id, State.PENDING, State(state), count)
    if found:
        tally.claimed(work.batch_id, now)
    return _as_claim(work, token, rows[0], found)


def hold(work: Work, *, limit: int, now: datetime, tally: Tally) -> tuple[Claim, list[Outcome]] | None:
    """Lock up to ``limit`` due rows for a provider that writes in this same transaction; nothing is written yet.

    Returns the claim (without token) and the outcomes found out by itself, both for ``settle``; ``None`` while the
    batch may not send at all. Profiles are locked too, so that none is erased before its message is written.
    """
    rows, found = _pick(_HOLD[work.channel], work, limit=limit, now=now, token=None)
    if not rows:
        return None
    if found:
        tally.claimed(work.batch_id, now)
    settled = [
        Outcome(row[5], State(row[4]), _REASON_OF[State(row[4])], is_attempt=False)
        for row in found
        if row[4] != State.SENDING
    ]
    return _as_claim(work, None, rows[0], found), settled


def _pick(
    sql: str, work: Work, *, limit: int, now: datetime, token: UUID | None
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What the claiming statement says, and those of its rows that hold a recipient.

    The occurrence is marked begun before, and unmarked where there was nobody to claim. An edit holds its row: the
    claim that follows sees the edit or wins over it.
    """
    parameters = {
        "occurrence": work.occurrence_id,
        "batch": work.batch_id,
        "day": work.day,
        "channel": work.channel,
        "now": now,
        "limit": limit,
        "token": token,
        "lease": LEASE_S,
    }
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, parameters)
        begins = cursor.rowcount
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        found = [row for row in rows if row[4] is not None]
        if begins and not found:
            cursor.execute("UPDATE schedules_occurrence SET begun_at = NULL WHERE id = %(occurrence)s", parameters)
    return rows, found


_BEGIN = """
UPDATE schedules_occurrence SET begun_at = %(now)s
WHERE id = %(occurrence)s AND begun_at IS NULL AND state = 'running'
  AND EXISTS (SELECT 1 FROM schedules_schedule s WHERE s.id = schedule_id AND s.status = 'active')
"""


def _as_claim(work: Work, token: UUID | None, gate: tuple[Any, ...], rows: list[tuple[Any, ...]]) -> Claim:
    schedule_id, occurrence_at, version, template_version = gate[:4]
    people = [_person(row[5:]) for row in rows if row[4] == State.SENDING]
    return Claim(work, token, schedule_id, occurrence_at, version, template_version, people, len(rows))


def _person(row: tuple[Any, ...]) -> Person:
    # Django hands JSON out as text on a plain cursor.
    return Person._make([*row[:7], *(json.loads(column) for column in row[7:10]), *row[10:]])


def settle(
    claim: Claim, outcomes: Sequence[Outcome], *, now: datetime, called_at: datetime | None, tally: Tally
) -> int:
    """Record the outcomes of a claim; return how many rows were still the claim's.

    A row that meanwhile has been taken away (its lease expired, the person was erased) is left as it is, unless it is
    held as unknown under this very claim: then the answer that came late is the truth.
    """
    if not outcomes:
        return 0
    source = State.SENDING if claim.token else State.PENDING
    settled = _write_outcomes(claim, outcomes, source, now=now, called_at=called_at, tally=tally)
    if claim.token and settled < len(outcomes):
        settled += _write_outcomes(claim, outcomes, State.UNKNOWN, now=now, called_at=called_at, tally=tally)
    return settled


_SETTLE = """
UPDATE delivery_delivery d SET
    state = v.state, reason = v.reason, provider_id = v.provider_id, due_at = COALESCE(v.due_at, d.due_at),
    attempt = d.attempt + CASE
        WHEN %(token)s::uuid IS NULL THEN CASE WHEN v.is_attempt THEN 1 ELSE 0 END
        WHEN v.state = 0 AND NOT v.is_attempt THEN -1
        ELSE 0 END,
    claim_token = CASE WHEN v.state = 2 THEN d.claim_token END,
    leased_until = CASE WHEN v.state = 2 THEN clock_timestamp() + make_interval(secs => %(unknown)s) END,
    called_at = CASE WHEN v.was_asked THEN %(called)s::timestamptz ELSE d.called_at END,
    settled_at = CASE WHEN v.state >= 10 THEN %(now)s::timestamptz END,
    version = %(version)s
FROM unnest(%(ids)s::bigint[], %(states)s::smallint[], %(reasons)s::text[], %(providers)s::text[],
            %(dues)s::timestamptz[], %(attempts)s::boolean[], %(asked)s::boolean[])
    AS v(recipient_id, state, reason, provider_id, due_at, is_attempt, was_asked)
WHERE d.day = %(day)s AND d.occurrence_id = %(occurrence)s
  AND d.recipient_id = ANY(%(ids)s::bigint[]) AND d.recipient_id = v.recipient_id
  AND d.state = %(source)s AND d.claim_token IS NOT DISTINCT FROM %(token)s::uuid
RETURNING d.recipient_id, d.state, d.attempt
"""


def _write_outcomes(
    claim: Claim,
    outcomes: Sequence[Outcome],
    source: State,
    *,
    now: datetime,
    called_at: datetime | None,
    tally: Tally,
) -> int:
    work = claim.work
    with connection.cursor() as cursor:
        cursor.execute(
            _SETTLE,
            {
                "ids": [outcome.recipient_id for outcome in outcomes],
                "states": [int(outcome.state) for outcome in outcomes],
                "reasons": [outcome.reason for outcome in outcomes],
                "providers": [outcome.provider_id for outcome in outcomes],
                "dues": [outcome.due_at for outcome in outcomes],
                "attempts": [outcome.is_attempt for outcome in outcomes],
                "asked": [outcome.was_asked for outcome in outcomes],
                "day": work.day,
                "occurrence": work.occurrence_id,
                "source": int(source),
                "token": claim.token,
                "version": claim.version,
                "now": now,
                "called": called_at,
                "unknown": UNKNOWN_S,
            },
        )
        written = {row[0]: row for row in cursor.fetchall()}
    for state, count in Counter(row[1] for row in written.values()).items():
        tally.move(work.batch_id, source, State(state), count)
    kept = [outcome for outcome in outcomes if outcome.recipient_id in written]
    for outcome in kept:
        if outcome.state is State.PENDING and outcome.due_at is not None:
            tally.due(work.batch_id, outcome.due_at)
    _keep_failures(work, kept, {key: row[2] for key, row in written.items()}, now=now)
    return len(kept)


def _keep_failures(work: Work, outcomes: Iterable[Outcome], attempts: dict[int, int], *, now: datetime) -> None:
    failures = [outcome for outcome in outcomes if outcome.verdict and outcome.verdict != "sent"]
    if not failures:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO delivery_failedattempt (day, occurrence_id, recipient_id, attempt, at, verdict, reason, detail)
            SELECT %(day)s, %(occurrence)s, v.* FROM unnest(%(ids)s::bigint[], %(attempts)s::smallint[],
                %(ats)s::timestamptz[], %(verdicts)s::text[], %(reasons)s::text[], %(details)s::text[]) AS v
            ON CONFLICT DO NOTHING
            """,
            {
                "day": work.day,
                "occurrence": work.occurrence_id,
                "ids": [outcome.recipient_id for outcome in failures],
                "attempts": [attempts[outcome.recipient_id] for outcome in failures],
                "ats": [now] * len(failures),
                "verdicts": [outcome.verdict for outcome in failures],
                "reasons": [outcome.reason for outcome in failures],
                "details": [outcome.detail for outcome in failures],
            },
        )


def take_back(work: Work, *, token: UUID, tally: Tally) -> int:
    """Undo a claim of which it is unknown whether it was committed; nothing was called under it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE delivery_delivery SET state = 0, claim_token = NULL, leased_until = NULL, attempt = attempt - 1"
            " WHERE day = %s AND batch_id = %s AND state = 1 AND claim_token = %s RETURNING due_at",
            [work.day, work.batch_id, token],
        )
        rows = cursor.fetchall()
    if rows:
        tally.move(work.batch_id, State.SENDING, State.PENDING, len(rows))
        tally.due(work.batch_id, min(due_at for (due_at,) in rows))
    return len(rows)


def settle_batch(
    batch_id: int,
    *,
    day: date,
    source: State,
    target: State,
    reason: str,
    now: datetime,
    tally: Tally,
    condition: str = "true",
    parameters: dict[str, Any] | None = None,
    waits: bool = True,
) -> int:
    """Move the rows of a batch that are ``source`` and fulfil ``condition`` to ``target``; return how many.

    ``condition`` is SQL over ``d`` (a delivery row) from this package alone; its values come in ``parameters``.
    Rows that somebody else is writing are waited for, or, unless it ``waits``, left out: who goes through many rows
    would else meet a worker that holds some of them and wants the others.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH meant AS MATERIALIZED (
                SELECT d.recipient_id FROM delivery_delivery d
                WHERE d.day = %(day)s AND d.batch_id = %(batch)s AND d.state = %(source)s AND ({condition})
                FOR UPDATE {"" if waits else "SKIP LOCKED"}
            )
            UPDATE delivery_delivery d SET
                state = %(target)s, reason = %(reason)s,
                claim_token = CASE WHEN %(target)s = 2 THEN d.claim_token END,
                leased_until = CASE WHEN %(target)s = 2 THEN clock_timestamp() + make_interval(secs => %(unknown)s) END,
                settled_at = CASE WHEN %(target)s >= 10 THEN %(now)s::timestamptz END
            FROM meant
            WHERE d.day = %(day)s AND d.batch_id = %(batch)s AND d.recipient_id = meant.recipient_id
            """,
            {
                **(parameters or {}),
                "day": day,
                "batch": batch_id,
                "source": int(source),
                "target": int(target),
                "reason": reason,
                "now": now,
                "unknown": UNKNOWN_S,
            },
        )
        moved: int = cursor.rowcount
    if moved:
        tally.move(batch_id, source, target, moved)
    return moved


# A wave has started when the provider was asked for any of its people. Waves with batches of their own are known by
# these; where waves share batches, the rows tell.
_STARTED_WAVES = """
SELECT b.wave_at FROM delivery_batch b
WHERE b.occurrence_id = %(occurrence)s AND b.started_at IS NOT NULL AND b.wave_at IS NOT NULL
UNION
SELECT m.wave_at FROM delivery_batch b JOIN delivery_delivery m ON m.batch_id = b.id
WHERE b.occurrence_id = %(occurrence)s AND b.wave_at IS NULL
  AND m.day = %(day)s AND (m.attempt > 0 OR m.called_at IS NOT NULL)
"""


def started_waves(occurrence_id: int, *, day: date) -> list[datetime]:
    """The instants of the occurrence's waves that have begun, hence run on however late it gets."""
    with connection.cursor() as cursor:
        cursor.execute(_STARTED_WAVES, {"occurrence": occurrence_id, "day": day})
        return [wave_at for (wave_at,) in cursor.fetchall()]


def expire_late(work: Work, *, now: datetime, tally: Tally) -> int:
    """Expire the people of waves that did not start within the misfire grace; return how many.

    The reason says why: ``paused`` when the schedule was paused over the wave's instant, else ``down``.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE delivery_delivery d SET state = 17, settled_at = %(now)s,
                reason = CASE WHEN s.paused_at <= d.wave_at + make_interval(mins => s.misfire_grace_minutes)
                               AND COALESCE(s.resumed_at, 'infinity') > d.wave_at THEN 'paused' ELSE 'down' END
            FROM schedules_occurrence o JOIN schedules_schedule s ON s.id = o.schedule_id
            WHERE o.id = %(occurrence)s AND o.state = 'running' AND s.status = 'active'
              AND d.day = %(day)s AND d.batch_id = %(batch)s AND d.state = 0
              AND d.wave_at < %(now)s - make_interval(mins => s.misfire_grace_minutes)
              AND NOT d.wave_at = ANY(ARRAY({_STARTED_WAVES}))
            """,
            {"now": now, "occurrence": work.occurrence_id, "day": work.day, "batch": work.batch_id},
        )
        moved: int = cursor.rowcount
    if moved:
        tally.move(work.batch_id, State.PENDING, State.EXPIRED, moved)
    return moved

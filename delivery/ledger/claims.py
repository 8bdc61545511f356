"""Taking rows for one provider call, and giving them back."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db import connection

from delivery import counts
from delivery.ledger import rows as terms
from delivery.ledger.rows import Claim, Outcome, Person, Work
from delivery.ledger.tally import Tally, release_locked
from delivery.models import State
from delivery.providers.base import Target


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
                RETURNING b.id, b.day, b.occurrence_id, b.channel, b.next_due_at, b.pending
            )
            SELECT t.id, t.day, t.occurrence_id, t.channel, t.next_due_at,
                   t.next_due_at < %(now)s - make_interval(mins => s.misfire_grace_minutes), t.pending,
                   o.begun_at IS NOT NULL
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
        # Locked first: one statement would read its rows as they were before another's answers it had to wait for.
        cursor.execute("SELECT FROM delivery_batch WHERE id = %s FOR UPDATE", [batch_id])
    release_locked(batch_id, day=day)


# Real seconds for the answer of a probe through an open circuit; without one the next probe follows.
PROBE_S = 15

# Whether anything of the occurrence may be sent now. Every claim reads it in its own statement: pause, cancel,
# delete, an edit in progress, the stop switch, the failure brake and an open circuit write these rows and nothing else.
# Through an open circuit one claim passes when its time has come, which is for the answer of this one's call then.
_GATE = f"""
probe AS (
    UPDATE delivery_circuit SET probe_at = clock_timestamp() + make_interval(secs => {PROBE_S})
    WHERE channel = %(channel)s AND probe_at <= clock_timestamp() RETURNING 1
), gate AS MATERIALIZED (
    SELECT o.schedule_id, o.occurrence_at, o.version, o.template_version, EXISTS (SELECT 1 FROM probe) AS is_probe
    FROM schedules_occurrence o JOIN schedules_schedule s ON s.id = o.schedule_id
    WHERE o.id = %(occurrence)s AND o.state = 'running' AND o.ends_at > %(now)s AND o.held_reason = ''
      AND s.status IN {terms.RUNS}
      AND NOT EXISTS (
          SELECT 1 FROM schedules_stopswitch w
          WHERE w.scope IN ('all', 'channel:' || %(channel)s, 'schedule:' || s.id)
      )
      AND (EXISTS (SELECT 1 FROM probe)
           OR NOT EXISTS (SELECT 1 FROM delivery_circuit c WHERE c.channel = %(channel)s))
), picked AS MATERIALIZED (
    SELECT d.recipient_id, d.wave_at, d.attempt, d.reached FROM delivery_delivery d
    WHERE d.day = %(day)s AND d.batch_id = %(batch)s AND d.state = {int(State.PENDING)} AND d.due_at <= %(now)s
      AND EXISTS (SELECT 1 FROM gate)
    LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)"""

_DEVICES = """ARRAY(SELECT v.id || ' ' || v.platform || ' ' || v.token FROM schedules_device v
                     WHERE v.recipient_id = r.id AND v.active ORDER BY v.id)"""
_NO_DEVICES = "ARRAY[]::text[]"
_HAS_DEVICE = "EXISTS (SELECT 1 FROM schedules_device v WHERE v.recipient_id = r.id AND v.active) AS has_device"
_PROFILE = """
    r.id AS profile_id, r.external_id, r.email, r.locale, r.time_zone, r.attributes, r.tags, r.consent, r.created_at"""

# What a claim finds out by itself, without asking the provider.
_VERDICT = f"""
    CASE WHEN r.id IS NULL THEN {int(State.ERASED)}
         WHEN r.consent -> %(channel)s = 'false'::jsonb THEN {int(State.SUPPRESSED)}
         WHEN %(channel)s = 'email' AND r.email = '' THEN {int(State.UNADDRESSABLE)}
         WHEN %(channel)s = 'push' AND NOT EXISTS (
             SELECT 1 FROM schedules_device v WHERE v.recipient_id = r.id AND v.active)
         THEN CASE WHEN p.reached ~ '[1-9]' THEN {int(State.SENT)} ELSE {int(State.UNADDRESSABLE)} END
         ELSE {int(State.SENDING)} END AS state"""
_REASON_OF = {State.ERASED: "profile_gone", State.SUPPRESSED: "opted_out", State.UNADDRESSABLE: "no_address"}
_REASONS = " ".join(f"WHEN {int(state)} THEN '{reason}'" for state, reason in _REASON_OF.items())


# Instants come in microseconds since 1970: reading a timestamp costs Django ten times as much as reading a number.
def _instant(column: str) -> str:
    return f"(extract(epoch FROM {column}) * 1000000)::bigint"


_COLUMNS = f"""
g.schedule_id, {_instant("g.occurrence_at")}, g.version, g.template_version, j.state, j.recipient_id,
       {_instant("j.wave_at")}, j.attempt + 1, j.external_id, j.email, j.locale, j.time_zone, j.attributes, j.tags,
       j.consent, {_instant("j.created_at")}, j.has_device, j.devices, j.reached, g.is_probe"""


# A day's first large occurrence meets statistics that know of small ones only, whence the planner would read the whole
# occurrence for each call. Batch and array of recipients bind it to the rows of the batch or of the call, whatever it
# believes.
def _claim_sql(devices: str) -> str:
    return f"""
WITH {_GATE}, judged AS MATERIALIZED (
    SELECT p.recipient_id, p.wave_at, p.attempt, p.reached, {_VERDICT}, {_PROFILE}, {_HAS_DEVICE}, {devices} AS devices
    FROM picked p LEFT JOIN schedules_recipient r ON r.id = p.recipient_id
), claimed AS (
    UPDATE delivery_delivery d SET
        state = j.state,
        reason = CASE j.state {_REASONS} ELSE '' END,
        attempt = CASE j.state WHEN {int(State.SENDING)} THEN d.attempt + 1 ELSE d.attempt END,
        claim_token = CASE j.state WHEN {int(State.SENDING)} THEN %(token)s::uuid END,
        leased_until = CASE j.state WHEN {int(State.SENDING)}
                                    THEN clock_timestamp() + make_interval(secs => %(lease)s) END,
        claimed_at = CASE j.state WHEN {int(State.SENDING)} THEN %(now)s ELSE d.claimed_at END,
        detail = '',
        settled_at = CASE j.state WHEN {int(State.SENDING)} THEN NULL ELSE %(now)s END,
        version = gate.version
    FROM judged j, gate
    WHERE d.day = %(day)s AND d.batch_id = %(batch)s AND d.occurrence_id = %(occurrence)s
      AND d.recipient_id = ANY(ARRAY(SELECT recipient_id FROM judged)) AND d.recipient_id = j.recipient_id
    RETURNING d.recipient_id
)
SELECT {_COLUMNS}
FROM gate g LEFT JOIN (judged j JOIN claimed c ON c.recipient_id = j.recipient_id) ON true
"""


def _sql_by_channel(build: Any) -> dict[str, str]:
    return {
        "email": build(_NO_DEVICES),
        "push": build(_DEVICES),
        "in_app": build(_NO_DEVICES),
    }


_CLAIM = _sql_by_channel(_claim_sql)


def claim(work: Work, *, token: UUID, limit: int, now: datetime, tally: Tally, is_begun: bool = False) -> Claim | None:
    """Claim up to ``limit`` due rows of a batch for one call; ``None`` while the batch may not send at all.

    ``token`` is fresh: every later write of these rows must name it. People who can't be sent to are settled in the
    same statement and are not among ``people``. ``is_begun``: a claim before has found somebody in the occurrence.
    """
    rows, found = _pick(_CLAIM[work.channel], work, limit=limit, now=now, token=token, tally=tally, is_begun=is_begun)
    if not rows:
        return None
    for state, count in Counter(row[4] for row in found).items():
        reason_class = counts.reason_class(State(state), _REASON_OF.get(State(state), ""))
        tally.move(work.batch_id, State.PENDING, State(state), count, reason_class=reason_class)
    if found:
        tally.claimed(work.batch_id, now)
    return _as_claim(work, token, rows[0], found, now=now)


def hold(claim: Claim) -> dict[int, bool]:
    """Lock the rows that are still the claim's, for a provider that writes in this same transaction.

    By recipient, whether the profile still stands; it is locked too, so that none is erased before its message is
    written.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH held AS MATERIALIZED (
                SELECT d.recipient_id FROM delivery_delivery d
                WHERE d.day = %(day)s AND d.batch_id = %(batch)s AND d.state = {int(State.SENDING)}
                  AND d.claim_token = %(token)s FOR UPDATE
            )
            SELECT h.recipient_id, r.id IS NOT NULL FROM held h LEFT JOIN LATERAL (
                SELECT id FROM schedules_recipient WHERE id = h.recipient_id FOR KEY SHARE
            ) r ON true
            """,
            {"day": claim.work.day, "batch": claim.work.batch_id, "token": claim.token},
        )
        return dict(cursor.fetchall())


def profile_gone(recipient_id: int) -> Outcome:
    """The person was erased between claim and call."""
    return Outcome(recipient_id, State.ERASED, _REASON_OF[State.ERASED], is_attempt=False)


def _pick(
    sql: str, work: Work, *, limit: int, now: datetime, token: UUID, tally: Tally, is_begun: bool
) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """What the claiming statement says, and those of its rows that hold a recipient.

    The occurrence is marked begun before, and unmarked where there was nobody to claim. An edit holds its row: the
    claim that follows sees the edit or wins over it.
    """
    parameters: dict[str, Any] = {
        "occurrence": work.occurrence_id,
        "batch": work.batch_id,
        "day": work.day,
        "channel": work.channel,
        "now": now,
        "limit": limit,
        "token": token,
        "lease": terms.LEASE_S,
    }
    with connection.cursor() as cursor:
        begins = 0
        if not is_begun:
            cursor.execute(_BEGIN, parameters)
            begins = cursor.rowcount
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        found = [row for row in rows if row[4] is not None]
        if begins and not found:
            cursor.execute("UPDATE schedules_occurrence SET begun_at = NULL WHERE id = %(occurrence)s", parameters)
    if begins and found:
        earliest = _read(min(row[6] for row in found))
        tally.observe(counts.RUN_LAG, work.channel, max((now - earliest).total_seconds(), 0.0))
    return rows, found


_BEGIN = f"""
UPDATE schedules_occurrence SET begun_at = %(now)s
WHERE id = %(occurrence)s AND begun_at IS NULL AND state = 'running'
  AND EXISTS (SELECT 1 FROM schedules_schedule s WHERE s.id = schedule_id AND s.status IN {terms.RUNS})
"""


def _as_claim(work: Work, token: UUID, gate: tuple[Any, ...], rows: list[tuple[Any, ...]], *, now: datetime) -> Claim:
    schedule_id, occurrence_at, version, template_version = gate[:4]
    people = [_person(row[5:-1]) for row in rows if row[4] == State.SENDING]
    at = _read(occurrence_at)
    return Claim(work, token, schedule_id, at, version, template_version, people, len(rows), now, is_probe=gate[-1])


def _person(row: tuple[Any, ...]) -> Person:
    recipient_id, wave_at, *words, attributes, tags, consent, created_at, has_device, devices, reached = row
    # Django hands JSON out as text on a plain cursor.
    read = [orjson.loads(attributes), orjson.loads(tags), orjson.loads(consent), _read(created_at)]
    targets = [_target(device) for device in devices]
    return Person._make([recipient_id, _read(wave_at), *words, *read, has_device, targets, _ids(reached)])


def _target(device: str) -> Target:
    device_id, platform, token = device.split(" ", 2)
    return Target(int(device_id), platform, token)


def _ids(listed: str) -> tuple[int, ...]:
    return tuple(map(int, listed.split(","))) if listed else ()


def _read(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def take_back(work: Work, *, token: UUID, tally: Tally) -> int:
    """Undo a claim of which it is unknown whether it was committed; nothing was called under it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE delivery_delivery SET state = %s, claim_token = NULL, leased_until = NULL, attempt = attempt - 1"
            " WHERE day = %s AND batch_id = %s AND state = %s AND claim_token = %s RETURNING due_at",
            [int(State.PENDING), work.day, work.batch_id, int(State.SENDING), token],
        )
        rows = cursor.fetchall()
    if rows:
        tally.move(work.batch_id, State.SENDING, State.PENDING, len(rows))
        tally.due(work.batch_id, min(due_at for (due_at,) in rows))
    return len(rows)

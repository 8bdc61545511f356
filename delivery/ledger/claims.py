"""Taking rows for the next provider calls, and giving them back."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from django.db import connection

from delivery import counts
from delivery.ledger import rows as terms
from delivery.ledger.rows import Claim, Outcome, Person, Work
from delivery.ledger.tally import Tally, let_go_locked
from delivery.models import State
from delivery.providers.base import Target
from schedules import encryption
from schedules.fields import place


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
                RETURNING b.id, b.day, b.occurrence_id, b.channel, b.next_due_at, b.expires_at, b.pending
            )
            SELECT t.id, t.day, t.occurrence_id, t.channel, t.next_due_at,
                   t.next_due_at < %(now)s - make_interval(mins => s.misfire_grace_minutes),
                   t.pending, o.begun_at IS NOT NULL, COALESCE(t.expires_at <= %(now)s, false),
                   o.schedule_id, s.max_per_minute
            FROM taken t
            JOIN schedules_occurrence o ON o.id = t.occurrence_id
            JOIN schedules_schedule s ON s.id = o.schedule_id
            ORDER BY t.next_due_at, t.id
            """,
            {"ids": list(batch_ids), "now": now},
        )
        return [Work(*row) for row in cursor.fetchall()]


def let_go(batch_id: int, *, day: date) -> None:
    """Let go of a batch: it is published again when its next pending row is due."""
    with connection.cursor() as cursor:
        # Locked first: one statement would read its rows as they were before another's answers it had to wait for.
        cursor.execute("SELECT FROM delivery_batch WHERE id = %s FOR UPDATE", [batch_id])
    let_go_locked(batch_id, day=day)


# Real seconds for the answer of a probe through an open circuit; without one the next probe follows.
PROBE_S = 15

# Whether anything of the occurrence may be sent now. Every claim reads it in its own statement: pause, cancel,
# delete, an edit in progress, the stop switch, the failure brake and an open circuit write these rows and nothing else.
# Through an open circuit one claim passes when its time has come, which is for the answer of this one's call then.
_GATE = f"""
probe AS (
    UPDATE delivery_circuit SET probe_at = clock_timestamp() + make_interval(secs => {PROBE_S})
    WHERE scope = %(channel)s AND probe_at <= clock_timestamp() RETURNING 1
), gate AS MATERIALIZED (
    SELECT w.batch_id, o.id AS occurrence_id, o.schedule_id, o.occurrence_at, o.version, o.template_version,
           s.purpose = 'transactional' AS is_transactional,
           EXISTS (SELECT 1 FROM probe) AS is_probe
    FROM unnest(%(batches)s::bigint[], %(occurrences)s::bigint[]) AS w(batch_id, occurrence_id)
    JOIN schedules_occurrence o ON o.id = w.occurrence_id JOIN schedules_schedule s ON s.id = o.schedule_id
    WHERE o.id = ANY(%(occurrences)s::bigint[]) AND {terms.GOES} AND o.ends_at > %(now)s
      AND NOT {terms.stopped("%(channel)s")} AND NOT {terms.unrendered("s")}
      AND (EXISTS (SELECT 1 FROM probe)
           OR NOT EXISTS (SELECT 1 FROM delivery_circuit c WHERE c.scope = %(channel)s))
), picked AS MATERIALIZED (
    SELECT g.batch_id, g.occurrence_id, g.version, g.is_transactional, p.* FROM gate g CROSS JOIN LATERAL (
        SELECT d.recipient_id, d.wave_at, d.attempt, d.reached, d.called_at IS NULL AS is_first_call,
               d.version AS row_version
        FROM delivery_delivery d
        WHERE d.day = %(day)s AND d.batch_id = g.batch_id AND d.state = {int(State.PENDING)} AND d.due_at <= %(now)s
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) p
)"""

_DEVICES = """ARRAY(SELECT v.id || ' ' || v.platform || ' ' || encode(v.token, 'hex') FROM schedules_device v
                     WHERE v.recipient_id = r.id AND v.active ORDER BY v.id)"""
_NO_DEVICES = "ARRAY[]::text[]"
_HAS_DEVICE = "EXISTS (SELECT 1 FROM schedules_device v WHERE v.recipient_id = r.id AND v.active) AS has_device"
_PROFILE = """
    r.id AS profile_id, r.external_id, r.email, r.locale, r.time_zone, r.attributes, r.tags, r.consent, r.created_at,
    r.quiet_hours, r.email_index"""


def _or_sent(state: State) -> str:
    return f"CASE WHEN {terms.HAS_MESSAGE} THEN {int(State.SENT)} ELSE {int(state)} END"


# What a claim finds out by itself, without asking the provider. What was said of the schedule's topic is told by
# ``delivery.messages``, which knows the version that the row runs with.
_OPTED_OUT = "NOT d.is_transactional AND r.consent -> %(channel)s = 'false'::jsonb"
_VERDICT = f"""
    CASE WHEN r.id IS NULL THEN {_or_sent(State.ERASED)}
         WHEN {_OPTED_OUT} THEN {_or_sent(State.SUPPRESSED)}
         {{suppressed}}
         WHEN %(channel)s = 'email' AND r.email = '' THEN {_or_sent(State.UNADDRESSABLE)}
         WHEN %(channel)s = 'push' AND NOT EXISTS (
             SELECT 1 FROM schedules_device v WHERE v.recipient_id = r.id AND v.active)
         THEN {_or_sent(State.UNADDRESSABLE)}
         ELSE {int(State.SENDING)} END AS state"""
_REASON_OF = {State.ERASED: "profile_gone", State.SUPPRESSED: "opted_out", State.UNADDRESSABLE: "no_address"}
# SQL over a row of the claim: why and since when its address is suppressed, where that is the reason.
_WHY = "((SELECT suppressed FROM verdicts) -> ({0}.batch_id || '-' || {0}.recipient_id))"
_REASONS = " ".join(
    f"WHEN {int(state)} THEN "
    + (f"COALESCE({_WHY.format('d')} ->> 0, '{reason}')" if state is State.SUPPRESSED else f"'{reason}'")
    for state, reason in _REASON_OF.items()
)
# Whether the address is not written to any more: one probe of an index for each person, since a query for one value
# never becomes a join with, nor a hash of, the whole table. Why, and since when, is asked of those alone who are.
_SUPPRESSION = f"""FROM schedules_suppression s
    WHERE s.channel = %(channel)s AND s.fingerprint = {encryption.fingerprint_sql("{index}")}"""
_IS_SUPPRESSED = (
    f"WHEN (SELECT s.id {_SUPPRESSION.format(index='r.email_index')}) IS NOT NULL THEN {int(State.SUPPRESSED)}"
)
_WHY_SUPPRESSED = f"""(SELECT jsonb_build_array(s.reason, jsonb_build_object('since', s.created_at)::text)
    {_SUPPRESSION.format(index="email_index")}
    AND (is_transactional OR consent -> %(channel)s IS DISTINCT FROM 'false'::jsonb))"""


# Instants come in microseconds since 1970: reading a timestamp costs Django ten times as much as reading a number.
def _instant(column: str) -> str:
    return f"(extract(epoch FROM {column}) * 1000000)::bigint"


_COLUMNS = f"""
g.batch_id, g.schedule_id, {_instant("g.occurrence_at")}, g.version, g.template_version, j.state, j.recipient_id,
       {_instant("j.wave_at")}, j.attempt + 1, j.external_id, j.email, j.locale, j.time_zone, j.attributes, j.tags,
       j.consent, {_instant("j.created_at")}, j.quiet_hours, j.has_device, j.devices, j.reached,
       j.is_first_call, j.row_version,
       CASE WHEN j.state = {int(State.SUPPRESSED)} THEN {_WHY.format("j")} ->> 0 END, g.is_probe"""


# A day's first large occurrence meets statistics that know of small ones only, whence the planner would read the whole
# occurrence for each call. Batch and array of recipients bind it to the rows of the batch or of the call, whatever it
# believes. And it believes that hardly any row is pending, which is so at nearly all times: a join of the rows with
# what was found of them compares each with each (42 ms for 200 people, without it 5). So they look it up, and
# "IS TRUE" keeps the last question from becoming a join. "OFFSET 0" has each of them look it up once, and not in
# each column that asks for it: 75 us of PostgreSQL's processor time for a person sent to, without it 85.
def _claim_sql(devices: str, is_suppressed: str = "", why_suppressed: str = "NULL::jsonb") -> str:
    return f"""
WITH {_GATE}, judged AS MATERIALIZED (
    SELECT d.*, {_VERDICT.format(suppressed=is_suppressed)}, {_PROFILE}, {_HAS_DEVICE}, {devices} AS devices
    FROM picked d LEFT JOIN schedules_recipient r ON r.id = d.recipient_id
), verdicts AS MATERIALIZED (
    SELECT jsonb_object_agg(batch_id || '-' || recipient_id, state) AS states,
           jsonb_object_agg(batch_id || '-' || recipient_id, {why_suppressed})
               FILTER (WHERE state = {int(State.SUPPRESSED)}) AS suppressed
    FROM judged
), claimed AS (
    UPDATE delivery_delivery d SET
        (state, reason, detail, attempt, claim_token, leased_until, claimed_at, settled_at) = (
            SELECT v.state, CASE v.state {_REASONS} ELSE '' END,
                   CASE v.state WHEN {int(State.SUPPRESSED)} THEN COALESCE({_WHY.format("d")} ->> 1, '') ELSE '' END,
                   CASE v.state WHEN {int(State.SENDING)} THEN d.attempt + 1 ELSE d.attempt END,
                   CASE v.state WHEN {int(State.SENDING)} THEN %(token)s::uuid END,
                   CASE v.state WHEN {int(State.SENDING)}
                                THEN clock_timestamp() + make_interval(secs => %(lease)s) END,
                   CASE v.state WHEN {int(State.SENDING)} THEN %(now)s ELSE d.claimed_at END,
                   CASE v.state WHEN {int(State.SENDING)} THEN NULL ELSE %(now)s END
            FROM (SELECT ((SELECT states FROM verdicts) ->> (d.batch_id || '-' || d.recipient_id))::smallint
                  OFFSET 0) v(state)
        ),
        version = ((SELECT jsonb_object_agg(batch_id, version) FROM gate) ->> d.batch_id::text)::integer
    WHERE d.day = %(day)s AND d.batch_id = ANY(%(batches)s::bigint[])
      AND d.occurrence_id = ANY(%(occurrences)s::bigint[])
      AND d.recipient_id = ANY(ARRAY(SELECT recipient_id FROM judged))
      AND (SELECT states FROM verdicts) ? (d.batch_id || '-' || d.recipient_id)
    RETURNING d.recipient_id, d.batch_id
)
SELECT {_COLUMNS}
FROM gate g LEFT JOIN judged j
    ON j.batch_id = g.batch_id
   AND ((j.batch_id, j.recipient_id) IN (SELECT batch_id, recipient_id FROM claimed)) IS TRUE
"""


_CLAIM = {
    "email": _claim_sql(_NO_DEVICES, _IS_SUPPRESSED, _WHY_SUPPRESSED),
    "push": _claim_sql(_DEVICES),
    "in_app": _claim_sql(_NO_DEVICES),
}


def claim(
    works: Sequence[Work], *, token: UUID, limit: int, now: datetime, tally: Tally, begun: Collection[int] = ()
) -> list[Claim | None]:
    """Claim up to ``limit`` due rows of each of these batches, which share day and channel.

    In their order; ``None`` for a batch that may not send at all. ``token`` is fresh: every later write of these rows
    must name it. People who can't be sent to are settled in the same statement and are not among ``people``.
    ``begun``: ids of occurrences in which a claim before has found somebody. Of several batches those are left for
    later, with ``None``, whose occurrence an edit holds: whoever waits for one must not hold another.
    """
    gates, found = _pick(works, limit=limit, now=now, token=token, tally=tally, begun=begun)
    claims: list[Claim | None] = []
    for work in works:
        rows = found[work.batch_id]
        for (state, suppressed), count in Counter((row[5], row[-2]) for row in rows).items():
            reason_class = counts.reason_class(State(state), suppressed or _REASON_OF.get(State(state), ""))
            tally.move(work.batch_id, State.PENDING, State(state), count, reason_class=reason_class)
        if rows:
            tally.claimed(work.batch_id, now)
        gate = gates.get(work.batch_id)
        claims.append(_as_claim(work, token, gate, rows, now=now) if gate else None)
    return claims


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


_Row = tuple[Any, ...]


def _pick(
    works: Sequence[Work], *, limit: int, now: datetime, token: UUID, tally: Tally, begun: Collection[int]
) -> tuple[dict[int, _Row], dict[int, list[_Row]]]:
    """By batch: a row of each that may send, and the rows that hold a recipient.

    The occurrences are marked begun before, and unmarked where there was nobody to claim. An edit holds their rows: the
    claim that follows sees the edit or wins over it.
    """
    fresh = [work.occurrence_id for work in works if not (work.is_begun or work.occurrence_id in begun)]
    gates: dict[int, _Row] = {}
    found: dict[int, list[_Row]] = defaultdict(list)
    with connection.cursor() as cursor:
        begins: set[int] = set()
        if fresh:
            cursor.execute(_BEGIN if len(works) == 1 else _BEGIN_FREE, {"occurrences": fresh, "now": now})
            begins = {pk for (pk,) in cursor.fetchall()}
        if len(works) > 1:
            works = [work for work in works if work.occurrence_id in begins or work.occurrence_id not in fresh]
        if not works:
            return gates, found
        parameters: dict[str, Any] = {
            "occurrences": [work.occurrence_id for work in works],
            "batches": [work.batch_id for work in works],
            "day": works[0].day,
            "channel": works[0].channel,
            "now": now,
            "limit": limit,
            "token": token,
            "lease": terms.LEASE_S,
        }
        cursor.execute(_CLAIM[works[0].channel], parameters)
        for row in cursor.fetchall():
            gates[row[0]] = row
            if row[5] is not None:
                found[row[0]].append(row)
        if vain := begins - {work.occurrence_id for work in works if found[work.batch_id]}:
            cursor.execute("UPDATE schedules_occurrence SET begun_at = NULL WHERE id = ANY(%s)", [list(vain)])
    for work in works:
        if work.occurrence_id in begins and found[work.batch_id]:
            earliest = _read(min(row[7] for row in found[work.batch_id]))
            tally.observe(counts.RUN_LAG, work.channel, max((now - earliest).total_seconds(), 0.0))
    return gates, found


# NO KEY: at the commit of new batches their foreign keys are looked up, and must not wait for us.
_BEGIN = f"""
WITH fresh AS MATERIALIZED (
    SELECT o.id FROM schedules_occurrence o
    WHERE o.id = ANY(%(occurrences)s::bigint[]) AND o.begun_at IS NULL AND o.state = 'running'
      AND EXISTS (SELECT 1 FROM schedules_schedule s WHERE s.id = o.schedule_id AND s.status IN {terms.RUNS})
    ORDER BY o.id FOR NO KEY UPDATE
)
UPDATE schedules_occurrence o SET begun_at = %(now)s FROM fresh f
WHERE o.id = f.id AND o.begun_at IS NULL AND o.state = 'running' RETURNING o.id
"""
_BEGIN_FREE = _BEGIN.replace("FOR NO KEY UPDATE", "FOR NO KEY UPDATE SKIP LOCKED")


def _as_claim(work: Work, token: UUID, gate: _Row, rows: list[_Row], *, now: datetime) -> Claim:
    schedule_id, occurrence_at, version, template_version = gate[1:5]
    people = [_person(row[6:-2]) for row in rows if row[5] == State.SENDING]
    at = _read(occurrence_at)
    return Claim(work, token, schedule_id, at, version, template_version, people, len(rows), now, is_probe=gate[-1])


def _person(row: tuple[Any, ...]) -> Person:
    recipient_id, wave_at, *words, attributes, tags, consent, created_at, quiet_hours, has_device, devices = row[:-3]
    reached, is_first_call, version = row[-3:]
    # Django hands JSON out as text on a plain cursor.
    read = [orjson.loads(attributes), orjson.loads(tags), orjson.loads(consent), _read(created_at)]
    quiet = orjson.loads(quiet_hours) if quiet_hours else None
    attempt, external_id, address, *others = words
    email, targets, *faults = _reached_at(address, devices)
    past = [_ids(reached), is_first_call, version, *faults]
    return Person._make(
        [recipient_id, _read(wave_at), attempt, external_id, email, *others, *read, has_device, targets, *past, quiet]
    )


_Reached = tuple[str, list[Target], encryption.Undecryptable | None, encryption.Undecryptable | None]


def _reached_at(address: bytes, devices: Sequence[str]) -> _Reached:
    """Address and devices as they are kept, decrypted; and why they can't be."""
    try:
        return encryption.decrypt(address, _ADDRESS), [_target(device) for device in devices], None, None
    except encryption.Undecryptable:
        return _reached_in_part(address, devices)


def _reached_in_part(address: bytes, devices: Sequence[str]) -> _Reached:
    """Value by value. Of the devices' faults a missing key goes before damage: with it the device can be reached."""
    email, address_fault = "", None
    try:
        email = encryption.decrypt(address, _ADDRESS)
    except encryption.Undecryptable as error:
        address_fault = error.with_traceback(None)
    targets: list[Target] = []
    device_fault: encryption.Undecryptable | None = None
    for device in devices:
        try:
            targets.append(_target(device))
        except encryption.Undecryptable as error:
            if not isinstance(device_fault, encryption.UnknownKey):
                device_fault = error.with_traceback(None)
    return email, targets, address_fault, device_fault


def _target(device: str) -> Target:
    device_id, platform, token = device.split(" ", 2)
    return Target(int(device_id), platform, encryption.decrypt(bytes.fromhex(token), _TOKEN))


_ADDRESS: Final = place("schedules_recipient", "email")
_TOKEN: Final = place("schedules_device", "token")


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

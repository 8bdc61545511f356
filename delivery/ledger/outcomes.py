"""Writing what became of rows: after a call, or without one."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

import orjson
from django.conf import settings
from django.db import connection

from delivery import counts
from delivery.ledger import rows as terms
from delivery.ledger.rows import SOME_DEVICE, Claim, Outcome, Work
from delivery.ledger.tally import Tally
from delivery.models import OUTCOME_UNKNOWN, WAITED_TOO_LONG, State


class Settlement(NamedTuple):
    """What became of people of a claim, and when the provider began to be asked for them."""

    claim: Claim
    outcomes: Sequence[Outcome]
    called_at: datetime | None


def settle(settlements: Sequence[Settlement], *, now: datetime, tally: Tally) -> int:
    """Record the outcomes of claims that were made by one statement; return how many rows were still the claims'.

    A row that meanwhile has been taken away (its lease expired, the person was erased) is left as it is, unless it is
    kept as unknown under this very claim: then the answer that came late is the truth.
    """
    settlements = [each for each in settlements if each.outcomes]
    if not settlements:
        return 0
    settled = _write_outcomes(settlements, State.SENDING, now=now, tally=tally)
    if settled < sum(len(each.outcomes) for each in settlements):
        answers = [
            each._replace(outcomes=[one for one in each.outcomes if one.state is not State.UNKNOWN])
            for each in settlements
        ]
        settled += _write_outcomes(answers, State.UNKNOWN, now=now, tally=tally)
    return settled


# Business seconds over which people of a lost call come back, times their attempts: should one of them have killed the
# worker, few are with him the next time, and none the time after.
REPEAT_SPREAD_S = 10

# Each row looks its outcome up: a join would compare every row with every outcome whenever the planner takes the rows
# for a few, which it does, knowing nothing of tokens (measured in calls of 500: 240 us a row, now 21).
_SETTLE = f"""
UPDATE delivery_delivery d SET
    (state, reason, detail, provider_id, reached, due_at, attempt, claim_token, leased_until, called_at, settled_at) = (
        SELECT v.state, v.reason, v.detail, v.provider_id, COALESCE(v.reached, d.reached),
               COALESCE(v.due_at, d.due_at),
               d.attempt - CASE WHEN v.is_attempt THEN 0 ELSE 1 END,
               CASE WHEN v.state = {int(State.UNKNOWN)} THEN d.claim_token END,
               CASE WHEN v.state = {int(State.UNKNOWN)} THEN clock_timestamp() + make_interval(secs => %(unknown)s) END,
               CASE WHEN v.was_asked THEN (%(called)s::jsonb ->> d.batch_id::text)::timestamptz ELSE d.called_at END,
               CASE WHEN v.state >= {int(State.SENT)} THEN %(now)s::timestamptz END
        FROM jsonb_to_record(%(outcomes)s::jsonb -> (d.batch_id || '-' || d.recipient_id)) AS v(state smallint,
            reason text, detail text, provider_id text, reached text, due_at timestamptz, is_attempt boolean,
            was_asked boolean)
    ),
    version = (%(versions)s::jsonb ->> d.batch_id::text)::integer
WHERE d.day = %(day)s AND d.batch_id = ANY(%(batches)s::bigint[]) AND d.occurrence_id = ANY(%(occurrences)s::bigint[])
  AND d.recipient_id = ANY(%(ids)s::bigint[])
  AND d.state = %(source)s AND d.claim_token = %(token)s::uuid
  AND d.batch_id || '-' || d.recipient_id = ANY(%(keys)s::text[])
RETURNING d.batch_id, d.recipient_id, d.attempt, CASE WHEN d.state = {int(State.PENDING)} THEN d.due_at END
"""


def _by_key(settlements: Iterable[Settlement]) -> dict[str, dict[str, Any]]:
    """Outcomes by batch and recipient, as ``_SETTLE`` looks them up."""
    return {
        f"{each.claim.work.batch_id}-{outcome.recipient_id}": {
            "state": outcome.state,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "provider_id": outcome.provider_id,
            "reached": None if outcome.reached is None else ",".join(map(str, outcome.reached)),
            "due_at": outcome.due_at,
            "is_attempt": outcome.is_attempt,
            "was_asked": outcome.was_asked,
        }
        for each in settlements
        for outcome in each.outcomes
    }


def _dump(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def _write_outcomes(settlements: Sequence[Settlement], source: State, *, now: datetime, tally: Tally) -> int:
    claims = [each.claim for each in settlements]
    outcomes = _by_key(settlements)
    with connection.cursor() as cursor:
        cursor.execute(
            _SETTLE,
            {
                "ids": [outcome.recipient_id for each in settlements for outcome in each.outcomes],
                "outcomes": _dump(outcomes),
                "keys": list(outcomes),
                "day": claims[0].work.day,
                "batches": [claim.work.batch_id for claim in claims],
                "occurrences": [claim.work.occurrence_id for claim in claims],
                "source": int(source),
                "token": claims[0].token,
                "versions": _dump({claim.work.batch_id: claim.version for claim in claims}),
                "called": _dump({each.claim.work.batch_id: each.called_at for each in settlements}),
                "now": now,
                "unknown": settings.UNKNOWN_S,
            },
        )
        written: dict[int, dict[int, int]] = defaultdict(dict)
        for batch_id, recipient_id, attempt, due_at in cursor.fetchall():
            written[batch_id][recipient_id] = attempt
            if due_at is not None:
                tally.due(batch_id, due_at)
    for each in settlements:
        _follow_up(each, written[each.claim.work.batch_id], source, now=now, tally=tally)
    return sum(map(len, written.values()))


def _follow_up(
    settlement: Settlement, attempts: Mapping[int, int], source: State, *, now: datetime, tally: Tally
) -> None:
    """Count what has been written of a claim: its rows by recipient, with their ``attempts``."""
    claim, outcomes, called_at = settlement
    batch_id = claim.work.batch_id
    kept = [outcome for outcome in outcomes if outcome.recipient_id in attempts]
    for (state, reason, verdict), count in Counter((each.state, each.reason, each.verdict) for each in kept).items():
        reason_class = counts.reason_class(state, reason, verdict)
        tally.move(batch_id, source, state, count, reason_class=reason_class)
    if any(outcome.state is State.PENDING and outcome.due_at is None for outcome in kept):
        tally.hand_back(batch_id, claim.work.day)
    _count_calls(claim, kept, called_at=called_at, tally=tally)
    _keep_failures(claim.work, kept, attempts, now=now)


def _count_calls(claim: Claim, outcomes: Sequence[Outcome], *, called_at: datetime | None, tally: Tally) -> None:
    """Count what the provider was asked for: how late, how often again, how often in vain because of its rate."""
    channel = claim.work.channel
    attempts = [outcome for outcome in outcomes if outcome.was_asked and outcome.is_attempt]
    asked = {outcome.recipient_id for outcome in outcomes if outcome.was_asked}
    if called_at is not None:
        first_calls = Counter(
            each.wave_at for each in claim.people if each.is_first_call and each.recipient_id in asked
        )
        for wave_at, people in first_calls.items():
            tally.observe(counts.LATENESS, channel, max((called_at - wave_at).total_seconds(), 0.0), people)
    tally.count(counts.RETRIES, channel, amount=sum(outcome.state is State.PENDING for outcome in attempts))
    tally.count(counts.THROTTLED, channel, amount=sum(outcome.verdict == "throttled" for outcome in outcomes))


def _keep_failures(work: Work, outcomes: Iterable[Outcome], attempts: Mapping[int, int], *, now: datetime) -> None:
    failures = [outcome for outcome in outcomes if outcome.is_attempt and outcome.verdict not in ("", "sent")]
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


_AND_SOME_DEVICE = f"""
CASE WHEN '{SOME_DEVICE}' = ANY(string_to_array(d.reached, ',')) THEN d.reached
     ELSE concat_ws(',', NULLIF(d.reached, ''), '{SOME_DEVICE}') END"""


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
    may_have_arrived: bool = False,
) -> int:
    """Move the rows of a batch that are ``source`` and fulfil ``condition`` to ``target``; return how many.

    Those that go back to pending are due within the next seconds, each at another instant. Of the others, whoever has
    the message on one device has been sent it, whatever keeps it from the rest. ``condition`` is SQL over
    ``d`` (a delivery row) from this package alone; its values come in ``parameters``. Rows that somebody else is
    writing are waited for, or, unless it ``waits``, left out: who goes through many rows would else meet a worker that
    holds some of them and wants the others. ``may_have_arrived``: a repeat takes no new place under a cap.
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
                (state, reason, detail, claim_token, leased_until, settled_at, due_at) = (
                    SELECT m.target, CASE WHEN m.target = {int(State.SENT)} THEN '' ELSE %(reason)s END,
                           CASE WHEN m.target IN ({int(State.UNKNOWN)}, {int(State.FAILED)}) THEN d.detail ELSE '' END,
                           CASE WHEN m.target = {int(State.UNKNOWN)} THEN d.claim_token END,
                           CASE WHEN m.target = {int(State.UNKNOWN)}
                                THEN clock_timestamp() + make_interval(secs => %(unknown)s) END,
                           CASE WHEN m.target >= {int(State.SENT)} THEN %(now)s::timestamptz END,
                           CASE WHEN m.target = {int(State.PENDING)}
                                THEN %(now)s + make_interval(secs => random() * d.attempt * {REPEAT_SPREAD_S})
                                ELSE d.due_at END
                    FROM (SELECT CASE WHEN %(target)s <> {int(State.PENDING)} AND {terms.HAS_MESSAGE}
                                      THEN {int(State.SENT)} ELSE %(target)s END) AS m(target)
                ),
                reached = CASE WHEN %(maybe)s THEN {_AND_SOME_DEVICE} ELSE d.reached END
            WHERE d.day = %(day)s AND d.batch_id = %(batch)s
              AND d.recipient_id = ANY(ARRAY(SELECT recipient_id FROM meant))
            RETURNING d.state
            """,
            {
                **(parameters or {}),
                "day": day,
                "batch": batch_id,
                "source": int(source),
                "target": int(target),
                "reason": reason,
                "now": now,
                "unknown": settings.UNKNOWN_S,
                "maybe": may_have_arrived,
            },
        )
        moved = Counter(State(state) for (state,) in cursor.fetchall())
    for state, count in moved.items():
        tally.move(batch_id, source, state, count, reason_class=counts.reason_class(state, reason))
    if moved[State.PENDING]:
        tally.due(batch_id, now)
    return moved.total()


# SQL over a row: nobody waits for its person any longer.
WAITED = "d.expires_at <= %(now)s"


def expire_waited(work: Work, *, now: datetime, tally: Tally) -> int:
    """Expire the people of a batch who may wait no longer; return how many."""
    return settle_batch(
        work.batch_id,
        day=work.day,
        source=State.PENDING,
        target=State.EXPIRED,
        reason=WAITED_TOO_LONG,
        now=now,
        tally=tally,
        condition=WAITED,
    )


def reopen_batch(
    batch_id: int, *, day: date, recipient_ids: Sequence[int] | None, reason: str, now: datetime, tally: Tally
) -> int:
    """Make failed rows of a batch pending again, of these recipients and this reason where given; return how many.

    What may have arrived keeps its place under the caps.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE delivery_delivery d SET state = {int(State.PENDING)}, reason = '', detail = '', provider_id = '',
                due_at = %(now)s, attempt = 0, settled_at = NULL,
                reached = CASE WHEN d.reason = '{OUTCOME_UNKNOWN}' THEN {_AND_SOME_DEVICE} ELSE d.reached END
            WHERE d.day = %(day)s AND d.batch_id = %(batch)s AND d.state = {int(State.FAILED)}
              AND (%(recipients)s::bigint[] IS NULL OR d.recipient_id = ANY(%(recipients)s::bigint[]))
              AND (%(reason)s = '' OR d.reason = %(reason)s)
            """,
            {
                "day": day,
                "batch": batch_id,
                "recipients": None if recipient_ids is None else list(recipient_ids),
                "reason": reason,
                "now": now,
            },
        )
        moved: int = cursor.rowcount
    if moved:
        tally.move(batch_id, State.FAILED, State.PENDING, moved)
        tally.due(batch_id, now)
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

    The reason says why: ``paused`` when the schedule was paused over the wave's instant, else ``down``. Whoever has the
    message on one device since before an edit moved the wave has been sent it.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE delivery_delivery d SET settled_at = %(now)s,
                state = CASE WHEN {terms.HAS_MESSAGE} THEN {int(State.SENT)} ELSE {int(State.EXPIRED)} END,
                reason = CASE WHEN {terms.HAS_MESSAGE} THEN ''
                              WHEN s.paused_at <= d.wave_at + make_interval(mins => s.misfire_grace_minutes)
                               AND COALESCE(s.resumed_at, 'infinity') > d.wave_at
                                OR o.held_at <= d.wave_at + make_interval(mins => s.misfire_grace_minutes)
                               AND COALESCE(o.released_at, 'infinity') > d.wave_at THEN 'paused' ELSE 'down' END
            FROM schedules_occurrence o JOIN schedules_schedule s ON s.id = o.schedule_id
            WHERE o.id = %(occurrence)s AND {terms.GOES}
              AND d.day = %(day)s AND d.batch_id = %(batch)s AND d.state = {int(State.PENDING)}
              AND d.wave_at < %(now)s - make_interval(mins => s.misfire_grace_minutes)
              AND d.due_at < %(now)s - make_interval(mins => s.misfire_grace_minutes)  -- not tried again since
              AND NOT d.wave_at = ANY(ARRAY({_STARTED_WAVES}))
            RETURNING d.state, d.reason
            """,
            {"now": now, "occurrence": work.occurrence_id, "day": work.day, "batch": work.batch_id},
        )
        moved = Counter((State(state), reason) for state, reason in cursor.fetchall())
    for (state, reason), count in moved.items():
        tally.move(work.batch_id, State.PENDING, state, count, reason_class=counts.reason_class(state, reason))
    return moved.total()

"""Outcomes of calls that nobody answered for, once the provider tells of their messages.

What is written follows from everything that ``Feedback`` holds of a delivery, and not from what came last: so events
may come in any order, often, and from several roads at once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection

from delivery import counts
from delivery.ledger.tally import Tally
from delivery.models import CONFIRMED, OUTCOME_UNKNOWN, News, State

# Why a message failed that the provider had taken before it refused it.
REFUSALS = {News.REJECTED: "message_rejected", News.NOT_RENDERED: "rendering_failure"}
# That it was handed on, or even arrived, says the provider by these; ``ACCEPTED`` alone comes before a refusal too.
_HANDED_ON = sum(news.bit for news in News if news is not News.ACCEPTED and news not in REFUSALS)
_REFUSED = sum(news.bit for news in REFUSALS)
_REASONS = ", ".join(f"'{reason}'" for reason in REFUSALS.values())
# Real seconds that the call took, at most, before it was known to be unanswered, and that two clocks may differ: what
# was refused earlier belongs to a call before, after which somebody had it tried again.
_CALL_S = 120


class Released(NamedTuple):
    """Somebody who got nothing after all: the place under the caps, taken at ``claimed_at``, is free."""

    recipient_id: int
    day: date
    occurrence_id: int
    claimed_at: datetime


# SQL over a delivery ``d`` of which the provider tells in ``f``: whether the message is known to have been sent.
_IS_SENT = f"(f.kinds & {_HANDED_ON} <> 0 OR f.kinds & {_REFUSED} = 0)"
# SQL over the same: whether the outcome is open to correction, and another one.
_IS_WRONG = f"""
CASE WHEN d.state = {int(State.UNKNOWN)} THEN {_IS_SENT}
          OR LEAST(f.rejected_at, f.not_rendered_at) > d.leased_until - make_interval(secs => %(since)s)
     WHEN d.state = {int(State.FAILED)} THEN {_IS_SENT} AND d.reason IN ('{OUTCOME_UNKNOWN}', {_REASONS})
     WHEN d.state = {int(State.SENT)} THEN NOT {_IS_SENT} AND d.reason = '{CONFIRMED}'
     ELSE false END"""
_INSTANTS = ", ".join(f"f.{news.label}_at" for news in News)
_CORRECT = f"""
WITH meant AS MATERIALIZED (
    SELECT d.day, d.occurrence_id, d.recipient_id, d.state AS was, f.detail AS said, f.provider_id AS id_there,
           LEAST({_INSTANTS}) AS taken_at,
           CASE WHEN {_IS_SENT} THEN {int(State.SENT)} ELSE {int(State.FAILED)} END AS target,
           CASE WHEN {_IS_SENT} THEN '{CONFIRMED}'
                WHEN f.kinds & {News.REJECTED.bit} <> 0 THEN '{REFUSALS[News.REJECTED]}'
                ELSE '{REFUSALS[News.NOT_RENDERED]}' END AS why
    FROM delivery_delivery d JOIN delivery_feedback f
      ON f.day = d.day AND f.occurrence_id = d.occurrence_id AND f.recipient_id = d.recipient_id
    WHERE d.day = ANY(%(days)s::date[]) AND f.day = ANY(%(days)s::date[]) AND {{which}} AND {{wrong}}
    ORDER BY d.day, d.occurrence_id, d.recipient_id FOR UPDATE OF d {{others}}
)
UPDATE delivery_delivery d SET
    state = m.target, reason = m.why, detail = CASE WHEN m.target = {int(State.FAILED)} THEN m.said ELSE '' END,
    provider_id = m.id_there, claim_token = NULL, leased_until = NULL, settled_at = %(now)s,
    attempt = GREATEST(d.attempt, 1), claimed_at = COALESCE(d.claimed_at, m.taken_at),
    called_at = COALESCE(d.called_at, m.taken_at)
FROM meant m
WHERE d.day = ANY(%(days)s::date[])
  AND d.day = m.day AND d.occurrence_id = m.occurrence_id AND d.recipient_id = m.recipient_id
RETURNING d.batch_id, d.day, d.occurrence_id, d.recipient_id, m.was, d.state, d.reason, d.detail, d.attempt,
          COALESCE(d.claimed_at, d.due_at)
"""
_OF_KEYS = _CORRECT.format(
    which="d.occurrence_id = ANY(%(occurrences)s::bigint[]) AND d.recipient_id = ANY(%(recipients)s::bigint[])",
    wrong=_IS_WRONG,
    others="",
)
_OF_BATCHES = _CORRECT.format(
    which=f"d.batch_id = ANY(%(batches)s::bigint[]) AND d.state = {int(State.UNKNOWN)}",
    wrong=_IS_WRONG,
    others="SKIP LOCKED",
)
# In a restored database whoever has no outcome may have been sent to since, by calls of which nothing is known there.
_OF_RESTORED = _CORRECT.format(
    which="d.batch_id = ANY(%(batches)s::bigint[])", wrong=f"d.state < {int(State.SENT)}", others=""
)
# SQL over a delivery ``d``: the provider has told that it took the message, so nobody needs to wait any longer.
TOLD = f"""EXISTS (SELECT FROM delivery_feedback f WHERE f.day = d.day AND f.occurrence_id = d.occurrence_id
                    AND f.recipient_id = d.recipient_id AND {_IS_SENT})"""


def correct(keys: Iterable[tuple[date, int, int]], *, now: datetime, tally: Tally) -> tuple[int, list[Released]]:
    """Write the outcomes that these deliveries turn out to have; how many, and who got nothing after all.

    Only of calls that nobody had answered for: what the provider answered stands. Whoever was made pending again
    meanwhile is left alone. Rows that somebody holds are waited for, in the order of their keys.
    """
    keys = list(keys)
    if not keys:
        return 0, []
    return _correct(
        _OF_KEYS,
        {
            "days": sorted({key[0] for key in keys}),
            "occurrences": sorted({key[1] for key in keys}),
            "recipients": sorted({key[2] for key in keys}),
        },
        now=now,
        tally=tally,
    )


def correct_batches(batches: Sequence[tuple[int, date]], *, now: datetime, tally: Tally) -> tuple[int, list[Released]]:
    """The same of the unknown rows of some batches: their events came while the call was still going on."""
    ids, days = [batch_id for batch_id, _ in batches], sorted({day for _, day in batches})
    return _correct(_OF_BATCHES, {"batches": ids, "days": days}, now=now, tally=tally)


def correct_restored(batches: Sequence[tuple[int, date]], *, now: datetime, tally: Tally) -> tuple[int, list[Released]]:
    """The same of whoever has no outcome in these batches of a database that was restored to before their calls."""
    ids, days = [batch_id for batch_id, _ in batches], sorted({day for _, day in batches})
    return _correct(_OF_RESTORED, {"batches": ids, "days": days}, now=now, tally=tally)


def _correct(sql: str, parameters: dict[str, Any], *, now: datetime, tally: Tally) -> tuple[int, list[Released]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, {**parameters, "now": now, "since": settings.UNKNOWN_S + _CALL_S})
        rows = cursor.fetchall()
    moved: Counter[tuple[int, State, State, str]] = Counter()
    refused: dict[tuple[date, int], list[tuple[Any, ...]]] = defaultdict(list)
    released = []
    for batch_id, day, occurrence_id, recipient_id, was, state, reason, detail, attempt, claimed_at in rows:
        moved[batch_id, State(was), State(state), reason] += 1
        if state == State.FAILED:
            refused[day, occurrence_id].append((recipient_id, attempt, reason, detail))
            released.append(Released(recipient_id, day, occurrence_id, claimed_at))
    for (batch_id, before, after, reason), people in sorted(moved.items()):
        verdict = "permanent" if after is State.FAILED else ""
        tally.move(batch_id, before, after, people, reason_class=counts.reason_class(after, reason, verdict))
    for (day, occurrence_id), people_of in refused.items():
        _keep_refusals(day, occurrence_id, people_of, now=now)
    return len(rows), released


def _keep_refusals(day: date, occurrence_id: int, rows: Sequence[tuple[Any, ...]], *, now: datetime) -> None:
    recipients, attempts, reasons, details = zip(*rows, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO delivery_failedattempt (day, occurrence_id, recipient_id, attempt, at, verdict, reason, detail)
            SELECT %(day)s, %(occurrence)s, v.recipient, v.attempt, %(now)s, 'permanent', v.reason, v.detail
            FROM unnest(%(recipients)s::bigint[], %(attempts)s::smallint[], %(reasons)s::text[], %(details)s::text[])
                AS v(recipient, attempt, reason, detail)
            ON CONFLICT DO NOTHING
            """,
            {
                "day": day,
                "occurrence": occurrence_id,
                "recipients": list(recipients),
                "attempts": list(attempts),
                "reasons": list(reasons),
                "details": list(details),
                "now": now,
            },
        )

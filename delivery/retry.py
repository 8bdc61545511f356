"""What follows from a provider's answer: pure, the database and the clock stay outside."""

import random
from datetime import datetime, timedelta

from delivery.ledger import Outcome
from delivery.models import State
from delivery.providers.base import Answer, Verdict

MAX_RETRIES = 3
FIRST_DELAY_S = 10.0
FACTOR = 4.0
# A provider that asks us to slow down without saying for how long.
THROTTLED_S = 2.0
# Nothing of ours can mend a provider that refuses the whole account; ask again after a while, burning no attempt.
MISCONFIGURED_S = 60.0


def delay(attempt: int, *, rng: random.Random) -> float:
    """Seconds before the retry that follows attempt number ``attempt`` (1, 2, 3): 10, 40, 160, less up to half.

    The jitter keeps the people of one failed call from coming back as one crowd ("equal jitter", AWS Architecture
    Blog, Exponential Backoff And Jitter, 2015).
    """
    whole = FIRST_DELAY_S * FACTOR ** (attempt - 1)
    return whole / 2 + rng.random() * whole / 2


def decide(answer: Answer, *, recipient_id: int, attempt: int, now: datetime, rng: random.Random) -> Outcome:
    """The outcome of one person's ``attempt`` (from 1), or the instant of the next one."""
    outcome = _decide(answer, recipient_id=recipient_id, attempt=attempt, now=now, rng=rng)
    return outcome._replace(was_asked=answer.verdict is not Verdict.NOT_STARTED)


def _decide(answer: Answer, *, recipient_id: int, attempt: int, now: datetime, rng: random.Random) -> Outcome:
    verdict, reason = answer.verdict, answer.reason
    if verdict is Verdict.SENT:
        return Outcome(recipient_id, State.SENT, provider_id=answer.provider_id, verdict="sent")
    if verdict is Verdict.UNKNOWN:
        return Outcome(recipient_id, State.UNKNOWN, reason, verdict=verdict.value, detail=answer.detail)
    if verdict is Verdict.PERMANENT or (verdict is Verdict.TRANSIENT and attempt > MAX_RETRIES):
        return Outcome(recipient_id, State.FAILED, reason or "refused", verdict=verdict.value, detail=answer.detail)
    if verdict is Verdict.NOT_STARTED:
        return Outcome(recipient_id, State.PENDING, due_at=now, is_attempt=False)
    seconds = _wait(answer, attempt, rng)
    return Outcome(
        recipient_id,
        State.PENDING,
        reason,
        due_at=now + timedelta(seconds=seconds),
        is_attempt=verdict is Verdict.TRANSIENT,
        verdict=verdict.value,
        detail=answer.detail,
    )


def _wait(answer: Answer, attempt: int, rng: random.Random) -> float:
    if answer.verdict is Verdict.THROTTLED:
        return (answer.retry_after or THROTTLED_S) * (1 + rng.random() / 2)
    if answer.verdict is Verdict.MISCONFIGURED:
        return MISCONFIGURED_S * (1 + rng.random() / 2)
    return max(delay(attempt, rng=rng), answer.retry_after or 0.0)

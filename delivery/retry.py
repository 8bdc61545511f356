"""What follows from a provider's answer: pure, the database and the clock stay outside."""

import random
from datetime import datetime, timedelta

from django.conf import settings

from delivery.ledger import SOME_DEVICE, Outcome, Person
from delivery.models import State
from delivery.providers.base import Answer, Verdict

MAX_RETRIES = 3
FACTOR = 4.0
# A provider that asks us to slow down without saying for how long.
THROTTLED_S = 2.0
# The circuit holds the whole channel meanwhile; this only spreads people out when it closes.
MISCONFIGURED_S = 2.0


def delay(attempt: int, *, rng: random.Random) -> float:
    """Seconds before the retry that follows attempt number ``attempt`` (1, 2, 3): 10, 40, 160, less up to half.

    The first of them is the setting RETRY_FIRST_DELAY_S. The jitter keeps the people of one failed call from coming
    back as one crowd ("equal jitter", AWS Architecture Blog, Exponential Backoff And Jitter, 2015).
    """
    whole = settings.RETRY_FIRST_DELAY_S * FACTOR ** (attempt - 1)
    return float(whole / 2 + rng.random() * whole / 2)


def decide(answer: Answer, *, person: Person, repeats_unknown: bool, now: datetime, rng: random.Random) -> Outcome:
    """The outcome of a person's attempt, or the instant of the next one.

    ``repeats_unknown``: the provider may be asked again where nobody knows what became of a call. Whoever has the
    message on one device counts as sent when there is nothing more to be tried.
    """
    if answer.verdict is Verdict.SENT and not (answer.reached or answer.gone):  # nearly all of them
        return _sent(answer, person)
    reached = tuple(dict.fromkeys((*person.reached, *answer.reached)))
    if (answer.verdict is Verdict.UNKNOWN and repeats_unknown) or answer.may_have_arrived:
        reached = tuple(dict.fromkeys((*reached, SOME_DEVICE)))
    outcome = _decide(answer, person=person, repeats_unknown=repeats_unknown, now=now, rng=rng)
    if any(reached) and outcome.state in (State.FAILED, State.UNKNOWN):
        outcome = _sent(answer, person)
    was_asked = answer.asked and answer.verdict is not Verdict.NOT_STARTED
    return outcome._replace(was_asked=was_asked, reached=reached, gone=answer.gone)


def uncalled(outcome: Outcome, *, person: Person) -> Outcome:
    """The outcome of somebody who is not called; sent, where one device has the message since an earlier call."""
    if outcome.state.is_outcome and any(person.reached):
        return Outcome(person.recipient_id, State.SENT)
    return outcome


def not_sent(recipient_id: int, reason: str, *, after_s: float, now: datetime) -> Outcome:
    """Nobody was asked, for a reason that is not the person's: again in ``after_s`` seconds, and no attempt is used."""
    due_at = now + timedelta(seconds=after_s)
    return Outcome(recipient_id, State.PENDING, reason, due_at=due_at, is_attempt=False)


def _decide(answer: Answer, *, person: Person, repeats_unknown: bool, now: datetime, rng: random.Random) -> Outcome:
    verdict, reason, recipient_id = answer.verdict, answer.reason, person.recipient_id
    is_last = person.attempt > MAX_RETRIES
    told = Outcome(recipient_id, State.PENDING, reason, verdict=verdict.value, detail=answer.detail)
    if verdict is Verdict.SENT:
        return _sent(answer, person)
    if verdict is Verdict.UNKNOWN and (is_last or not repeats_unknown):
        return told._replace(state=State.UNKNOWN)
    if verdict is Verdict.PERMANENT or (verdict is Verdict.TRANSIENT and is_last):
        return told._replace(state=State.FAILED, reason=reason or "refused")
    if verdict is Verdict.NOT_STARTED:
        return not_sent(recipient_id, "", after_s=0, now=now)
    is_attempt = verdict in (Verdict.TRANSIENT, Verdict.UNKNOWN)
    due_at = now + timedelta(seconds=_wait(answer, person.attempt, rng))
    return told._replace(due_at=due_at, is_attempt=is_attempt)


def _sent(answer: Answer, person: Person) -> Outcome:
    return Outcome(
        person.recipient_id,
        State.SENT,
        provider_id=answer.provider_id,
        verdict="sent",
        was_asked=True,
        reached=person.reached,
    )


def _wait(answer: Answer, attempt: int, rng: random.Random) -> float:
    if answer.verdict is Verdict.THROTTLED:
        return (answer.retry_after or THROTTLED_S) * (1 + rng.random() / 2)
    if answer.verdict is Verdict.MISCONFIGURED:
        return MISCONFIGURED_S * (1 + rng.random() / 2)
    return max(delay(attempt, rng=rng), answer.retry_after or 0.0)

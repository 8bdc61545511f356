"""Provider calls from their claim to their outcomes: rendered, reserved, made, understood. Nothing here writes rows."""

from __future__ import annotations

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import NamedTuple

import structlog
from django.db import InterfaceError, OperationalError

from delivery import caps, circuits, pace, routes, wakeups
from delivery.caps import Capped
from delivery.counters import CountersAway
from delivery.ledger import Claim, Outcome
from delivery.messages import Composed, Meant, compose, read_pinned
from delivery.models import State
from delivery.providers.base import Answer, Message, Permit, Provider, Verdict
from delivery.remote_rendering import Result
from delivery.rendering_ahead import Ahead, render_ahead
from delivery.retry import THROTTLED_S, decide, not_sent, uncalled
from delivery.routes import Route
from schedules.encryption import UnknownKey
from schedules.models import Channel

log = structlog.get_logger(__name__)

# Business seconds after which people are tried again whom the counters' or the database's absence kept waiting.
AWAY_S = 2.0
# The share of a call's people that must be throttled for the whole channel to slow down, and for how long it stops at
# most: what is said of single devices is no word on the account.
THROTTLED_SHARE = 0.1
# So many people of one claim must be unreadable, and nobody else in it, for their whole channel to be held.
KEYLESS_PEOPLE = 10
LONGEST_PAUSE_S = 600.0
# Jitter needs no secrecy.
_rng = random.Random()  # noqa: S311


@dataclass(frozen=True)
class Prepared:
    """The people of a claim: those who get ``messages``, and those already ``settled``.

    ``is_held_up``: the counters, or the ledger that they are made from, are away, so nobody gets anything.
    """

    claim: Claim
    messages: list[Message]
    settled: list[Outcome]
    limits: caps.Limits
    is_held_up: bool = False

    def call(self, permit: Permit, route: Route) -> Call:
        """Its people's call, which may start until the permit runs out."""
        return Call(self.claim, self.messages, self.settled, self.limits, permit, route)


@dataclass(frozen=True)
class Call:
    """The people of a claim whom one provider call reaches, alone or together with other claims' people.

    With it those are recorded who are ``settled`` without being called.
    """

    claim: Claim
    messages: list[Message]
    settled: list[Outcome]
    limits: caps.Limits
    permit: Permit
    route: Route

    def halves(self, size: int) -> tuple[Call, Call]:
        """The first ``size`` messages and the rest."""
        return replace(self, messages=self.messages[:size]), replace(self, messages=self.messages[size:], settled=[])


class Answered(NamedTuple):
    """The provider's answers, and ``time.monotonic()`` when it began to be asked."""

    started: float
    answers: list[Answer]


class Finished(NamedTuple):
    """A call with what became of everybody; ``answers`` as the provider gave them."""

    call: Call
    called_at: datetime
    answers: list[Answer]
    outcomes: list[Outcome]


def prepare(claims: Sequence[Claim], *, permit: Permit, now: datetime) -> list[Prepared]:
    """Render the messages of committed claims and reserve their places under the caps."""
    ahead: Ahead = {}
    try:
        read_pinned(claims)
        ahead = render_ahead(claims, permit=permit, now=now)
    except Exception:  # then each finds out for itself
        log.warning("pinned_not_read", exc_info=True)
    return [_prepare(claim, ahead.get(place), now=now) for place, claim in enumerate(claims)]


def _prepare(claim: Claim, ahead: tuple[Meant, Sequence[Result]] | None, *, now: datetime) -> Prepared:
    composed = _composed(claim, now=now, ahead=ahead)
    _alarm(claim, composed, now=now)
    prepared = Prepared(claim, composed.messages, composed.settled, composed.limits)
    try:
        capped = _reserve(prepared)
    except CountersAway as error:
        return _held_up(prepared, "counters_away", error, now=now)
    except (OperationalError, InterfaceError) as error:
        return _held_up(prepared, "database_away", error, now=now)
    if not capped:
        return prepared
    _log_capped(claim, capped.values())
    return replace(
        prepared,
        messages=[message for message in prepared.messages if message.recipient_id not in capped],
        settled=[*prepared.settled, *(_capped_outcome(each) for each in capped.values())],
    )


def _alarm(claim: Claim, composed: Composed, *, now: datetime) -> None:
    """Of whom an address or a device can't be decrypted. Where everybody waits for it, a key is missing: the channel is
    held until a probe finds that it is back.
    """
    unread = [person for person in claim.people if person.address_fault or person.device_fault]
    if not unread:
        return
    faults = Counter(
        told
        for person in unread
        for told in {(each.reason, each.key_id) for each in (person.address_fault, person.device_fault) if each}
    )
    for (fault, key_id), count in faults.items():
        log.error("undecryptable", reason=fault, key_id=key_id, people=count, occurrence_id=claim.work.occurrence_id)
    keyless = sum(outcome.reason == UnknownKey.reason for outcome in composed.settled)
    if keyless == len(claim.people) >= KEYLESS_PEOPLE:
        try:
            circuits.open_circuit(
                claim.work.channel, reason=UnknownKey.reason, detail="ENCRYPTION_KEYS", now=now, grows=False
            )
        except (OperationalError, InterfaceError) as error:  # the next claim says the same
            log.warning("database_away", error=error)


def _held_up(prepared: Prepared, event: str, error: Exception, *, now: datetime) -> Prepared:
    log.warning(event, error=error)
    waiting = [
        not_sent(message.recipient_id, event, after_s=_jittered(AWAY_S), now=now) for message in prepared.messages
    ]
    return replace(prepared, messages=[], settled=[*prepared.settled, *waiting], is_held_up=True)


def _reserve(prepared: Prepared) -> dict[int, Capped]:
    """Who is at a cap. A message that one device has is not held back from the others, and takes no other place."""
    claim, limits = prepared.claim, prepared.limits
    before = {person.recipient_id: any(person.reached) for person in claim.people if person.reached}
    ids = [message.recipient_id for message in prepared.messages]
    fresh = [pk for pk in ids if pk not in before]
    has_it = [pk for pk in ids if before.get(pk) is True]
    may_have_it = [pk for pk in ids if before.get(pk) is False]
    reserve = partial(
        caps.reserve, member=caps.as_member(claim.work.day, claim.work.occurrence_id), now=claim.claimed_at, rng=_rng
    )
    if has_it:
        reserve(has_it, limits=replace(limits, per_day=None, per_week=None))
    repeated = reserve(may_have_it, limits=limits, is_repeat=True) if may_have_it else {}
    return {**repeated, **(reserve(fresh, limits=limits) if fresh else {})}


def share_out(made: Sequence[Call], probe: Route | None) -> Iterator[list[Call]]:
    """Which calls go out as one, each bundle by one route; of a ``probe`` the first message alone is."""
    if made and probe:
        first, rest = made[0].halves(1)
        yield [replace(first, route=probe)]
        made = [*([rest] if rest.messages else []), *made[1:]]
    if made:
        yield from together(made[0].route.provider, made)


def together(provider: Provider, made: Iterable[Call]) -> Iterator[list[Call]]:
    """Which calls go out as one: small ones of several batches, since a call for ten costs what one for fifty does.

    Larger ones are cut. All come from one claim statement, so one permit holds for them.
    """
    bundle: list[Call] = []
    room = provider.max_per_call
    for call in sorted(made, key=lambda call: provider.kind(call.messages[0])):
        rest = call
        if bundle and provider.kind(bundle[0].messages[0]) != provider.kind(rest.messages[0]):
            yield bundle
            bundle, room = [], provider.max_per_call
        while len(rest.messages) >= room:
            first, rest = rest.halves(room)
            yield [*bundle, first]
            bundle, room = [], provider.max_per_call
        if rest.messages:
            bundle.append(rest)
            room -= len(rest.messages)
    if bundle:
        yield bundle


def ask(bundle: Sequence[Call]) -> list[Answered]:
    """Make the provider call of these people, and tell each claim its answers; whatever happens is an answer."""
    provider = bundle[0].route.provider
    started = time.monotonic()
    messages = [message for call in bundle for message in call.messages]
    try:
        answers = provider.send(messages, permit=bundle[0].permit)
    except Exception as error:  # a bug of the provider's, whose call may have been accepted all the same
        log.exception("provider_raised", provider=provider.name)
        unknown = Answer("", Verdict.UNKNOWN, "provider_raised", detail=type(error).__name__)
        answers = [unknown._replace(key=message.key) for message in messages]
    told = iter(answers)
    return [Answered(started, list(islice(told, len(call.messages)))) for call in bundle]


def finish(call: Call, answered: Answered, *, now: datetime) -> Finished:
    """Decide what follows for each person from the answers."""
    route = call.route
    called_at = now - timedelta(seconds=time.monotonic() - answered.started)
    people = {person.recipient_id: person for person in call.claim.people}
    outcomes = [uncalled(outcome, person=people[outcome.recipient_id]) for outcome in call.settled]
    answers = answered.answers if route.is_alone else [_unclear(answer) for answer in answered.answers]
    for answer in answers:
        person = people[int(answer.key.rsplit("-", 1)[1])]
        try:
            outcome = decide(answer, person=person, repeats_unknown=route.repeats_unknown, now=now, rng=_rng)
        except Exception:  # a bug of the provider's: nobody knows what it meant
            log.exception("answer_not_understood", provider=route.provider.name)
            unknown = Answer(answer.key, Verdict.UNKNOWN, "unreadable_answer")
            outcome = decide(unknown, person=person, repeats_unknown=route.repeats_unknown, now=now, rng=_rng)
        outcomes.append(outcome)
    return Finished(call, called_at, answers, outcomes)


def _unclear(answer: Answer) -> Answer:
    """Of several providers: a retry may be another's, so that what may have arrived is no case for one."""
    may_have = answer.verdict is Verdict.TRANSIENT and answer.may_have_arrived
    return answer._replace(verdict=Verdict.UNKNOWN) if may_have else answer


def conclude(finished: Finished, *, now: datetime) -> None:
    """What a recorded call means for others: places under caps freed, the provider's rate and circuit, open streams."""
    call = finished.call
    if call.route.channel == Channel.IN_APP:
        wakeups.tell([outcome.recipient_id for outcome in finished.outcomes if outcome.state == State.SENT])
    try:
        _release(finished)
        _slow_down(call.route.scope, finished.answers)
    except CountersAway as error:  # a place that stays taken is freed when it stands in somebody's way
        log.warning("counters_away", error=error)
    try:
        routes.learn(call.route, finished.answers, is_probe=call.claim.is_probe, now=now)
    except (OperationalError, InterfaceError) as error:  # the next call's answers say the same
        log.warning("database_away", error=error)


def _composed(claim: Claim, *, now: datetime, ahead: tuple[Meant, Sequence[Result]] | None = None) -> Composed:
    try:
        composed = compose(claim, now=now, ahead=ahead)
        return _with_spoilt(composed, now=now) if composed.spoilt else composed
    except (OperationalError, InterfaceError) as error:
        log.warning("database_away", error=error)
        return Composed(
            [],
            [not_sent(p.recipient_id, "database_away", after_s=AWAY_S, now=now) for p in claim.people],
            caps.UNCOUNTED,
        )
    except Exception as error:
        if len(claim.people) > 1:  # whoever it is, the others get theirs
            alone = [_composed(replace(claim, people=[person]), now=now) for person in claim.people]
            return Composed(
                [message for each in alone for message in each.messages],
                [outcome for each in alone for outcome in each.settled],
                next((each.limits for each in alone if each.messages), caps.UNCOUNTED),
            )
        log.exception("compose_raised", occurrence_id=claim.work.occurrence_id)
        (person,) = claim.people
        answer = Answer("", Verdict.TRANSIENT, "internal_error", detail=type(error).__name__)
        outcome = decide(answer, person=person, repeats_unknown=False, now=now, rng=_rng)
        return Composed([], [outcome._replace(was_asked=False)], caps.UNCOUNTED)


def _with_spoilt(composed: Composed, *, now: datetime) -> Composed:
    """Of whom the template service alone fails, this was an attempt, and the last where it refuses."""
    settled = list(composed.settled)
    for person, unrendered in composed.spoilt:
        verdict = Verdict.PERMANENT if unrendered.is_refused else Verdict.TRANSIENT
        answer = Answer("", verdict, unrendered.reason, detail=unrendered.detail)
        outcome = decide(answer, person=person, repeats_unknown=False, now=now, rng=_rng)
        settled.append(outcome._replace(was_asked=False))
    return replace(composed, settled=settled, spoilt=())


def _capped_outcome(capped: Capped) -> Outcome:
    """Nobody was called by this claim, and, unless an earlier call ``may_have`` been made, by none before."""
    told = Outcome(
        capped.recipient_id,
        State.PENDING,
        capped.cap,
        due_at=capped.wait_until,
        detail=json.dumps({"limit": capped.limit, "used": capped.used}),
        is_attempt=False,
        reached=None if capped.may_have_it else (),
    )
    if capped.wait_until is not None:
        return told
    if capped.may_have_it:
        return told._replace(state=State.UNKNOWN, reason="no_answer", detail="")
    return told._replace(state=State.RATE_LIMITED)


def _log_capped(claim: Claim, capped: Iterable[Capped]) -> None:
    by_cap = defaultdict(list)
    for each in capped:
        if each.wait_until is None and not each.may_have_it:
            by_cap[each.cap].append(each.recipient_id)
    for cap, recipient_ids in by_cap.items():
        log.info(
            "rate_limited",
            cap=cap,
            schedule_id=claim.schedule_id,
            occurrence_id=claim.work.occurrence_id,
            recipient_ids=recipient_ids,
        )


def _release(finished: Finished) -> None:
    """Take back the places of those who definitely got nothing."""
    if not finished.call.limits.counts:
        return
    taken = (Verdict.SENT, Verdict.UNKNOWN)
    held = {person.recipient_id for person in finished.call.claim.people if person.reached}
    asked = {int(answer.key.rsplit("-", 1)[1]): answer for answer in finished.answers}
    free = [
        recipient_id
        for recipient_id, answer in asked.items()
        if answer.verdict not in taken and not (answer.reached or answer.may_have_arrived) and recipient_id not in held
    ]
    if free:
        claim = finished.call.claim
        member = caps.as_member(claim.work.day, claim.work.occurrence_id)
        caps.release(free, member=member, reserved_at=claim.claimed_at)


def _slow_down(scope: str, answers: Sequence[Answer]) -> None:
    throttled = [answer for answer in answers if answer.verdict is Verdict.THROTTLED]
    if throttled and len(throttled) >= THROTTLED_SHARE * len(answers):
        longest = max(answer.retry_after or THROTTLED_S for answer in throttled)
        pace.slow_down(scope, wait_s=min(longest, LONGEST_PAUSE_S))


def _jittered(seconds: float) -> float:
    return seconds * (1 + _rng.random())

"""Bringing events to endpoints: one call at a time to each, in threads of their own, away from all sending.

Who calls an endpoint holds its lease, so two workers never call one at once; the lease of one who died runs out, and
what he had not noted is called again. An event is brought at least once, and subscribers know it by its ``webhook-id``.
"""

import random
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import structlog
from django.db import connection, connections, transaction
from django.utils import timezone

from delivery import counts, leaving
from delivery.endpoint_models import Attempt, Endpoint, Posting
from delivery.providers.base import retry_after_seconds
from delivery.subscribers import operations, payloads
from schedules import clock, outgoing, standard_webhooks

log = structlog.get_logger(__name__)

# Seconds before each attempt, from the end of the one before (Standard Webhooks, "Deliverability and reliability").
WAITS_S: Final = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
_JITTER: Final = 0.1  # more or less of each
# An endpoint that answers nobody for so long is switched off.
GIVE_UP: Final = timedelta(days=5)
TIMEOUT_S: Final = 15.0
ANSWER_BYTES: Final = 1_024
LEASE_S: Final = 60  # longer than a call and its note
# From the second call in vain on, the endpoint as a whole waits: 5 s, doubled each time, up to five minutes.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 300.0
# Real seconds for which ``turn`` takes up endpoints; a task may take ten minutes.
TURN_S: Final = 240.0
_LOOK_S: Final = 0.5

DELIVERED, GONE = "delivered", "gone"
# How a call ends, as ``counts.ENDPOINT_RESULTS`` has it.
_BY_HUNDRED: Final = {2: DELIVERED, 3: "redirected", 4: "refused", 5: "failing"}


class Lease(NamedTuple):
    """That this process calls the endpoint, and nobody else."""

    endpoint_id: int
    token: UUID


class Tried(NamedTuple):
    """How a call ended. ``status`` is that of the answer; ``answer`` what a refusal said."""

    outcome: str
    seconds: float
    status: int | None = None
    answer: str = ""
    wait_s: float | None = None


def turn(*, alive: Callable[[], None] = lambda: None) -> int:
    """Call every endpoint for which something is due, until nothing is; return the calls made.

    Each has a thread of its own, so the slow one delays nobody. ``alive`` is called about twice a second.
    """
    ends_at, made = time.monotonic() + TURN_S, 0
    running: set[Future[int]] = set()
    with ThreadPoolExecutor(operations.MOST, thread_name_prefix="endpoint") as pool:
        while True:
            if time.monotonic() < ends_at and not leaving.is_leaving():
                leases = take(limit=operations.MOST - len(running))
                running |= {pool.submit(_in_thread, lease, ends_at) for lease in leases}
            if not running:
                return made
            done, running = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            made += sum(each.result() for each in done)
            alive()


def _in_thread(lease: Lease, ends_at: float) -> int:
    try:
        return serve(lease, ends_at=ends_at)
    except Exception as error:  # the others are still to be called; this one's lease runs out
        log.error("endpoint_not_called", endpoint=lease.endpoint_id, error=error)
        return 0
    finally:
        connections.close_all()


_READY = """e.off_reason = '' AND (e.retry_at IS NULL OR e.retry_at <= clock_timestamp())"""


def take(*, limit: int = 100) -> list[Lease]:
    """The endpoints that wait for a call, and that nobody holds."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH due AS MATERIALIZED (
                SELECT id FROM delivery_endpoint e
                WHERE {_READY} AND (e.leased_until IS NULL OR e.leased_until < clock_timestamp()) AND EXISTS (
                    SELECT FROM delivery_posting p
                    WHERE p.endpoint_id = e.id AND p.state = 'waiting' AND p.due_at <= clock_timestamp())
                ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
            )
            UPDATE delivery_endpoint e
            SET lease = gen_random_uuid(), leased_until = clock_timestamp() + make_interval(secs => {LEASE_S})
            FROM due WHERE e.id = due.id RETURNING e.id, e.lease
            """,
            {"limit": limit},
        )
        return [Lease(*row) for row in cursor.fetchall()]


def serve(lease: Lease, *, ends_at: float) -> int:
    """Bring the endpoint what is due, the oldest first, one after the other; return the calls made.

    Until ``ends_at`` of the monotonic clock, until the worker ends, or until a call in vain has it wait.
    """
    made = 0
    while time.monotonic() < ends_at and not leaving.is_leaving() and (posting := _next(lease)):
        tried = call(posting)
        made += 1
        if not _note(lease, posting, tried):
            return made  # somebody else holds it, or it is gone
    Endpoint.objects.filter(pk=lease.endpoint_id, lease=lease.token).update(lease=None, leased_until=None)
    return made


def _next(lease: Lease) -> Posting | None:
    """The lease is taken anew for the call."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE delivery_endpoint e SET leased_until = clock_timestamp() + make_interval(secs => {LEASE_S})"
            f" WHERE e.id = %s AND e.lease = %s AND {_READY}",
            [lease.endpoint_id, lease.token],
        )
        if not cursor.rowcount:
            return None
    due = Posting.objects.filter(endpoint=lease.endpoint_id, state=Posting.State.WAITING, due_at__lte=timezone.now())
    return due.select_related("endpoint", "event").order_by("event_id").first()


def call(posting: Posting) -> Tried:
    """One try, signed by the secrets that hold. No transaction is open meanwhile, and no redirect is followed."""
    endpoint, body = posting.endpoint, payloads.body(posting.event)
    signed = standard_webhooks.signed(
        operations.keys(endpoint, now=timezone.now()), event_id=posting.event.event_id, body=body
    )
    began = time.monotonic()
    try:
        found = outgoing.fetch(
            str(endpoint.url),
            method="POST",
            body=body,
            headers={"Content-Type": "application/json", **signed},
            timeout_s=TIMEOUT_S,
            max_bytes=ANSWER_BYTES,
            may_cut=True,
        )
    except outgoing.OutgoingError as error:
        return Tried(error.code, time.monotonic() - began)
    outcome = _BY_HUNDRED.get(found.status // 100, "odd")
    if found.status == 410:
        outcome = GONE  # Standard Webhooks: "the endpoint is gone, stop sending to it"
    elif found.status in (429, 503):
        outcome = "busy"
    # NUL can't be kept, and an acceptance has nothing to say.
    answer = "" if outcome == DELIVERED else found.body.decode(errors="replace").replace("\0", "\ufffd")
    return Tried(outcome, time.monotonic() - began, found.status, answer, retry_after_seconds(found.headers))


def _note(lease: Lease, posting: Posting, tried: Tried) -> bool:
    """What the call came to, in one transaction; nothing of it where the lease is another's by now."""
    now = timezone.now()
    with transaction.atomic():
        held = Endpoint.objects.select_for_update(no_key=True).filter(pk=lease.endpoint_id, lease=lease.token)
        endpoint = held.first()
        if endpoint is None or not Posting.objects.filter(pk=posting.pk).exists():
            return False
        Attempt.objects.create(
            posting=posting,
            at=now - timedelta(seconds=tried.seconds),
            duration_ms=round(tried.seconds * 1_000),
            outcome=tried.outcome,
            status=tried.status,
            answer=tried.answer,
        )
        if tried.outcome == DELIVERED:
            _delivered(endpoint, posting, now=now)
        else:
            _in_vain(endpoint, posting, tried, now=now)
        counts.add({counts.Key(counts.ENDPOINT_CALLS, label=tried.outcome): 1})
    return True


def _delivered(endpoint: Endpoint, posting: Posting, *, now: datetime) -> None:
    Posting.objects.filter(pk=posting.pk).update(
        state=Posting.State.DELIVERED, attempts=posting.attempts + 1, due_at=None, settled_at=now
    )
    Endpoint.objects.filter(pk=endpoint.pk).update(answered_at=now, failing_since=None, failures=0, retry_at=None)


def _in_vain(endpoint: Endpoint, posting: Posting, tried: Tried, *, now: datetime) -> None:
    attempts, asked = posting.attempts + 1, tried.wait_s or 0.0
    if attempts >= len(WAITS_S):
        fate = {"state": Posting.State.FAILED, "due_at": None, "settled_at": now}
    else:
        spread = WAITS_S[attempts] * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  a jitter
        fate = {"due_at": now + timedelta(seconds=max(spread, asked))}
    Posting.objects.filter(pk=posting.pk).update(attempts=attempts, **fate)
    failures, since = endpoint.failures + 1, endpoint.failing_since or now
    wait_s = min(_FIRST_WAIT_S * 2 ** min(failures - 2, 10), _LONGEST_WAIT_S) if failures > 1 else 0.0
    Endpoint.objects.filter(pk=endpoint.pk).update(
        failing_since=since, failures=failures, retry_at=now + timedelta(seconds=max(wait_s, asked))
    )
    if tried.outcome == GONE:
        operations.give_up(endpoint_id=endpoint.pk, reason=Endpoint.Off.GONE, now=clock.now())
    elif since <= now - GIVE_UP:
        operations.give_up(endpoint_id=endpoint.pk, reason=Endpoint.Off.FAILING, now=clock.now())

"""What people and programs may do with endpoints: each is one transaction of change and audit event.

The audit names an endpoint by its number and description: its address may hold a key.
"""

import base64
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import connection, transaction
from django.utils import timezone

from audit import trail
from audit.models import Action
from delivery.endpoint_models import Endpoint, EventType, Posting
from delivery.subscribers import telling
from schedules import outgoing, standard_webhooks, storable
from schedules.outgoing import OutgoingError
from schedules.problems import Problem, say

MOST: Final = 20  # endpoints: each is called by a thread of its own
BOTH_SIGN: Final = timedelta(days=1)  # after a rotation
TYPES: Final = tuple(each.value for each in EventType if each is not EventType.TEST)
LONGEST_DESCRIPTION: Final = int(Endpoint._meta.get_field("description").max_length or 0)
BY: Final = "system:subscribers"
_SECRET_BYTES: Final = 32


class InvalidEndpoint(ValueError):
    """It can't be kept; ``problems`` name the field and the remedy."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


class NoSuchEndpoint(LookupError):
    """There is no such endpoint, or none of its events."""


class EndpointIsOff(Exception):
    """It is switched off: nothing is sent to it."""


class EndpointChanged(Exception):
    """It is not at the version that was expected; ``current`` stands."""

    def __init__(self, current: int) -> None:
        super().__init__(f"The endpoint is at version {current} by now: read it again and repeat the change.")
        self.current = current


def find(endpoint_id: int) -> Endpoint:
    """Raises ``NoSuchEndpoint``."""
    found = Endpoint.objects.filter(pk=endpoint_id).first()
    if found is None:
        raise NoSuchEndpoint
    return found


def keys(endpoint: Endpoint, *, now: datetime) -> list[bytes]:
    """Those that sign: two for a day after a rotation. ``now`` is real time."""
    written = str(endpoint.secret)
    if endpoint.old_secret_until and endpoint.old_secret_until > now:
        written += f" {endpoint.old_secret}"
    return standard_webhooks.secrets(written)


def create(*, url: str, description: str = "", types: Sequence[str] = (), by: str, now: datetime) -> Endpoint:
    """Keep a new one, which is told of all that happens from ``now`` on. Asks where its name leads.

    Raises ``InvalidEndpoint``.
    """
    _refuse([*_flaws(url=url), *_check(description, types)])
    with transaction.atomic():
        with connection.cursor() as cursor:  # of two first ones one begins
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('endpoints'))")
        count = Endpoint.objects.count()
        if count >= MOST:
            words = say("There are %(most)s endpoints, and more are not allowed.", most=MOST)
            raise InvalidEndpoint([Problem("url", "too_many", words)])
        if not count:
            telling.begin()
        made = Endpoint.objects.create(
            url=url, description=description, types=list(types), secret=_new_secret(), created_at=now, created_by=by
        )
        _record(Action.ENDPOINT_CREATE, made, trail.diff({}, _kept(made)), by=by, now=now)
    return made


def update(
    *, endpoint_id: int, changes: Mapping[str, Any], by: str, now: datetime, expected_version: int | None = None
) -> Endpoint:
    """Change ``url``, ``description`` or ``types``. Asks where a new address leads.

    Raises ``InvalidEndpoint``, ``NoSuchEndpoint`` and ``EndpointChanged``.
    """
    standing = find(endpoint_id)
    after = {"description": standing.description, "types": standing.types, **changes}
    moves = "url" in changes and changes["url"] != standing.url
    _refuse([*(_flaws(url=changes["url"]) if moves else ()), *_check(after["description"], after["types"])])
    with transaction.atomic():
        endpoint = _lock(endpoint_id, expected_version)
        before, was = _kept(endpoint), str(endpoint.url)
        for name, value in changes.items():
            setattr(endpoint, name, list(value) if name == "types" else value)
        changed = trail.diff(before, _kept(endpoint))
        if str(endpoint.url) != was:
            changed["url"] = ["…", "…"]  # that it is another one, and not which
            endpoint.retry_at = None
        if changed:
            _save(endpoint, *changes, "retry_at")
            _record(Action.ENDPOINT_UPDATE, endpoint, changed, by=by, now=now)
    return endpoint


@transaction.atomic
def switch_on(*, endpoint_id: int, by: str, now: datetime) -> Endpoint:
    """Call it again: what waits goes on. What happened while it was off can be replayed. Raises ``NoSuchEndpoint``."""
    endpoint = _lock(endpoint_id)
    if endpoint.off_reason:
        was, endpoint.off_reason, endpoint.off_at = endpoint.off_reason, "", None
        endpoint.failing_since, endpoint.failures, endpoint.retry_at = None, 0, None
        _save(endpoint, "off_reason", "off_at", "failing_since", "failures", "retry_at")
        _record(Action.ENDPOINT_ON, endpoint, {"off_reason": [was, ""]}, by=by, now=now)
    return endpoint


@transaction.atomic
def switch_off(*, endpoint_id: int, by: str, now: datetime) -> Endpoint:
    """Call it no more; one call under way ends. Raises ``NoSuchEndpoint``."""
    endpoint = _lock(endpoint_id)
    if not endpoint.off_reason:
        _off(endpoint, Endpoint.Off.PERSON, by=by, now=now)
    return endpoint


def give_up(*, endpoint_id: int, reason: Endpoint.Off, now: datetime) -> None:
    """The same by the service itself, in the transaction of the call that tells why."""
    _off(_lock(endpoint_id), reason, by=BY, now=now)


@transaction.atomic
def rotate(*, endpoint_id: int, by: str, now: datetime) -> Endpoint:
    """Give it a new secret; the one before signs beside it for a day of real time. Raises ``NoSuchEndpoint``."""
    endpoint = _lock(endpoint_id)
    endpoint.old_secret, endpoint.secret = endpoint.secret, _new_secret()
    endpoint.old_secret_until = timezone.now() + BOTH_SIGN
    _save(endpoint, "old_secret", "secret", "old_secret_until")
    _record(Action.ENDPOINT_ROTATE, endpoint, {}, by=by, now=now)
    return endpoint


@transaction.atomic
def delete(*, endpoint_id: int, by: str, now: datetime) -> None:
    """With its attempts and what waits for it. Raises ``NoSuchEndpoint``."""
    endpoint = _lock(endpoint_id)
    _record(Action.ENDPOINT_DELETE, endpoint, trail.diff(_kept(endpoint), {}), by=by, now=now)
    endpoint.delete()


@transaction.atomic
def test(*, endpoint_id: int, now: datetime) -> Posting:
    """Have it told that somebody tries it out. Raises ``NoSuchEndpoint`` and ``EndpointIsOff``."""
    endpoint = _lock(endpoint_id)
    _refuse_off(endpoint)
    Endpoint.objects.filter(pk=endpoint.pk).update(retry_at=None)
    return telling.write(EventType.TEST, data={"endpointId": endpoint.pk}, occurred_at=now, of=endpoint)


@transaction.atomic
def replay(*, posting_id: int, endpoint_id: int, by: str, now: datetime) -> Posting:
    """Bring the endpoint one event again, whatever became of it. Raises ``NoSuchEndpoint`` and ``EndpointIsOff``."""
    endpoint = _lock(endpoint_id)
    _refuse_off(endpoint)
    posting = Posting.objects.select_for_update().filter(pk=posting_id, endpoint=endpoint).first()
    if posting is None:
        raise NoSuchEndpoint
    posting.state, posting.attempts, posting.settled_at = Posting.State.WAITING, 0, None
    posting.due_at = timezone.now()
    posting.save(update_fields=["state", "attempts", "due_at", "settled_at"])
    Endpoint.objects.filter(pk=endpoint.pk).update(retry_at=None)
    _record(Action.ENDPOINT_REPLAY, endpoint, {"event": posting.event.event_id}, by=by, now=now)
    return posting


# Those that failed, and those that it was never sent because it was off.
_REPLAY_FAILED = """
UPDATE delivery_posting p SET state = 'waiting', attempts = 0, due_at = clock_timestamp(), settled_at = NULL
FROM delivery_event e
WHERE e.id = p.event_id AND p.endpoint_id = %(endpoint)s AND p.state = 'failed' AND e.occurred_at >= %(since)s
"""
_ADDRESS_MISSED = f"""
INSERT INTO delivery_posting (endpoint_id, event_id, state, attempts, due_at)
SELECT %(endpoint)s, e.id, 'waiting', 0, clock_timestamp() FROM delivery_event e
WHERE e.of_id IS NULL AND e.occurred_at >= %(since)s AND (%(every)s OR e.type = ANY(%(types)s))
  AND (e.occurred_at >= %(created)s OR e.type = '{EventType.DELIVERIES_REPORTED}')
ON CONFLICT (endpoint_id, event_id) DO NOTHING
"""


@transaction.atomic
def replay_failed(*, endpoint_id: int, since: datetime, by: str, now: datetime) -> int:
    """Bring it whatever happened from ``since`` on and has not reached it; return how many events that are.

    Raises ``NoSuchEndpoint`` and ``EndpointIsOff``.
    """
    endpoint = _lock(endpoint_id)
    _refuse_off(endpoint)
    asked = {
        "endpoint": endpoint.pk,
        "since": since,
        "every": not endpoint.types,
        "types": endpoint.types,
        "created": endpoint.created_at,
    }
    with connection.cursor() as cursor:
        cursor.execute(_REPLAY_FAILED, asked)
        replayed = int(cursor.rowcount)
        cursor.execute(_ADDRESS_MISSED, asked)
        replayed += int(cursor.rowcount)
    Endpoint.objects.filter(pk=endpoint.pk).update(retry_at=None)
    _record(Action.ENDPOINT_REPLAY, endpoint, {"since": since.isoformat(), "events": replayed}, by=by, now=now)
    return replayed


_PURGED: Final = 500  # events in one statement, with their postings and attempts


def purge(*, before: datetime) -> int:
    """Remove the events from before that real instant, and what is known of their way; return how many."""
    purged = 0
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM delivery_event WHERE created_at < %s ORDER BY created_at LIMIT %s", [before, _PURGED]
            )
            ids = [pk for (pk,) in cursor.fetchall()]
            cursor.execute(
                "DELETE FROM delivery_attempt a USING delivery_posting p"
                " WHERE a.posting_id = p.id AND p.event_id = ANY(%s)",
                [ids],
            )
            cursor.execute("DELETE FROM delivery_posting WHERE event_id = ANY(%s)", [ids])
            cursor.execute("DELETE FROM delivery_event WHERE id = ANY(%s)", [ids])
            cursor.execute("DELETE FROM delivery_toldbatch WHERE day < %s AND NOT is_changed", [before.date()])
        purged += len(ids)
        if len(ids) < _PURGED:
            return purged


def _flaws(*, url: str) -> list[Problem]:
    try:
        outgoing.check(url)
    except OutgoingError as error:
        return [Problem("url", error.code, str(error))]
    return []


def _check(description: str, types: Sequence[str]) -> list[Problem]:
    problems = []
    if storable.text_fault(description) or len(description) > LONGEST_DESCRIPTION or not description.isprintable():
        words = say("Use one line of at most %(most)s characters.", most=LONGEST_DESCRIPTION)
        problems.append(Problem("description", "invalid", words))
    if not set(types) <= set(TYPES):
        words = say("Use one of: %(known)s.", known=", ".join(TYPES))
        problems.append(Problem("types", "unknown", words))
    return problems


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise InvalidEndpoint(problems)


def _refuse_off(endpoint: Endpoint) -> None:
    if endpoint.off_reason:
        raise EndpointIsOff("The endpoint is switched off: switch it on first.")


def _lock(endpoint_id: int, expected_version: int | None = None) -> Endpoint:
    endpoint = Endpoint.objects.select_for_update().filter(pk=endpoint_id).first()
    if endpoint is None:
        raise NoSuchEndpoint
    if expected_version is not None and endpoint.version != expected_version:
        raise EndpointChanged(endpoint.version)
    return endpoint


def _save(endpoint: Endpoint, *names: str) -> None:
    endpoint.version += 1
    endpoint.save(update_fields=[*names, "version"])


def _off(endpoint: Endpoint, reason: Endpoint.Off, *, by: str, now: datetime) -> None:
    endpoint.off_reason, endpoint.off_at = reason.value, now
    _save(endpoint, "off_reason", "off_at")
    _record(Action.ENDPOINT_OFF, endpoint, {"off_reason": ["", reason.value]}, by=by, now=now)


def _kept(endpoint: Endpoint) -> dict[str, Any]:
    return {"description": endpoint.description, "types": list(endpoint.types)}


def _record(action: Action, endpoint: Endpoint, changes: Mapping[str, Any], *, by: str, now: datetime) -> None:
    named = {"endpoint": endpoint.pk, "name": endpoint.description}
    trail.record(action=action, by=by, now=now, changes={**named, **changes})


def _new_secret() -> str:
    return standard_webhooks.PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()

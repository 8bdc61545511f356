"""How many people the user service finds at this moment, told beside what previews count in the copy kept here.

Whoever looks at a preview waits for it, two seconds at most, the look-up of its name included. Its answer holds for a
minute and for all processes; of those who ask the same at once one asks the service. A service that does not answer is
left alone for half a minute by all, whatever the audience.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from queue import Empty, SimpleQueue
from threading import BoundedSemaphore, Thread
from typing import Any, Final, NamedTuple
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection
from django.db.models.functions import Now

from schedules import encryption
from schedules.audience.parser import InvalidAudience, parse
from schedules.audience.sources import AudienceTooSlow, LocalSource
from schedules.models import ServedCount
from schedules.user_service import client, left_alone

AWAY: Final = "user_service_away"
REFUSED: Final = "user_service_refused"
# Seconds: of one question, of its answer's life and of a refusal's, and before a service that did not answer is asked
# again.
_PATIENCE_S: Final = 2.0
_KEPT_S: Final = 60.0
_REFUSED_S: Final = 15.0
_LEFT_ALONE_S: Final = 30.0
_POLL_S: Final = 0.05
# Questions of this process that hang somewhere, a resolver perhaps, and are waited for by nobody.
_AT_ONCE: Final = 8
_free = BoundedSemaphore(_AT_ONCE)

# Who asks is alone with it, until he has the answer or is late.
_TAKE = """
INSERT INTO schedules_servedcount AS c (key, as_of, reason, good_until, asked_until)
VALUES (%(key)s, %(now)s, '', clock_timestamp(), clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (key) DO UPDATE SET asked_until = EXCLUDED.asked_until
WHERE c.good_until <= clock_timestamp() AND (c.asked_until IS NULL OR c.asked_until <= clock_timestamp())
RETURNING 1
"""
_KEEP = """
UPDATE schedules_servedcount
SET people = %(people)s, as_of = %(as_of)s, reason = %(reason)s, asked_until = NULL,
    good_until = clock_timestamp() + make_interval(secs => %(seconds)s)
WHERE key = %(key)s
"""

log = structlog.get_logger(__name__)


class Served(NamedTuple):
    """``people`` as the user service counted them ``as_of``; None where it gave no number, and ``reason`` says why."""

    people: int | None
    as_of: datetime
    reason: str = ""


def served(audience: Mapping[str, Any], *, now: datetime) -> Served | None:
    """Ask the user service, or remember its answer; None where people are kept here and nobody else is asked.

    ``audience`` is a query that is valid. Call it outside of transactions.
    """
    if not settings.USER_SERVICE_URL:
        return None
    key = _key(audience)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        # Now() is when the statement came in: what is being asked may have been written a moment later, and seen.
        if found := ServedCount.objects.filter(key=key, good_until__gt=Now(), asked_until=None).first():
            return Served(found.people, found.as_of, found.reason)
        if _take(key, now):
            return _ask_for_all(key, audience, now)
        if time.monotonic() > deadline:
            return Served(None, now, AWAY)
        time.sleep(_POLL_S)


def size(audience: Mapping[str, Any], *, now: datetime) -> int | None:
    """How many people a run would find, by whoever answers for them; None where nobody says, or it can't be read."""
    try:
        node = parse(audience)
        if told := served(audience, now=now):
            return told.people
        return LocalSource().count(node, now=now)
    except (InvalidAudience, AudienceTooSlow):
        return None


def is_large(people: int | None) -> bool:
    """Whether so many, or a number that nobody can say, are worth a second look before they get something."""
    return people is None or people > settings.CONFIRM_AUDIENCE


def purge() -> None:
    """Drop what nobody has asked for in a day."""
    ServedCount.objects.filter(good_until__lt=Now() - timedelta(days=1)).delete()


def _key(audience: Mapping[str, Any]) -> UUID:
    key = encryption.index_of_token(json.dumps([settings.USER_SERVICE_URL, audience], sort_keys=True))
    assert key is not None
    return key


def _take(key: UUID, now: datetime) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, {"key": key, "now": now, "seconds": _PATIENCE_S + 1})
        return cursor.fetchone() is not None


def _ask_for_all(key: UUID, audience: Mapping[str, Any], now: datetime) -> Served:
    leave = left_alone.ask(left_alone.COUNTS, within_s=_PATIENCE_S + 1)
    if leave.wait_s:
        told, seconds = Served(None, now, AWAY), leave.wait_s
    else:
        told = _ask(audience, now)
        seconds = {AWAY: _LEFT_ALONE_S, REFUSED: _REFUSED_S}.get(told.reason, _KEPT_S)
        if told.reason == AWAY:
            left_alone.failed(left_alone.COUNTS, first_s=_LEFT_ALONE_S, longest_s=_LEFT_ALONE_S)
        elif leave.is_probe:
            left_alone.answered(left_alone.COUNTS)
    with connection.cursor() as cursor:
        cursor.execute(_KEEP, {**told._asdict(), "key": key, "seconds": seconds})
    return told


def _ask(audience: Mapping[str, Any], now: datetime) -> Served:
    """In a thread, since nothing bounds how long a name is looked up."""
    code, came = "timeout", SimpleQueue[int | client.UserServiceError]()
    if _free.acquire(blocking=False):
        Thread(target=_count, args=(audience, now, came), name="count", daemon=True).start()
        with suppress(Empty):
            found = came.get(timeout=_PATIENCE_S)
            if isinstance(found, int):
                return Served(found, now)
            code = found.code
            if isinstance(found, client.Refused):
                log.warning("user_service_not_counted", code=code)
                return Served(None, now, REFUSED)
    log.warning("user_service_not_counted", code=code)
    return Served(None, now, AWAY)


def _count(audience: Mapping[str, Any], now: datetime, came: SimpleQueue[int | client.UserServiceError]) -> None:
    try:
        came.put(client.count(audience, as_of=now, timeout_s=_PATIENCE_S))
    except client.UserServiceError as error:
        came.put(error)
    finally:
        _free.release()

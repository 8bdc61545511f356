"""How many people the user service finds at this moment, told beside what previews count in the copy kept here.

Whoever looks at a preview waits for it: the question is short, its answer is kept for a minute, and a service that
doesn't answer is left alone for a while, whatever the audience.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import structlog
from django.conf import settings
from django.core.cache import cache

from schedules.user_service import client

AWAY: Final = "user_service_away"
REFUSED: Final = "user_service_refused"
# Seconds: of one question, of its answer's life, and before a service that did not answer is asked again.
_PATIENCE_S: Final = 2.0
_KEPT_S: Final = 60
_LEFT_ALONE_S: Final = 15
_IS_AWAY: Final = "user_service:away"

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
    asked = json.dumps([settings.USER_SERVICE_URL, audience], sort_keys=True)
    key = f"user_service:{hashlib.sha256(asked.encode()).hexdigest()}"
    if found := cache.get(key) or cache.get(_IS_AWAY):
        return Served(*found)
    told = _ask(audience, now)
    if told.reason == AWAY:
        cache.set(_IS_AWAY, tuple(told), _LEFT_ALONE_S)
    else:
        cache.set(key, tuple(told), _KEPT_S if told.people is not None else _LEFT_ALONE_S)
    return told


def _ask(audience: Mapping[str, Any], now: datetime) -> Served:
    try:
        return Served(client.count(audience, as_of=now, timeout_s=_PATIENCE_S), now)
    except client.UserServiceError as error:
        log.warning("user_service_not_counted", code=error.code)
        return Served(None, now, REFUSED if isinstance(error, client.Refused) else AWAY)

"""How many requests a client may send: a bucket of tokens per client in Redis, taken from by one script.

The bucket holds ``API_BURST`` requests and fills at ``API_RATE`` a second (GCRA, as of ATM's traffic management 4.0:
one instant per client says how much has been used up). The answer's headers are those of
draft-ietf-httpapi-ratelimit-headers-11. Without Redis nobody is limited: the limit protects the service, and must not
be what takes it down.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from time import monotonic

from django.conf import settings

from delivery import counters
from delivery.counters import CountersAway, Script

# For so long after a failure nobody is counted: of a Redis that hangs, one request in a while waits and not each.
REST_S = 15.0
# Redis' own clock: the limit is about real time, and web servers' clocks differ.
_TAKE = Script(
    """
    local spacing, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
    local clock = redis.call('TIME')
    local now = clock[1] * 1000 + clock[2] / 1000
    local filled = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
    local next_filled = filled + spacing
    local room = now + burst * spacing - next_filled
    if room < 0 then
        return {-1, math.ceil(-room), math.ceil(filled - now)}
    end
    redis.call('SET', KEYS[1], string.format('%.3f', next_filled), 'PX', math.ceil(next_filled - now) + 1000)
    return {math.floor(room / spacing), 0, math.ceil(next_filled - now)}
    """
)


@dataclass(frozen=True)
class Taken:
    """``retry_after`` in seconds is positive where the request is one too many."""

    left: int
    retry_after: int
    full_again: int

    @property
    def headers(self) -> Mapping[str, str]:
        window = max(round(settings.API_BURST / settings.API_RATE), 1)
        policy = f'"client";q={settings.API_BURST};w={window}'
        headers = {"RateLimit-Policy": policy, "RateLimit": f'"client";r={self.left};t={self.full_again}'}
        return {**headers, "Retry-After": str(self.retry_after)} if self.retry_after else headers


class _Rest:
    until = 0.0


def take(client: str) -> Taken | None:
    """One request of ``client``; None while the counters are away, when nobody is limited."""
    if counters.rest() or monotonic() < _Rest.until:
        return None
    try:
        left, wait_ms, used_ms = _TAKE.run([f"api:{{{client}}}"], [1000 / settings.API_RATE, settings.API_BURST])
    except CountersAway:
        _Rest.until = monotonic() + REST_S
        return None
    return Taken(max(left, 0), ceil(wait_ms / 1000), ceil(used_ms / 1000))

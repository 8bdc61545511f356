"""Buckets of tokens in Redis, taken from by one script: how often something may be done.

A bucket holds ``burst`` and fills at ``rate`` a second (GCRA, as of ATM's traffic management 4.0: one instant says how
much has been used up). Without Redis nobody is limited: a limit protects the service, and must not be what takes it
down.
"""

from math import ceil
from time import monotonic
from typing import NamedTuple

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


class Took(NamedTuple):
    """What is ``left`` in the bucket. ``retry_after`` in seconds is positive where there was nothing to take."""

    left: int
    retry_after: int
    full_again: int


class _Rest:
    until = 0.0


def take(bucket: str, *, rate: float, burst: int) -> Took | None:
    """One of the ``bucket``, by its name; None while the counters are away, when nobody is limited."""
    if counters.rest() or monotonic() < _Rest.until:
        return None
    kind, _colon, name = bucket.partition(":")
    try:
        left, wait_ms, used_ms = _TAKE.run([f"{kind}:{{{name}}}"], [1000 / rate, burst])
    except CountersAway:
        _Rest.until = monotonic() + REST_S
        return None
    return Took(max(left, 0), ceil(wait_ms / 1000), ceil(used_ms / 1000))

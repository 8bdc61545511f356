"""How often a file of people may be taken: each is the whole register, so ten at once and then one a minute."""

from typing import Final

from frontend import buckets

_A_SECOND: Final = 1 / 60  # one a minute
_AT_ONCE: Final = 10


def wait_for(who: str) -> int:
    """Seconds until ``who`` may take another; 0: now, and this is one. Without the counters nobody waits."""
    took = buckets.take(f"export:{who}", rate=_A_SECOND, burst=_AT_ONCE)
    return took.retry_after if took else 0

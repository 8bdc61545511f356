"""How often a file of people may be taken: as many in all as an hour's work needs, since each is a whole register."""

from typing import Final

from frontend import buckets

_A_MINUTE: Final = 1 / 60
_AT_ONCE: Final = 10


def wait_for(who: str) -> int:
    """Seconds until ``who`` may take another; 0: now, and this is one. Without the counters nobody waits."""
    took = buckets.take(f"export:{who}", rate=_A_MINUTE, burst=_AT_ONCE)
    return took.retry_after if took else 0

"""How many requests a client may send: a bucket per client that holds ``API_BURST`` and fills at ``API_RATE`` a second.

The answer's headers are those of draft-ietf-httpapi-ratelimit-headers-11.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings

from frontend import buckets


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


def take(client: str) -> Taken | None:
    """One request of ``client``; None while the counters are away, when nobody is limited."""
    took = buckets.take(f"api:{client}", rate=settings.API_RATE, burst=settings.API_BURST)
    return Taken(*took) if took else None

"""Whether the broker answers, asked as Redis, by a connection of its own."""

from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

_TIMEOUT_S: Final = 1.0


def answers(url: str) -> bool:
    """Within a second, else not."""
    try:
        with Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        ) as client:
            return bool(client.ping())
    except (RedisError, OSError):
        return False

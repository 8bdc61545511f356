"""The counters' Redis: one server or a cluster, told apart by asking it, and scripts that run on either.

Whatever keeps an answer from coming is ``CountersAway``; callers wait and ask again. Every script here may be run twice
with the same arguments, so a connection that breaks half-way does no harm.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisClusterException, RedisError
from redis.retry import Retry

# Real seconds: an answer takes well below a millisecond, and a sender's permit lasts three seconds.
TIMEOUT_S = 1.0
# For so long after a failure nobody asks again: sends wait, without wearing out connections and rows.
PAUSE_S = 1.0

T = TypeVar("T")


class CountersAway(Exception):
    """Redis does not answer, or not usefully. Nothing may be sent that counts."""


class Script:
    """A Lua script. ``keys`` of one run must share a hash tag where the server is a cluster."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._sha = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - Redis names scripts by it

    def run(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """What the script returns. Raises ``CountersAway``."""
        return _asked(lambda client: self._on(client, keys, arguments))

    def _on(self, client: Any, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        try:
            return client.evalsha(self._sha, len(keys), *keys, *arguments)
        except NoScriptError:  # the server is new, or was flushed
            return client.eval(self._text, len(keys), *keys, *arguments)


def is_cluster() -> bool:
    """Raises ``CountersAway``."""
    return _asked(lambda client: isinstance(client, RedisCluster))


def ping() -> None:
    """Raises ``CountersAway``."""
    _asked(lambda client: client.ping())


def publish(channel: str, text: str) -> None:
    """Tell whoever listens to ``channel`` at this moment; nobody hears it later. Raises ``CountersAway``."""
    _asked(lambda client: client.publish(channel, text))


class Listener:
    """Hears what is published on ``channel``, from the first question on, by a connection of its own."""

    def __init__(self, channel: str) -> None:
        self._channel = channel
        self._heard: Any = None

    def next(self, *, seconds: float) -> str | None:
        """What is heard within so many seconds, if anything. Raises ``CountersAway``; then it connects anew."""
        try:
            if self._heard is None:
                self._heard = _client().pubsub(ignore_subscribe_messages=True)
                self._heard.subscribe(self._channel)
            message = self._heard.get_message(timeout=seconds)
        # A connection that breaks while it is listened to raises TypeError too, of a socket that is gone (redis 8.1).
        except (RedisError, RedisClusterException, OSError, TypeError) as error:
            self.close()
            raise CountersAway(f"{type(error).__name__}: {error}") from error
        return message["data"].decode() if message else None

    def close(self) -> None:
        heard, self._heard = self._heard, None
        if heard is not None:
            with suppress(RedisError, RedisClusterException, OSError, TypeError):
                heard.close()


def rest() -> float:
    """Real seconds until the counters may be asked again after a failure; 0.0 normally."""
    return max(_pause.until - time.monotonic(), 0.0)


class _Pause:
    until = 0.0


_pause = _Pause()


def _asked(question: Callable[[Any], T]) -> T:
    try:
        return question(_client())
    except (RedisError, RedisClusterException, OSError) as error:
        _pause.until = time.monotonic() + PAUSE_S
        raise CountersAway(f"{type(error).__name__}: {error}") from error


@cache
def _client() -> Any:
    """One per process, made at its first question, hence after a fork; not kept where the server can't be asked.

    COUNTERS_URL may name several nodes of a cluster, separated by commas: the first that answers tells of the others.
    """
    *others, last = settings.COUNTERS_URL.split(",")
    for url in others:
        try:
            return _connect(url)
        except (RedisError, RedisClusterException, OSError):
            continue
    return _connect(last)


def _connect(url: str) -> Any:
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "socket_keepalive": True,
    }
    # One more try is for a connection that the server closed while it lay in the pool.
    single = redis.Redis.from_url(url, retry=Retry(NoBackoff(), 1), **options)
    if not single.info("cluster").get("cluster_enabled"):
        return single
    single.close()
    # Its own way is to try four times, and in between to ask every node for the others: eleven seconds where one is
    # silent, of the three that a permit lasts.
    return RedisCluster.from_url(url, retry=Retry(NoBackoff(), 1), **options)

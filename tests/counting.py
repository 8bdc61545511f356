"""The counters' Redis of a test: emptied, and asked anew where a test has put another in its place."""

from collections.abc import Iterable

from redis import Redis

from scheduler_project.local.redis import Server


def flush(servers: Iterable[Server]) -> None:
    for server in servers:
        with Redis.from_url(server.url) as client:
            client.flushall()

"""Whether the process of a container works, asked within it. Cheap: no settings, no Django, no database.

Web servers and streams are asked as a proxy asks them. Beat and workers are known to the broker by their name: whoever
is not connected, hears no message. One that is connected and consumes nothing is not found out here.
"""

import http.client
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from scheduler_project.local.ports import LOOPBACK

WEB_PORT: Final = 8000
STREAMS_PORT: Final = 8030
_ASKED: Final = {"web": (WEB_PORT, "/readyz"), "streams": (STREAMS_PORT, "/healthz")}
# As from a proxy that has ended TLS: neither sent on to https nor taken for a stranger's host.
_HEADERS: Final = {"Host": "localhost", "X-Forwarded-Proto": "https"}
_ANSWER_S: Final = 5.0


def answers(role: str) -> bool:
    """Whether the web server, or that of streams, of this container says that it may be used."""
    port, path = _ASKED[role]
    asked = http.client.HTTPConnection(LOOPBACK, port, timeout=_ANSWER_S)
    try:
        asked.request("GET", path, headers=_HEADERS)
        return asked.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()


def is_at_broker(url: str, name: str) -> bool:
    """Whether the broker has a connection that is called ``name`` (CELERY_BROKER_TRANSPORT_OPTIONS)."""
    if not url:
        return False
    try:
        with Redis.from_url(url, socket_timeout=_ANSWER_S, socket_connect_timeout=_ANSWER_S) as client:
            return any(each["name"] == name for each in client.client_list())
    except (RedisError, OSError, ValueError):
        return False

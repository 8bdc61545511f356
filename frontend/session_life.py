"""How long a session lives: so long without a request, and so long at most (NIST SP 800-63B-4, 2.2.3).

Both by the real clock. What a page asks for by itself while nobody is at it (htmx, by GET) keeps no session alive.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.signals import user_logged_in
from django.http import HttpRequest, HttpResponse

BEGUN: Final = "begun_at"
SEEN: Final = "seen_at"
_EVERY_S: Final = 60  # so exactly is it known when somebody was last here


def listen() -> None:
    """From the app's start on."""
    user_logged_in.connect(_begin, dispatch_uid="session_life")


def _begin(request: HttpRequest | None, **_: Any) -> None:
    if request is not None and hasattr(request, "session"):
        request.session[BEGUN] = request.session[SEEN] = int(time.time())


class SessionLife:
    """Middleware, before that of authentication: who comes too late is nobody."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if settings.SESSION_COOKIE_NAME in request.COOKIES and SESSION_KEY in request.session:
            _look(request, int(time.time()))
        return self._get_response(request)


def _look(request: HttpRequest, now: int) -> None:
    session = request.session
    # A session of before there was an end to it, or of a shell, begins now.
    begun, seen = session.setdefault(BEGUN, now), session.setdefault(SEEN, now)
    if now - begun > settings.SESSION_HOURS * 3600 or now - seen > settings.SESSION_IDLE_MINUTES * 60:
        session.flush()
    elif now - seen >= _EVERY_S and not (request.method == "GET" and request.headers.get("HX-Request") == "true"):
        session[SEEN] = now

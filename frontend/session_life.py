"""How a session lives and ends: so long without a request, and so long at most (NIST SP 800-63B-4, 2.2.3).

Both by the real clock. What a page asks for by itself while nobody is at it (htmx, by GET) keeps no session alive.
A page that is open when it ends is told so by 401, in place of a login that would be put into the middle of it; what
was typed there stays (``frame.js``).
"""

import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.models import Session
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from oauth2_provider.models import get_access_token_model, get_grant_model, get_refresh_token_model

BEGUN: Final = "begun_at"
SEEN: Final = "seen_at"
_EVERY_S: Final = 60  # so exactly is it known when somebody was last here


def listen() -> None:
    """From the app's start on."""
    user_logged_in.connect(_begin, dispatch_uid="session_life")


def _begin(request: HttpRequest | None, **_: Any) -> None:
    if request is not None and hasattr(request, "session"):
        request.session[BEGUN] = request.session[SEEN] = int(time.time())


def age_s(request: HttpRequest) -> float:
    """Seconds since somebody gave his password for this session."""
    begun: int = request.session.get(BEGUN, 0)
    return time.time() - begun


def end_sessions(user_id: int) -> int:
    """End every session of that person; how many there were.

    Sessions say whose they are in what is signed: all that are alive are read.
    """
    alive = Session.objects.filter(expire_date__gt=timezone.now())
    his = [each.pk for each in alive.iterator() if each.get_decoded().get(SESSION_KEY) == str(user_id)]
    Session.objects.filter(pk__in=his).delete()
    return len(his)


def end_tokens(user_id: int) -> None:
    """What apps may do in the name of that person ends."""
    for issued in (get_grant_model(), get_refresh_token_model(), get_access_token_model()):
        issued.objects.filter(user__in=[user_id]).delete()  # tokens of services have no user: None must not be theirs


class SessionLife:
    """Middleware, before that of authentication: who comes too late is nobody."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if settings.SESSION_COOKIE_NAME in request.COOKIES and SESSION_KEY in request.session:
            _look(request, int(time.time()))
        answer = self._get_response(request)
        if request.headers.get("HX-Request") == "true" and _leads_to_the_login(answer):
            return HttpResponse(status=401)
        return answer


def _leads_to_the_login(answer: HttpResponse) -> bool:
    return answer.status_code == 302 and urlsplit(answer["Location"]).path == settings.LOGIN_URL


def _look(request: HttpRequest, now: int) -> None:
    session = request.session
    # A session of before there was an end to it, or of a shell, begins now.
    begun, seen = session.setdefault(BEGUN, now), session.setdefault(SEEN, now)
    if now - begun > settings.SESSION_HOURS * 3600 or now - seen > settings.SESSION_IDLE_MINUTES * 60:
        session.flush()
    elif now - seen >= _EVERY_S and not (request.method == "GET" and request.headers.get("HX-Request") == "true"):
        session[SEEN] = now

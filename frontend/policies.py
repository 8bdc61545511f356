"""What browsers may do with an answer.

Content security policies: the strict one is ``settings.CONTENT_SECURITY_POLICY``; whoever needs another says why. And
whether an answer may be kept, and by which way it is asked for.
"""

from collections.abc import Callable
from typing import Any

from csp.constants import NONE, SELF, UNSAFE_EVAL, UNSAFE_INLINE
from csp.decorators import csp, csp_replace, csp_update
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

_PROGRAMS = ("/api/v1/", "/oauth/token", "/oauth/revoke", "/hooks/")
_WATCHED = ("/metrics",)
_LOGOUT = "/admin/logout/"
# Unfold's pages: Alpine evaluates expressions, the colours stand in a style element.
unfold: Callable[..., Any] = csp_update({"script-src": [UNSAFE_EVAL], "style-src": [UNSAFE_INLINE]})
# The consent to an app is answered by a redirect to it, which browsers hold against form-action.
redirects: Callable[..., Any] = csp_replace({"form-action": None, "frame-ancestors": [NONE]})
# Swagger UI and ReDoc style what they draw by themselves, and have their search in a worker.
reference: Callable[..., Any] = csp_update(
    {"script-src": [UNSAFE_INLINE], "style-src": [UNSAFE_INLINE], "worker-src": ["blob:"]}
)
# What others wrote, shown in a frame: no script, no form, no origin, nothing from elsewhere; its own styles alone.
_foreign: Callable[..., Any] = csp(
    {
        "default-src": [NONE],
        "style-src": [UNSAFE_INLINE],
        "img-src": ["data:"],
        "frame-ancestors": [SELF],
        "sandbox": [True],
    }
)


@_foreign
def foreign(html: str) -> HttpResponse:
    """A message as a whole document, to be the source of a frame."""
    return HttpResponse(html, headers={"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"})


class ProgramsByHttps:
    """Middleware before the redirect to https: a program that comes by http is refused.

    Were it redirected, it would send its token in clear each time, and nobody would notice (ASVS 5.0, 4.1.2).
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if settings.SECURE_SSL_REDIRECT and not request.is_secure() and request.path.startswith(_PROGRAMS):
            said = {"status": 403, "title": "Come by https", "detail": "What was sent by http was sent in clear."}
            return JsonResponse(said, status=403, content_type="application/problem+json")
        return self._get_response(request)


class Watched:
    """Middleware before hosts and https are looked at: who watches asks each process by its address, and by plain http.

    Prometheus knows no header to say that a proxy has ended TLS. What these answer names nobody.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path in _WATCHED:
            # Its own name in the place of an address that ALLOWED_HOSTS can't know.
            request.META["HTTP_HOST"] = next(
                (host.lstrip(".") for host in settings.ALLOWED_HOSTS if host != "*"), "localhost"
            )
        return self._get_response(request)


class PrivateAnswers:
    """Middleware below that of static files: nobody on the way keeps an answer, unless its view has said otherwise."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        if request.path == _LOGOUT:
            # Pages of before may still be in memory, for the button Back (W3C, Clear Site Data).
            response.headers["Clear-Site-Data"] = '"cache"'
        return response

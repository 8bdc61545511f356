"""A line of the log for each request, by its route: neither its path nor its query, in which people may be named."""

import time
from collections.abc import Callable
from typing import Final

import structlog
from django.http import HttpRequest, HttpResponse

log = structlog.get_logger(__name__)

# Asked by programs all day long, and of no interest while they are answered: probes, and a call for each message of a
# provider. They have their metrics.
_PROBES: Final = ("/healthz", "/readyz", "/metrics")
_HOOKS: Final = "/hooks/"


class RequestLines:
    """Middleware, right within ``RequestIds``."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        begun = time.perf_counter()
        response = self._get_response(request)
        match = request.resolver_match
        is_dull = request.path in _PROBES or (request.path.startswith(_HOOKS) and response.status_code < 400)
        (log.debug if is_dull else log.info)(
            "request",
            method=request.method,
            route=match.route if match else "",
            status=response.status_code,
            duration_ms=round((time.perf_counter() - begun) * 1000, 1),
        )
        return response

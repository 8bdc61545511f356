"""Every request has an id: in its answer, in the logs, in the audit events it leaves and in every problem it meets.

What belongs together over several services shares a correlation id: the trace of a W3C ``traceparent``, else
``X-Correlation-ID``, else the request's own id.
"""

import re
from collections.abc import Callable
from uuid import uuid4

from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bound_contextvars

from audit import trail

HEADER = "X-Request-ID"
# What another service says is taken on, if it can stand in a log line and is nobody's address.
_USABLE = re.compile(r"[A-Za-z0-9._:/+=-]{1,100}")
# Version, trace, span, flags (W3C Trace Context, 3.2.2). Zeros alone are no trace, and there is no version ff.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


class RequestIds:
    """Middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get(HEADER, "")
        request_id = given if _USABLE.fullmatch(given) else uuid4().hex
        correlation_id = _correlation_id(request) or request_id
        ids = {"request_id": request_id, "correlation_id": correlation_id}
        request.ids = ids  # type: ignore[attr-defined] # Django tells of what it refused after everybody has left
        with trail.of_request(request_id, correlation_id=correlation_id), bound_contextvars(**ids):
            response = self._get_response(request)
        response[HEADER] = request_id
        return response


def _correlation_id(request: HttpRequest) -> str:
    if trace := _TRACEPARENT.fullmatch(request.headers.get("traceparent", "")):
        return trace[1]
    given = request.headers.get("X-Correlation-ID", "")
    return given if _USABLE.fullmatch(given) else ""

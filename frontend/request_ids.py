"""Every request has an id: in its answer, in the logs, in the audit events it leaves and in every problem it meets."""

import re
from collections.abc import Callable
from uuid import uuid4

from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bound_contextvars

from audit import trail

HEADER = "X-Request-ID"
# What another service says is taken on, if it can stand in a log line.
_USABLE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,100}")


class RequestIds:
    """Middleware."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get(HEADER, "")
        request_id = given if _USABLE.fullmatch(given) else uuid4().hex
        with trail.of_request(request_id), bound_contextvars(request_id=request_id):
            response = self._get_response(request)
        response[HEADER] = request_id
        return response

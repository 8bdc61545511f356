"""What browsers report of the content security policy: a line in the log, so that a fault or an attack is seen."""

import json
import math
from contextlib import suppress
from threading import Lock
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import structlog
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

_log = structlog.get_logger(__name__)

MAX_BYTES = 16 * 1024
_TYPES = ("application/csp-report", "application/reports+json")
_MOST = 20  # of one request
_LONGEST = 200  # characters
# Lines of one process in a minute: whoever sends reports without end fills no disk with them.
LINES_A_MINUTE = 60


class _Written:
    """How many lines this process has written since ``since`` (monotonic seconds), and how many it has left out."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.since, self.lines, self.left_out = -math.inf, 0, 0

    def may(self) -> bool:
        with self._lock:
            now = monotonic()
            if now - self.since >= 60:
                if self.left_out:
                    _log.warning("policy_reports_left_out", reports=self.left_out)
                self.since, self.lines, self.left_out = now, 0, 0
            self.lines += 1
            self.left_out += self.lines > LINES_A_MINUTE
            return self.lines <= LINES_A_MINUTE


_written = _Written()


@csrf_exempt  # browsers send it without a token, and it changes nothing
@require_POST
def policy_reports(request: HttpRequest) -> HttpResponse:
    """204 for a report (``report-uri``, or the Reporting API's list), 413 above 16 KiB, 415 or 400 for anything else.

    Anybody may send one: what is logged is short, without queries, no more than ``LINES_A_MINUTE``, and is to be
    believed no further.
    """
    if request.content_type not in _TYPES:
        return HttpResponse(status=415)
    body = request.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        return HttpResponse(status=413)
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return HttpResponse(status=400)
    for each in (said if isinstance(said, list) else [said])[:_MOST]:
        report = _report(each)
        if report is None:
            return HttpResponse(status=400)
        if not _written.may():
            continue
        _log.warning(
            "policy_violated",
            directive=_word(report, "effective-directive", "effectiveDirective", "violated-directive"),
            blocked=_place(_word(report, "blocked-uri", "blockedURL")),
            page=_path(_word(report, "document-uri", "documentURL")),
        )
    return HttpResponse(status=204)


def _report(said: Any) -> dict[str, Any] | None:
    inner = said.get("csp-report", said.get("body")) if isinstance(said, dict) else None
    return inner if isinstance(inner, dict) else None


def _word(report: dict[str, Any], *names: str) -> str:
    found = next((report[name] for name in names if isinstance(report.get(name), str)), "")
    return found[:_LONGEST]


def _place(url: str) -> str:
    """Scheme and host, or the browser's word (``inline``, ``eval``): paths and queries may hold what is nobody's."""
    with suppress(ValueError):
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}" if parts.hostname else parts.scheme or parts.path
    return ""


def _path(url: str) -> str:
    """The path alone."""
    with suppress(ValueError):
        return urlsplit(url).path
    return ""

"""Logs: one event slug and its ids per line, as JSON or, for a terminal, in columns.

Ours hold numbers and slugs: no person's id, address or token, nor what somebody typed. An error goes into a line as it
is (``error=error``), never as its own words. What Django says of requests is put in the same form.
"""

import logging
import sys
from typing import Any

import structlog

from scheduler_project import tracebacks


def _errors_in_brief(_logger: Any, _level: str, line: Any) -> Any:
    """An error that a line holds as a value, whose words may quote somebody."""
    return {
        name: tracebacks.briefly(value) if isinstance(value, BaseException) else value for name, value in line.items()
    }


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.ExceptionRenderer(tracebacks.without_values),
    _errors_in_brief,
]

_OF_REQUESTS = ("django.request", "django.security.csrf")


def _route_instead_of_path(_logger: Any, _level: str, line: Any) -> Any:
    """Django tells of a refused or failed request by its path, in which a person's id may stand."""
    record = line.get("_record")
    request = getattr(record, "request", None)
    if request is None or not hasattr(request, "method") or not record.name.startswith(_OF_REQUESTS):
        return line
    match = getattr(request, "resolver_match", None)
    status = getattr(record, "status_code", 0)
    said = {
        "event": "request_failed" if status >= 500 else "request_refused",
        "status": status,
        "method": request.method,
        "route": match.route if match else "",
        **getattr(request, "ids", {}),
    }
    return {**line, **said}


def _task_instead_of_words(_logger: Any, _level: str, line: Any) -> Any:
    """Celery tells of a task that failed by the words of the error, which may quote somebody."""
    record = line.get("_record")
    told = getattr(record, "data", None)
    if record is None or record.name != "celery.app.trace" or not isinstance(told, dict):
        return line
    return {**line, "event": "task_failed", "task": told.get("name"), "task_id": told.get("id")}


# For what comes by the standard library, libraries' words included.
_FOREIGN: list[Any] = [_route_instead_of_path, _task_instead_of_words, *_SHARED]


def formatter(*, as_json: bool) -> logging.Formatter:
    """A line, as it is written to stderr."""
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_FOREIGN,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )


def configure(*, level: str, as_json: bool) -> None:
    """Send every logger of the process, ours and the libraries', through one formatter to stderr.

    ``level`` is a name of the logging module (``INFO``); an unknown one raises ``ValueError`` at start.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in (
        "axes",
        "botocore",
        "boto3",
        "urllib3",
        "asyncio",
        "celery.beat",
        "celery.worker.strategy",
        "celery.app.trace",
    ):
        logging.getLogger(chatty).setLevel(max(root.level, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )

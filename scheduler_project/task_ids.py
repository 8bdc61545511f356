"""The ids of a request or of a turn of beat go with every message, so that the lines of workers carry them too.

``request_id`` is there where a request began it, ``correlation_id`` always: beat's messages begin one each, and what a
tick hands out has the tick's. Workers add ``task`` and ``task_id``.
"""

from typing import Any, Final
from uuid import uuid4

from celery import signals
from structlog.contextvars import bind_contextvars, get_contextvars, reset_contextvars

# The name of the message's header. Celery has a correlation_id of its own, by which it answers.
HEADER: Final = "log_ids"
_PASSED_ON: Final = ("request_id", "correlation_id")


def connect() -> None:
    """From here on every message of the process carries them, and every task that it runs has them bound."""
    signals.before_task_publish.connect(_send_along)
    signals.task_prerun.connect(_bind)
    signals.task_postrun.connect(_unbind)


def _send_along(headers: dict[str, Any] | None = None, **_: Any) -> None:
    if headers is None or headers.get(HEADER):  # a retry has those of the first
        return
    bound = get_contextvars()
    ids = {name: bound[name] for name in _PASSED_ON if bound.get(name)}
    headers[HEADER] = {"correlation_id": uuid4().hex, **ids}


def _bind(task: Any, task_id: str, **_: Any) -> None:
    """Messages of old processes have none: theirs begins here. Whoever runs a task within himself has his own."""
    if task.request.is_eager:
        return
    given = task.request.get(HEADER)
    ids = given if isinstance(given, dict) else {}
    ids = {name: str(ids[name]) for name in _PASSED_ON if ids.get(name)}
    ids.setdefault("correlation_id", uuid4().hex)
    task.request.bound_ids = bind_contextvars(**ids, task=task.name, task_id=task_id)


def _unbind(task: Any, **_: Any) -> None:
    if bound := getattr(task.request, "bound_ids", None):
        reset_contextvars(**bound)

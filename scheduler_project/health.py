"""Whether a web process lives, and whether it may be given requests: ``/healthz`` and ``/readyz``.

Whoever asks is a proxy or an orchestrator, at the process's own address and by plain http: both are answered before
hosts, https and sessions are looked at. An answer names what is away and nothing else, no address and no error's words.

``/readyz`` is refused while the database is away or lacks migrations: no page works then. Redis is told of and does not
refuse: pages, the API and the ways to stop a send work without it, and it would be away for every web process at once.
A deployment that begins asks ``/readyz?all``, which takes nothing for granted.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse

from delivery import counters
from scheduler_project import brokers

# Real seconds for all questions together; a probe waits longer than that.
PATIENCE_S: Final = 2.0
OK: Final = "ok"
AWAY: Final = "away"
MISSING: Final = "missing"
_NEEDED: Final = ("database", "migrations")
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Asked(threading.Thread):
    """A question under way. ``answer``: what was said so far."""

    def __init__(self, question: Callable[[], str]) -> None:
        super().__init__(name="health", daemon=True)
        self._question = question
        self.answer = AWAY

    def run(self) -> None:
        self.answer = self._question()


class Look:
    """One question to a server that may be silent: asked by a thread of its own, one at a time, since it may hang."""

    def __init__(self, question: Callable[[], str]) -> None:
        self._question = question
        self._lock = threading.Lock()
        self._asked: Asked | None = None

    def begin(self) -> "Asked":
        """Ask, unless the last question still waits for its answer: a silent server holds one thread."""
        with self._lock:
            if self._asked is None or not self._asked.is_alive():
                self._asked = Asked(self._question)
                self._asked.start()
            return self._asked


class _Migrated:
    known = False


def database() -> str:
    """Of the migrations that this code knows too: asked until all are applied, and then never again. Those of newer
    code are no fault, so that old processes go on while new ones come."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if not _Migrated.known:
            executor = MigrationExecutor(connection)
            _Migrated.known = not executor.migration_plan(executor.loader.graph.leaf_nodes())
        return OK if _Migrated.known else MISSING
    except DatabaseError:
        return AWAY
    finally:
        connection.close()  # the thread's own


def redis_of_counters() -> str:
    try:
        counters.ping()
    except counters.CountersAway:
        return AWAY
    return OK


def broker() -> str:
    return OK if brokers.answers(settings.BROKER_URL) else AWAY


_LOOKS: Final = {"database": Look(database), "counters": Look(redis_of_counters), "broker": Look(broker)}


def state(looks: Mapping[str, Look], *, seconds: float) -> dict[str, str]:
    """``ok``, ``away`` or, of migrations, ``missing``; all within so many seconds."""
    asked = {name: look.begin() for name, look in looks.items()}
    deadline = time.monotonic() + seconds
    for each in asked.values():
        each.join(max(deadline - time.monotonic(), 0.0))
    said = {name: each.answer for name, each in asked.items()}
    return {**said, "database": OK if said["database"] == MISSING else said["database"], "migrations": said["database"]}


class Health:
    """Middleware in front of all others but those that count and number requests."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path == "/healthz":
            return HttpResponse("ok\n", content_type="text/plain", headers=_HEADERS)
        if request.path == "/readyz":
            return _readiness(asks_for_all="all" in request.GET)
        return self._get_response(request)


def _readiness(*, asks_for_all: bool) -> HttpResponse:
    said = state(_LOOKS, seconds=PATIENCE_S)
    is_ready = all(said[name] == OK for name in (said if asks_for_all else _NEEDED))
    return JsonResponse({"ready": is_ready, **said}, status=200 if is_ready else 503, headers=_HEADERS)

"""PgBouncer in transaction mode between the service and PostgreSQL: what goes by it, and what must not.

There a connection of ours has no session: each transaction may be carried out by another server process. The service
keeps nothing in one: locks, limits and temporary tables are those of a transaction, there is no LISTEN, and cursors and
prepared statements outlive none. What remains are settings of the connection, looked at where a pooler is seen:
``manage.py check --database default``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.db import DatabaseError, connection


def is_pooled() -> bool:
    """Whether another process answers than the one that PostgreSQL was signed in to: a pooler gives ids of its own.

    Raises ``DatabaseError``.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (answering,) = cursor.fetchone()
    signed_in_to: int = connection.connection.info.backend_pid
    return bool(answering != signed_in_to)


def check_pooled(
    app_configs: Sequence[Any] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Settings that need a session, where there is none."""
    if "default" not in (databases or ()):
        return []
    try:
        return list(_faults()) if is_pooled() else []
    except DatabaseError:
        return []  # that it is away is said by others


def _faults() -> Iterator[CheckMessage]:
    given: dict[str, Any] = settings.DATABASES["default"]
    options = given.get("OPTIONS", {})
    if not given.get("DISABLE_SERVER_SIDE_CURSORS"):
        yield _error(
            1,
            "Cursors are kept on the server, of which the next rows may be asked of another process.",
            "Set DISABLE_SERVER_SIDE_CURSORS in DATABASES.",
        )
    if options.get("prepare_threshold") is not None or options.get("server_side_binding"):
        yield _error(
            2,
            "Statements are prepared, and the next transaction's process does not know them.",
            "Take prepare_threshold and server_side_binding out of DATABASE_URL.",
        )
    for name in ("options", "assume_role", "pool"):
        if options.get(name):
            yield _error(
                3,
                f"{name} in DATABASE_URL is for a whole session: it is refused, or it holds for whoever comes next.",
                f"Take {name} out of DATABASE_URL; what is meant for the role, give to the role: ALTER ROLE ... SET.",
            )


def _error(number: int, said: str, hint: str) -> CheckMessage:
    return Error(said, hint=hint, id=f"scheduler_project.pooled.E{number:03}")

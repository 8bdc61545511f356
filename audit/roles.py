"""The application's role in the database: whoever has its password can add to the audit, and nothing else there.

Two roles are made. ``notification_app`` signs in. It is a member of ``notification_ledger``, which owns every other
table, because the ledger's days are tables that the service makes and drops; so it may do there what it likes. The
audit's tables, their triggers and their function stay with the role that migrates, of which it is no member, and so
does the list of migrations, which each migrate writes: a trigger there would run as the role that migrates.
"""

from typing import Any

import structlog
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection, transaction
from psycopg import sql

log = structlog.get_logger(__name__)

APP = "notification_app"
LEDGER = "notification_ledger"
TABLES = ("notification_audit", "notification_audit_seal", "notification_audit_export")
MIGRATIONS = "django_migrations"
# What the application may write of a row: its id and its transaction's number are the database's to give.
COLUMNS = (
    "action", "actor_id", "actor_label", "schedule_id", "payload_diff", "request_id", "correlation_id", "created_at",
)  # fmt: skip


@transaction.atomic
def grant(*, password: str = "") -> None:
    """Make the roles, or bring them up to what is written here; to be repeated after each migration that adds a table.

    ``password`` is the application's, left as it is where empty. The connection is that of the role which migrates: it
    needs CREATEROLE, and to own the tables and the database.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('notification roles'))")
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [[APP, LEDGER]])
        standing = {name for (name,) in cursor.fetchall()}
        app, ledger, migrations = sql.Identifier(APP), sql.Identifier(LEDGER), sql.Identifier(MIGRATIONS)
        for name, role in ((APP, app), (LEDGER, ledger)):
            if name not in standing:
                cursor.execute(sql.SQL("CREATE ROLE {}").format(role))
        for name, role, login in ((APP, app, True), (LEDGER, ledger, False)):
            if wrong := _wrong_attributes(cursor, name, login=login):
                cursor.execute(sql.SQL("ALTER ROLE {} " + " ".join(wrong)).format(role))
        if password:
            cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(app, sql.Literal(password)))
        cursor.execute(sql.SQL("GRANT {} TO {}").format(ledger, app))
        # So that whoever migrates may go on changing what he has handed over.
        cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(ledger))
        cursor.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(ledger))
        cursor.execute(sql.SQL("ALTER TABLE {} OWNER TO CURRENT_USER").format(migrations))
        cursor.execute(_HAND_OVER, [[*TABLES, MIGRATIONS], LEDGER])
        for statement in [row[0] for row in cursor.fetchall()]:
            cursor.execute(statement)
        cursor.execute(sql.SQL("REVOKE ALL ON {} FROM PUBLIC, {}, {}").format(migrations, app, ledger))
        cursor.execute(sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {}").format(migrations, app))
        cursor.execute(sql.SQL("GRANT USAGE ON SEQUENCE django_migrations_id_seq TO {}").format(app))
        for table in TABLES:
            named = sql.Identifier(table)
            cursor.execute(sql.SQL("REVOKE ALL ON {} FROM PUBLIC, {}, {}").format(named, app, ledger))
            cursor.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(named, app))
        columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        cursor.execute(sql.SQL("GRANT INSERT ({}) ON notification_audit TO {}").format(columns, app))
        cursor.execute(sql.SQL("GRANT USAGE ON SEQUENCE notification_audit_id_seq TO {}").format(app))
        cursor.execute(sql.SQL("GRANT INSERT ON notification_audit_seal, notification_audit_export TO {}").format(app))


def require_granted() -> None:
    """At the start of a process: it may read every table of ours. Raises ``ImproperlyConfigured``.

    The log says so where it could change the audit. The connection is closed again, since servers and workers fork. A
    database that is away is no reason not to start.
    """
    ours = [model._meta.db_table for model in apps.get_models(include_auto_created=True)]
    try:
        with connection.cursor() as cursor:
            cursor.execute(_CLOSED, [ours])
            closed = [name for (name,) in cursor.fetchall()]
        open_to_change = changeable()
    except DatabaseError:
        return
    finally:
        connection.close()
    if closed:
        raise ImproperlyConfigured(
            f"The role in DATABASE_URL may not read {', '.join(closed)}: run manage.py grant_roles as the role that"
            " migrates, after each migrate."
        )
    if open_to_change:
        remedy = f"manage.py grant_roles as the role that migrates, and {APP} in DATABASE_URL"
        log.warning("audit_can_be_changed", tables=open_to_change, remedy=remedy)


def changeable() -> list[str]:
    """The audit's tables that the connection's role could change: as their owner, a superuser, or by a right it has."""
    with connection.cursor() as cursor:
        cursor.execute(_CHANGEABLE, [list(TABLES)])
        return [name for (name,) in cursor.fetchall()]


def _wrong_attributes(cursor: Any, name: str, *, login: bool) -> list[str]:
    """What the role must be told to be. PostgreSQL lets superusers alone write ``NOSUPERUSER``, even where it is so."""
    wanted = {
        "rolsuper": ("SUPERUSER", False),
        "rolcreatedb": ("CREATEDB", False),
        "rolcreaterole": ("CREATEROLE", False),
        "rolreplication": ("REPLICATION", False),
        "rolbypassrls": ("BYPASSRLS", False),
        "rolinherit": ("INHERIT", True),
        "rolcanlogin": ("LOGIN", login),
    }
    cursor.execute(f"SELECT {', '.join(wanted)} FROM pg_roles WHERE rolname = %s", [name])
    standing = cursor.fetchone()
    return [
        word if is_wanted else f"NO{word}"
        for (word, is_wanted), is_so in zip(wanted.values(), standing, strict=True)
        if is_wanted != is_so
    ]


_CLOSED = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relname = ANY (%s) AND NOT has_table_privilege(c.oid, 'SELECT') ORDER BY 1"""

# Whoever may write a whole row of the audit chooses its id and its transaction too.
_CHANGEABLE = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'public' AND c.relname = ANY (%s)
  AND (pg_has_role(c.relowner, 'MEMBER') OR has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER')
       OR has_any_column_privilege(c.oid, 'UPDATE')
       OR c.relname = 'notification_audit' AND has_table_privilege(c.oid, 'INSERT'))
ORDER BY 1"""

# A sequence that belongs to a column goes with its table.
_HAND_OVER = """
SELECT format('ALTER TABLE %%I.%%I OWNER TO %%I', n.nspname, c.relname, r.ledger)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, (VALUES (%s::text[], %s::text)) AS r(audit, ledger)
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname <> ALL (r.audit)
  AND pg_get_userbyid(c.relowner) <> r.ledger
ORDER BY c.oid"""

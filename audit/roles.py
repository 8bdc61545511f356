"""The application's role in the database: whoever has its password can add to the audit, and nothing else there.

Two roles are made. ``notification_app`` signs in. It is a member of ``notification_ledger``, which owns every other
table, because the ledger's days are tables that the service makes and drops; so it may do there what it likes. The
audit's tables, their triggers and their function stay with the role that migrates, of which it is no member.
"""

from django.db import connection, transaction
from psycopg import sql

APP = "notification_app"
LEDGER = "notification_ledger"
TABLES = ("notification_audit", "notification_audit_seal", "notification_audit_export")
# What the application may write of a row: its id and its transaction's number are the database's to give.
COLUMNS = (
    "action", "actor_id", "actor_label", "schedule_id", "payload_diff", "request_id", "correlation_id", "created_at",
)  # fmt: skip


@transaction.atomic
def grant(*, password: str = "") -> None:
    """Make the roles, or bring them up to what is written here; to be repeated after each migration that adds a table.

    ``password`` is the application's, left as it is where empty. The connection is that of the role which migrates: it
    needs CREATEROLE, and to own the tables.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('notification roles'))")
        cursor.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [[APP, LEDGER]])
        standing = {name for (name,) in cursor.fetchall()}
        app, ledger = sql.Identifier(APP), sql.Identifier(LEDGER)
        for name, role in ((APP, app), (LEDGER, ledger)):
            if name not in standing:
                cursor.execute(sql.SQL("CREATE ROLE {}").format(role))
        safe = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT"
        cursor.execute(sql.SQL(f"ALTER ROLE {{}} LOGIN {safe}").format(app))
        cursor.execute(sql.SQL(f"ALTER ROLE {{}} NOLOGIN {safe}").format(ledger))
        if password:
            cursor.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(app, sql.Literal(password)))
        cursor.execute(sql.SQL("GRANT {} TO {}").format(ledger, app))
        # So that whoever migrates may go on changing what he has handed over.
        cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(ledger))
        cursor.execute(sql.SQL("GRANT USAGE, CREATE ON SCHEMA public TO {}").format(ledger))
        cursor.execute(_HAND_OVER, [list(TABLES), LEDGER])
        for statement in [row[0] for row in cursor.fetchall()]:
            cursor.execute(statement)
        for table in TABLES:
            named = sql.Identifier(table)
            cursor.execute(sql.SQL("REVOKE ALL ON {} FROM PUBLIC, {}, {}").format(named, app, ledger))
            cursor.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(named, app))
        columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        cursor.execute(sql.SQL("GRANT INSERT ({}) ON notification_audit TO {}").format(columns, app))
        cursor.execute(sql.SQL("GRANT USAGE ON SEQUENCE notification_audit_id_seq TO {}").format(app))
        cursor.execute(sql.SQL("GRANT INSERT ON notification_audit_seal, notification_audit_export TO {}").format(app))


# A sequence that belongs to a column goes with its table.
_HAND_OVER = """
SELECT format('ALTER TABLE %%I.%%I OWNER TO %%I', n.nspname, c.relname, r.ledger)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, (VALUES (%s::text[], %s::text)) AS r(audit, ledger)
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND c.relname <> ALL (r.audit)
  AND pg_get_userbyid(c.relowner) <> r.ledger
ORDER BY c.oid"""

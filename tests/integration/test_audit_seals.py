"""The audit cannot be changed by the application, and a change behind its back is found and named."""

from collections.abc import Iterator
from datetime import timedelta
from io import StringIO

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audit import keys, roles, seals, trail
from audit.models import Action, AuditEvent, Seal
from delivery import partitions, tasks
from tests.audits import conninfo, problem, record, tampering, verified
from tests.factories import NOW
from tests.roles import owner

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def app() -> Iterator[psycopg.Connection]:
    """A connection of the application's, past Django; the role was made twice by then."""
    with owner():
        roles.grant()
    with psycopg.connect(conninfo(), autocommit=True) as connected:
        yield connected


def test_the_tests_are_the_applications_role(app):
    """All of them: what the role lacks, some test would miss."""
    who = "SELECT session_user, current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
    with connection.cursor() as cursor:
        cursor.execute(who)
        assert cursor.fetchone() == app.execute(who).fetchone() == (roles.APP, roles.APP, False)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE notification_audit SET actor_id = 'user:2'",
        "DELETE FROM notification_audit",
        "TRUNCATE notification_audit",
        "ALTER TABLE notification_audit DISABLE TRIGGER append_only",
        "ALTER TABLE notification_audit DISABLE TRIGGER ALL",
        "DROP TRIGGER append_only ON notification_audit",
        "DROP FUNCTION notification_audit_refuse() CASCADE",
        "CREATE OR REPLACE FUNCTION notification_audit_refuse() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NULL; END'",
        "SET session_replication_role = replica",
        "ALTER TABLE notification_audit OWNER TO notification_app",
        "ALTER TABLE notification_audit RENAME TO elsewhere",
        "DROP TABLE notification_audit",
        "DROP SCHEMA public CASCADE",
        "SET ROLE notification_scheduler",
        "GRANT notification_scheduler TO notification_app",
        "CREATE RULE nothing AS ON INSERT TO notification_audit DO INSTEAD NOTHING",
        "CREATE TRIGGER mine BEFORE INSERT ON notification_audit EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "INSERT INTO notification_audit (id, action, actor_id, payload_diff, request_id, created_at)"
        " VALUES (7, 'a', 'b', '{}', '', now())",
        "INSERT INTO notification_audit (tx, action, actor_id, payload_diff, request_id, created_at)"
        " VALUES (1, 'a', 'b', '{}', '', now())",
        "UPDATE notification_audit_seal SET digest = ''",
        "DELETE FROM notification_audit_seal",
        "TRUNCATE notification_audit_seal",
        "UPDATE notification_audit_export SET version_id = ''",
        "DELETE FROM notification_audit_export",
        "SELECT setval('notification_audit_id_seq', 1)",
    ],
)
def test_the_applications_role_is_refused(app, statement):
    record()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(statement)
    assert AuditEvent.objects.get().actor_id == "user:1"


def test_the_applications_role_may_add_read_and_look_after_the_ledger(app, ledger_days):
    """Django's own statements, its partitions included."""
    (pk,) = record()
    assert AuditEvent.objects.get().pk == pk
    made = partitions.ensure_around(today=(NOW + timedelta(days=400)).date())
    assert made
    assert {*made} <= {*partitions.drop(before=(NOW + timedelta(days=450)).date())}
    partitions.ensure_around(today=NOW.date())
    app.execute("TRUNCATE delivery_delivery, delivery_failedattempt")
    tasks.seal_audit()
    assert Seal.objects.get().row_ids == [pk]
    assert "1 rows under 1 seals" in verified()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE notification_audit SET actor_id = 'user:2'",
        "DELETE FROM notification_audit WHERE id < 0",
        "TRUNCATE notification_audit",
        "DELETE FROM notification_audit_seal",
    ],
)
def test_the_triggers_refuse_a_superuser_who_has_not_disabled_them(statement):
    record()
    with owner(), pytest.raises(DatabaseError, match="append-only"), connection.cursor() as cursor:
        cursor.execute(statement)
    assert AuditEvent.objects.get().actor_id == "user:1"


def test_rows_are_sealed_once_and_the_chain_goes_on():
    first = record(5)
    (one, two, three) = seals.seal(now=NOW, limit=2)
    assert [one.row_ids, two.row_ids, three.row_ids] == [first[:2], first[2:4], first[4:]]
    assert (one.previous, two.previous) == (seals.START, one.digest)
    assert seals.seal(now=NOW) == []
    second = record()
    assert [each.row_ids for each in seals.seal(now=NOW)] == [second]
    record()
    assert "6 rows under 4 seals. 1 rows are younger than the last seal." in verified()


def test_a_transaction_of_more_rows_than_a_seal_holds_is_sealed_whole():
    entries = [trail.Entry(n, {}) for n in range(5)]
    trail.record_many(action=Action.OCCURRENCE_MISS, by="system:tick", now=NOW, entries=entries)
    after = record()
    assert [each.rows for each in seals.seal(now=NOW, limit=2)] == [5, 1]
    assert Seal.objects.get(number=2).row_ids == after


def test_a_late_commit_of_a_smaller_id_is_not_skipped():
    with psycopg.connect(conninfo()) as late:
        pk = late.execute(
            "INSERT INTO notification_audit (action, actor_id, payload_diff, request_id, created_at)"
            " VALUES ('sending.stop', 'user:9', '{}', '', now()) RETURNING id"
        ).fetchone()[0]
        (younger,) = record()
        assert pk < younger
        assert seals.seal(now=NOW) == []  # the younger one waits for the older to end
        late.commit()
        made = seals.seal(now=NOW)
    assert [each.row_ids for each in made] == [[pk, younger]]
    assert "2 rows under 1 seals. 0 rows" in verified()


def test_what_ended_before_a_running_transaction_began_is_sealed_meanwhile():
    (older,) = record()
    with psycopg.connect(conninfo()) as running:
        running.execute("SELECT pg_current_xact_id()")
        (younger,) = record()
        assert [each.row_ids for each in seals.seal(now=NOW)] == [[older]]
        running.rollback()
    assert [each.row_ids for each in seals.seal(now=NOW)] == [[younger]]


def test_only_one_seals_at_a_time():
    record()
    with psycopg.connect(conninfo()) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtext('notification_audit seals'))")
        assert seals.seal(now=NOW) == []
        other.rollback()
    assert len(seals.seal(now=NOW)) == 1


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE notification_audit SET payload_diff = '{{\"n\": 9}}' WHERE id = {2}", "row {2} was changed"),
        ("UPDATE notification_audit SET actor_label = 'x' WHERE id = {1}", "row {1} was changed"),
        (
            "UPDATE notification_audit SET created_at = created_at + interval '1 us' WHERE id = {5}",
            "row {5} was changed",
        ),
        ("DELETE FROM notification_audit WHERE id = {3}", "row {3} was removed"),
        ("DELETE FROM notification_audit", "row {0} was removed"),
        ("UPDATE notification_audit SET id = id + 1000 WHERE id = {4}", "row {4} was removed"),
        (
            "INSERT INTO notification_audit (id, tx, action, actor_id, payload_diff, request_id, created_at)"
            " SELECT 100000, tx, action, actor_id, payload_diff, request_id, created_at FROM notification_audit"
            " WHERE id = {1}",
            "row 100000 was added",
        ),
        (
            "UPDATE notification_audit a SET tx = b.tx FROM notification_audit b"
            " WHERE (a.id, b.id) IN (({1}, {0}), ({0}, {1}))",
            "row {1} was reordered",
        ),
        (
            "UPDATE notification_audit a SET payload_diff = b.payload_diff FROM notification_audit b"
            " WHERE (a.id, b.id) IN (({1}, {0}), ({0}, {1}))",
            "row {0} was changed",
        ),
        ("UPDATE notification_audit SET tx = -1 WHERE id = {7}", "row {7} was added: no transaction"),
        ("UPDATE notification_audit SET tx = 1::bigint << 60 WHERE id = {7}", "row {7} was added: no transaction"),
        ("DELETE FROM notification_audit_seal WHERE number = 1", "seal 1 is gone"),
        ("UPDATE notification_audit_seal SET row_hashes = '' WHERE number = 2", "seal 2 was changed"),
        ("UPDATE notification_audit_seal SET sealed_at = now() WHERE number = 2", "seal 2 was changed"),
        ("UPDATE notification_audit_seal SET signature = repeat('0', 128) WHERE number = 1", "seal 1 is not signed"),
        ("UPDATE notification_audit_seal SET end_tx = end_tx + 1 WHERE number = 1", "seal 1 was changed"),
    ],
)
def test_whatever_a_superuser_changed_is_named(statement, told):
    ids = record(6)
    seals.seal(now=NOW, limit=3)
    ids += record(2)  # not sealed yet
    assert "6 rows under 2 seals. 2 rows" in verified()
    with tampering() as execute:
        execute(statement.format(*ids))
    assert told.format(*ids) in problem()


def test_a_seal_made_anew_with_another_key_is_found(settings):
    record(3)
    seals.seal(now=NOW)
    former = keys.public_key()
    with tampering() as execute:
        execute("DELETE FROM notification_audit_seal")
        execute("UPDATE notification_audit SET actor_id = 'user:2'")
    settings.AUDIT_SEAL_KEY = "ab" * 32
    seals.seal(now=NOW)
    assert "1 seals" in verified()  # whoever has the key in use can seal whatever he likes
    with pytest.raises(CommandError, match="seal 1 is not signed by a known key"):
        call_command("audit_verify", public_key=[former], stdout=StringIO())


def test_seals_of_a_former_key_stay_good(settings):
    record()
    seals.seal(now=NOW)
    former = keys.public_key()
    settings.AUDIT_SEAL_KEY = Ed25519PrivateKey.generate().private_bytes_raw().hex()
    record()
    seals.seal(now=NOW)
    assert "seal 1 is not signed by a known key" in problem()
    settings.AUDIT_FORMER_KEYS = [former]
    assert "2 rows under 2 seals" in verified()


def test_the_public_key_is_there_to_be_written_down(capsys):
    call_command("audit_verify", show_public_key=True)
    assert capsys.readouterr().out.strip() == keys.public_key()
    assert [*keys.read_public_keys([keys.public_key()])] == [*keys.known_keys([])]


@pytest.mark.parametrize("key", ["", "00", "not base64 at all", "AAAA"])
def test_without_a_key_nothing_is_sealed(settings, key):
    settings.AUDIT_SEAL_KEY = key
    record()
    with pytest.raises(ImproperlyConfigured, match="AUDIT_SEAL_KEY"):
        seals.seal(now=NOW)


def test_a_database_restored_from_a_dump_says_what_to_do():
    record()
    seals.seal(now=NOW)
    with tampering() as execute:
        execute("UPDATE notification_audit_seal SET end_tx = 1::bigint << 40")
    with pytest.raises(seals.OutOfStep, match="pg_resetwal"):
        seals.seal(now=NOW)


def test_the_clock_seals_every_minute():
    record(2)
    tasks.seal_audit()
    assert Seal.objects.get().rows == 2


def test_seals_are_read_some_at_a_time():
    for _ in range(45):
        record()
        seals.seal(now=timezone.now())
    with CaptureQueriesContext(connection) as queries:
        assert "45 rows under 45 seals" in verified()
    read = [each["sql"] for each in queries if "row_hashes" in each["sql"]]
    assert ["LIMIT 20" in sql for sql in read] == [True] * 4

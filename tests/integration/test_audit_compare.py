"""What is done to the database, or to the bucket, after the export is found by comparing both.

moto lets a lock be shortened or lifted, which S3 refuses: so it plays the server that is worse than it says.
"""

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from audit import compare, export, seals
from audit.bucket import Bucket
from audit.models import ExportedSeal
from audit.verify import Tampered
from tests.audits import first_version, problem, seal_each, tampering, verified

pytestmark = pytest.mark.django_db(transaction=True)
DAYS = 30


def reseal(key: str | None = None) -> None:
    """A superuser who has the key in use writes a past of his own."""
    with tampering() as execute:
        execute("UPDATE notification_audit SET actor_id = 'user:2' WHERE id = (SELECT min(id) FROM notification_audit)")
        execute("DELETE FROM notification_audit_seal")
        execute("DELETE FROM notification_audit_export")
    seals.seal(now=timezone.now(), limit=1)


def test_a_past_that_was_sealed_anew_with_the_right_key_is_found(bucket):
    seal_each(3)
    export.export(bucket, now=timezone.now())
    reseal()
    call_command("audit_verify", export=False, stdout=StringIO())  # by the database alone nothing is to be seen
    assert "seal 1 was made anew: another one was exported" in problem()


def test_a_tail_of_seals_removed_with_its_rows_is_found(bucket):
    ids = seal_each(3)
    export.export(bucket, now=timezone.now())
    with tampering() as execute:
        execute(f"DELETE FROM notification_audit WHERE id >= {ids[1]}")
        execute("DELETE FROM notification_audit_seal WHERE number >= 2")
        execute("DELETE FROM notification_audit_export WHERE number >= 2")
    call_command("audit_verify", export=False, stdout=StringIO())
    assert "seal 2, made " in (told := problem())
    assert "was exported and is gone from the database" in told


def test_everything_removed_is_found(bucket):
    seal_each(2)
    export.export(bucket, now=timezone.now())
    with tampering() as execute:
        execute("TRUNCATE notification_audit, notification_audit_seal, notification_audit_export")
    assert "seal 1, made " in problem()


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        (lambda c, v: c.put_object(Bucket=v["Bucket"], Key=v["Key"], Body=b"{}"), "object of seal 2 was written again"),
        (lambda c, v: c.delete_object(Bucket=v["Bucket"], Key=v["Key"]), "object of seal 2 was deleted"),
        (
            lambda c, v: c.put_object_retention(
                **v, Retention={"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=400)}
            ),
            "object of seal 2 is not locked any more",
        ),
        (
            lambda c, v: c.put_object_retention(
                **v, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) - timedelta(days=1)}
            ),
            "object of seal 2 is not locked any more",
        ),
    ],
    ids=["overwritten", "deleted", "another mode", "shortened"],
)
def test_what_is_done_to_an_object_is_named(bucket, bucket_client, bucket_name, deed, told):
    seal_each(3)
    export.export(bucket, now=timezone.now())
    deed(bucket_client, first_version(bucket_client, bucket_name, 2))
    assert told in problem()


def lift(client: Any, version: dict[str, Any]) -> None:
    """What S3 would refuse and moto doesn't: the object is gone, with its lock."""
    day = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) - timedelta(days=1)}
    client.put_object_retention(**version, Retention=day)
    client.delete_object(**version)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_object_that_is_gone_is_named(bucket, bucket_client, bucket_name, number):
    seal_each(3)
    export.export(bucket, now=timezone.now())
    lift(bucket_client, first_version(bucket_client, bucket_name, number))
    assert f"the object of seal {number} is gone from the bucket" in problem()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda body: body.replace(b'"user:1"', b'"user:2"'), "it is not what its own digest says"),
        (lambda body: body.replace(b'"rows": 1', b'"rows": 2'), None),
        (lambda body: body.replace(b'"signature": "', b'"signature": "00'), "its signature is another"),
        (lambda body: body.splitlines()[0], "it can't be read"),
        (lambda body: body + b"{}\n", "it can't be read"),
        (lambda body: b"\xff" + body, "it can't be read"),
        (lambda body: b"[]\n", "it can't be read"),
    ],
)
def test_an_object_that_was_changed_is_named(bucket, bucket_client, bucket_name, change, told):
    """By a server that lets one, for S3 doesn't."""
    seal_each(2)
    export.export(bucket, now=timezone.now())
    version = first_version(bucket_client, bucket_name, 2)
    body = bucket_client.get_object(**version)["Body"].read()
    lift(bucket_client, version)
    bucket_client.put_object(
        Bucket=bucket_name,
        Key=version["Key"],
        Body=change(body),
        ChecksumAlgorithm="SHA256",
        ObjectLockMode="COMPLIANCE",
        ObjectLockRetainUntilDate=datetime.now(UTC) + timedelta(days=DAYS),
    )
    if told:
        assert f"the object of seal 2 was changed: {told}" in problem()
    else:
        assert "2 seals" in verified()  # a number that says nothing: the rows are counted


def test_what_is_exported_while_the_bucket_is_listed_is_not_missed(bucket, monkeypatch):
    seal_each()
    export.export(bucket, now=timezone.now())
    listed = Bucket.versions

    def meanwhile(self: Bucket, key: str = "") -> Any:
        found = list(listed(self, key))
        if not key:
            seal_each()
            export.export(bucket, now=timezone.now())
        return iter(found)

    monkeypatch.setattr(Bucket, "versions", meanwhile)
    assert "The export is as the database has it: 1 seals." in verified()
    assert ExportedSeal.objects.count() == 2


@pytest.mark.parametrize("days", [1, 365])
def test_objects_may_go_once_their_own_days_are_over_whatever_is_set_by_then(
    bucket, bucket_client, bucket_name, settings, days
):
    now = timezone.now()
    for _ in range(2):
        seal_each()
    export.export(bucket, now=now)
    settings.AUDIT_EXPORT_DAYS = days
    lifted = first_version(bucket_client, bucket_name, 1)
    later = now + timedelta(days=DAYS + 1)
    assert compare.compare(bucket, now=later).objects == 2
    lift(bucket_client, lifted)
    assert compare.compare(bucket, now=later).objects == 1
    with pytest.raises(Tampered, match="the object of seal 1 is gone"):
        compare.compare(bucket, now=now + timedelta(days=DAYS - 1))


def test_an_object_of_before_there_were_notes_of_its_lock_is_judged_by_the_lock_itself(bucket, settings):
    seal_each()
    export.export(bucket, now=timezone.now())
    with tampering() as execute:
        execute("UPDATE notification_audit_export SET locked_until = NULL")
    settings.AUDIT_EXPORT_DAYS = 365
    assert compare.compare(bucket, now=timezone.now() + timedelta(days=DAYS + 1)).objects == 1

"""Sealed rows lie in a bucket that locks them, and what is done to the database or the bucket afterwards is found.

The bucket is moto's, over HTTP. It refuses to delete a locked version, to write where something lies if asked so, and
locked objects in a bucket without Object Lock. It does not refuse, as S3 does, to shorten or lift a lock, and checks no
checksum: here both stand for a server that is worse than it says, which the service has to find out by itself.
"""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from django.core.management import CommandError, call_command
from django.utils import timezone
from moto.server import ThreadedMotoServer

from audit import export, seals
from audit.bucket import Bucket, BucketError, fault
from audit.models import AuditEvent, ExportedSeal, Seal
from delivery import metrics
from scheduler_project import tasks
from tests.audits import problem, record, tampering, verified
from tests.http_double import HttpDouble, Reply, garbage, half, reset, silence

pytestmark = pytest.mark.django_db(transaction=True)
DAYS = 30


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 of moto's on this machine; its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(s3, monkeypatch) -> Any:
    """Whoever has the bucket's credentials."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return boto3.client("s3", endpoint_url=s3, region_name="eu-central-1")


@pytest.fixture
def name(request, client) -> str:
    """A bucket with Object Lock of the test's own."""
    name = "audit-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    client.create_bucket(
        Bucket=name,
        ObjectLockEnabledForBucket=True,
        CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
    )
    return name


@pytest.fixture
def bucket(settings, s3, name) -> Bucket:
    settings.AUDIT_EXPORT_BUCKET, settings.AUDIT_EXPORT_ENDPOINT, settings.AUDIT_EXPORT_DAYS = name, s3, DAYS
    return Bucket.from_settings()


def seal(number: int = 1) -> list[int]:
    """Rows of a transaction each under a seal each; their ids."""
    ids = record(number)
    seals.seal(now=timezone.now(), limit=1)
    return ids


def exported(client: Any, name: str) -> list[str]:
    return [each["Key"] for each in client.list_objects_v2(Bucket=name).get("Contents", [])]


def first_version(client: Any, name: str, number: int) -> dict[str, Any]:
    found = client.list_object_versions(Bucket=name, Prefix=f"audit/{export.key_of(number)}")["Versions"]
    return {"Bucket": name, "Key": found[-1]["Key"], "VersionId": found[-1]["VersionId"]}


def test_each_seal_becomes_a_locked_object_of_the_very_bytes_that_were_hashed(bucket, client, name):
    ids = seal(3)
    before = timezone.now()
    assert export.export(bucket, now=before) == 3
    assert exported(client, name) == [f"audit/{export.key_of(number)}" for number in (1, 2, 3)]
    found = client.get_object(Bucket=name, Key=f"audit/{export.key_of(2)}")
    _head, row, end = found["Body"].read().split(b"\n")
    assert (hashlib.sha256(row).digest(), end) == (bytes(Seal.objects.get(number=2).row_hashes), b"")
    assert f'"id":{ids[1]},'.encode() in row
    assert found["ObjectLockMode"] == "COMPLIANCE"
    assert abs(found["ObjectLockRetainUntilDate"] - before - timedelta(days=DAYS)) < timedelta(seconds=2)
    assert ExportedSeal.objects.get(number=2).version_id == found["VersionId"]


def test_nobody_removes_what_was_exported(bucket, client, name):
    seal()
    export.export(bucket, now=timezone.now())
    first = first_version(client, name, 1)
    for given in ({}, {"BypassGovernanceRetention": True}):
        with pytest.raises(ClientError, match="AccessDenied"):
            client.delete_object(**first, **given)
    with pytest.raises(ClientError, match="BucketNotEmpty"):
        client.delete_bucket(Bucket=name)
    assert "The export is as the database has it: 1 seals." in verified()


def test_the_next_turn_goes_on_where_the_last_ended(bucket):
    seal(2)
    assert export.export(bucket, now=timezone.now()) == 2
    assert export.export(bucket, now=timezone.now()) == 0
    seal()
    assert "1 seals are not exported yet" in verified()
    assert export.export(bucket, now=timezone.now()) == 1
    assert "The export is as the database has it: 3 seals." in verified()


def test_a_turn_ends_after_its_time(bucket):
    seal(2)
    assert export.export(bucket, now=timezone.now(), seconds=0) == 0


@pytest.mark.parametrize("died", ["before the note", "while it was noted by another"])
def test_who_died_between_bucket_and_note_finds_his_own_object(bucket, client, name, monkeypatch, died):
    seal(2)

    class Died(Exception):
        pass

    def die(**_):
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(ExportedSeal.objects, "create", die)
        with pytest.raises(Died):
            export.export(bucket, now=timezone.now())
    assert exported(client, name) == [f"audit/{export.key_of(1)}"]
    assert not ExportedSeal.objects.exists()
    if died != "before the note":
        ExportedSeal.objects.create(number=1, version_id="another's", exported_at=timezone.now())
    export.export(bucket, now=timezone.now())
    assert [each.number for each in ExportedSeal.objects.order_by("number")] == [1, 2]
    assert len(client.list_object_versions(Bucket=name)["Versions"]) == 2
    verified()


def test_two_who_export_at_once_write_an_object_once(bucket, client, name, monkeypatch):
    seal(3)
    put, nested = Bucket.put, []

    def slow(self, key, body, *, until):
        if not nested:  # another whole turn, just before ours writes
            nested.append(key)
            assert export.export(bucket, now=timezone.now()) == 3
        return put(self, key, body, until=until)

    monkeypatch.setattr(Bucket, "put", slow)
    export.export(bucket, now=timezone.now())
    assert len(client.list_object_versions(Bucket=name)["Versions"]) == ExportedSeal.objects.count() == 3


def test_a_row_changed_after_the_seal_is_not_exported(bucket, client, name):
    (pk,) = seal()
    with tampering() as execute:
        execute(f"UPDATE notification_audit SET actor_id = 'user:2' WHERE id = {pk}")
    with pytest.raises(CommandError, match=f"row {pk} was changed"):
        call_command("audit_export")
    assert exported(client, name) == []


def test_anothers_object_in_the_place_is_told(bucket, client, name):
    seal()
    client.put_object(Bucket=name, Key=f"audit/{export.key_of(1)}", Body=b"{}\n")
    with pytest.raises(CommandError, match="another object lies in the bucket"):
        call_command("audit_export")
    assert not ExportedSeal.objects.exists()


def reseal(key: str | None = None) -> None:
    """A superuser who has the key in use writes a past of his own."""
    with tampering() as execute:
        execute("UPDATE notification_audit SET actor_id = 'user:2' WHERE id = (SELECT min(id) FROM notification_audit)")
        execute("DELETE FROM notification_audit_seal")
        execute("DELETE FROM notification_audit_export")
    seals.seal(now=timezone.now(), limit=1)


def test_a_past_that_was_sealed_anew_with_the_right_key_is_found(bucket):
    seal(3)
    export.export(bucket, now=timezone.now())
    reseal()
    call_command("audit_verify", export=False, stdout=StringIO())  # by the database alone nothing is to be seen
    assert "seal 1 was made anew: another one was exported" in problem()


def test_a_tail_of_seals_removed_with_its_rows_is_found(bucket):
    ids = seal(3)
    export.export(bucket, now=timezone.now())
    with tampering() as execute:
        execute(f"DELETE FROM notification_audit WHERE id >= {ids[1]}")
        execute("DELETE FROM notification_audit_seal WHERE number >= 2")
        execute("DELETE FROM notification_audit_export WHERE number >= 2")
    call_command("audit_verify", export=False, stdout=StringIO())
    assert "seal 2, made " in (told := problem())
    assert "was exported and is gone from the database" in told


def test_everything_removed_is_found(bucket):
    seal(2)
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
def test_what_is_done_to_an_object_is_named(bucket, client, name, deed, told):
    seal(3)
    export.export(bucket, now=timezone.now())
    deed(client, first_version(client, name, 2))
    assert told in problem()


def lift(client: Any, version: dict[str, Any]) -> None:
    """What S3 would refuse and moto doesn't: the object is gone, with its lock."""
    day = {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) - timedelta(days=1)}
    client.put_object_retention(**version, Retention=day)
    client.delete_object(**version)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_object_that_is_gone_is_named(bucket, client, name, number):
    seal(3)
    export.export(bucket, now=timezone.now())
    lift(client, first_version(client, name, number))
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
def test_an_object_that_was_changed_is_named(bucket, client, name, change, told):
    """By a server that lets one, for S3 doesn't."""
    seal(2)
    export.export(bucket, now=timezone.now())
    version = first_version(client, name, 2)
    body = client.get_object(**version)["Body"].read()
    lift(client, version)
    client.put_object(
        Bucket=name,
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
    seal()
    export.export(bucket, now=timezone.now())
    listed = Bucket.versions

    def meanwhile(self: Bucket, key: str = "") -> Any:
        found = list(listed(self, key))
        if not key:
            seal()
            export.export(bucket, now=timezone.now())
        return iter(found)

    monkeypatch.setattr(Bucket, "versions", meanwhile)
    assert "The export is as the database has it: 1 seals." in verified()
    assert ExportedSeal.objects.count() == 2


def test_objects_may_go_once_their_days_are_over(bucket, client, name, settings):
    long_ago = timezone.now() - timedelta(days=DAYS + 1)
    record()
    seals.seal(now=long_ago)
    seal()
    export.export(bucket, now=timezone.now())
    lift(client, first_version(client, name, 1))
    assert "The export is as the database has it: 1 seals." in verified()
    settings.AUDIT_EXPORT_DAYS = DAYS + 2
    assert "the object of seal 1 is gone" in problem()


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("AUDIT_EXPORT_ENDPOINT", "http://127.0.0.1:9", "Could not connect"),
        ("AUDIT_EXPORT_BUCKET", "nobodys-bucket", "NoSuchBucket"),
        ("AUDIT_EXPORT_BUCKET", "without-lock", "Bucket is missing ObjectLockConfiguration"),
        ("AUDIT_EXPORT_PROFILE", "nobodys", "nobodys"),
        ("AUDIT_EXPORT_ENDPOINT", "nowhere", "nowhere"),
    ],
)
def test_a_bucket_that_does_not_serve_is_told_and_disturbs_nothing(
    bucket, client, settings, setting, value, told, caplog
):
    seal()
    if value == "without-lock":
        client.create_bucket(Bucket=value, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    setattr(settings, setting, value)
    with pytest.raises(CommandError, match="was not exported: ") as raised:
        call_command("audit_export")
    assert told in str(raised.value)
    tasks.export_audit()
    assert "audit_not_exported" in caplog.text
    seal()
    assert Seal.objects.count() == 2
    if value == "without-lock":
        client.delete_bucket(Bucket=value)
    else:
        with pytest.raises(CommandError, match="can't be compared") as raised:
            call_command("audit_verify", stdout=StringIO())
        assert raised.value.returncode == 2
    assert AuditEvent.objects.count() == 2


@pytest.mark.parametrize(
    "fault", [Reply(403, b""), Reply(503, b"<html>"), Reply(200, b"what?"), silence, half, garbage, reset]
)
def test_a_bucket_that_fails_in_any_way_is_asked_once_and_left_for_the_next_turn(bucket, settings, monkeypatch, fault):
    seal()
    monkeypatch.setattr("audit.bucket.READ_S", 0.3)
    with HttpDouble() as double:
        if isinstance(fault, Reply):
            double.answer = lambda _request: fault
        else:
            double.failure = fault
        settings.AUDIT_EXPORT_ENDPOINT = double.url
        with pytest.raises(CommandError, match="The audit was not exported: writing 000000000001"):
            call_command("audit_export")
        assert double.connections == 1
    settings.AUDIT_EXPORT_ENDPOINT = bucket._client.meta.endpoint_url
    call_command("audit_export")
    assert ExportedSeal.objects.count() == 1
    verified()


def test_a_bucket_that_takes_an_object_without_locking_it_is_not_believed(bucket, client, name, monkeypatch):
    seal()
    original = bucket._client.put_object
    lock = {"ObjectLockMode", "ObjectLockRetainUntilDate"}

    def unlocked(**given: Any) -> Any:
        return original(**{key: value for key, value in given.items() if key not in lock})

    with monkeypatch.context() as patched:
        patched.setattr(bucket._client, "put_object", unlocked)
        with pytest.raises(BucketError, match="took it without locking it"):
            export.export(bucket, now=timezone.now())
    with pytest.raises(BucketError, match="without a lock"):
        export.export(Bucket.from_settings(), now=timezone.now())
    assert not ExportedSeal.objects.exists()


def test_the_check_of_a_deployment_asks_the_bucket(bucket, client, settings):
    assert fault() == ""
    settings.AUDIT_EXPORT_BUCKET = "locks-nothing"
    client.create_bucket(Bucket="locks-nothing", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    assert fault() == "The bucket locks-nothing has no Object Lock."
    settings.AUDIT_EXPORT_BUCKET = "nobodys"
    assert "NoSuchBucket" in fault()


def test_metrics_tell_what_waits(bucket):
    seal()
    record()
    before = metrics.page(now=timezone.now).decode()
    assert "audit_unsealed_rows 1.0" in before
    assert float(before.split("\naudit_oldest_unexported_seconds ")[1].split("\n")[0]) > 0
    export.export(bucket, now=timezone.now())
    assert "audit_oldest_unexported_seconds 0.0" in metrics.page(now=timezone.now).decode()


def test_without_a_bucket_nothing_is_exported(settings):
    settings.AUDIT_EXPORT_BUCKET = ""
    seal()
    tasks.export_audit()
    assert not ExportedSeal.objects.exists()
    assert "were not compared with exported ones" in verified()
    with pytest.raises(CommandError, match="AUDIT_EXPORT_BUCKET is not set"):
        call_command("audit_verify", export=True, stdout=StringIO())

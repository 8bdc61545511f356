"""Sealed rows go into a bucket that locks them, whatever becomes of the bucket or the process in the middle.

The bucket is moto's, over HTTP. It refuses to delete a locked version, to write where something lies if asked so, and
locked objects in a bucket without Object Lock. It does not refuse, as S3 does, to shorten or lift a lock, and checks no
checksum: here both stand for a server that is worse than it says, which the service has to find out by itself.
"""

import hashlib
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from botocore.exceptions import ClientError
from django.core.management import CommandError, call_command
from django.utils import timezone

from audit import export, seals
from audit.bucket import Bucket, BucketAway, BucketError, fault
from audit.models import AuditEvent, ExportedSeal, Seal
from delivery import metrics
from scheduler_project import tasks
from tests.audits import exported, first_version, record, seal_each, tampering, verified
from tests.http_double import HttpDouble, Reply, garbage, half, reset, silence

pytestmark = pytest.mark.django_db(transaction=True)
DAYS = 30


def test_each_seal_becomes_a_locked_object_of_the_very_bytes_that_were_hashed(bucket, bucket_client, bucket_name):
    ids = seal_each(3)
    before = timezone.now()
    assert export.export(bucket, now=before) == 3
    assert exported(bucket_client, bucket_name) == [f"audit/{export.key_of(number)}" for number in (1, 2, 3)]
    found = bucket_client.get_object(Bucket=bucket_name, Key=f"audit/{export.key_of(2)}")
    _head, row, end = found["Body"].read().split(b"\n")
    assert (hashlib.sha256(row).digest(), end) == (bytes(Seal.objects.get(number=2).row_hashes), b"")
    assert f'"id":{ids[1]},'.encode() in row
    assert found["ObjectLockMode"] == "COMPLIANCE"
    assert abs(found["ObjectLockRetainUntilDate"] - before - timedelta(days=DAYS)) < timedelta(seconds=2)
    assert ExportedSeal.objects.get(number=2).version_id == found["VersionId"]


def test_nobody_removes_what_was_exported(bucket, bucket_client, bucket_name):
    seal_each()
    export.export(bucket, now=timezone.now())
    first = first_version(bucket_client, bucket_name, 1)
    for given in ({}, {"BypassGovernanceRetention": True}):
        with pytest.raises(ClientError, match="AccessDenied"):
            bucket_client.delete_object(**first, **given)
    with pytest.raises(ClientError, match="BucketNotEmpty"):
        bucket_client.delete_bucket(Bucket=bucket_name)
    assert "The export is as the database has it: 1 seals." in verified()


def test_the_next_turn_goes_on_where_the_last_ended(bucket):
    seal_each(2)
    assert export.export(bucket, now=timezone.now()) == 2
    assert export.export(bucket, now=timezone.now()) == 0
    seal_each()
    assert "1 seals are not exported yet" in verified()
    assert export.export(bucket, now=timezone.now()) == 1
    assert "The export is as the database has it: 3 seals." in verified()


def test_a_turn_ends_after_its_time(bucket):
    seal_each(2)
    assert export.export(bucket, now=timezone.now(), seconds=0) == 0


@pytest.mark.parametrize("died", ["before the note", "while it was noted by another"])
def test_who_died_between_bucket_and_note_finds_his_own_object(bucket, bucket_client, bucket_name, monkeypatch, died):
    seal_each(2)

    class Died(Exception):
        pass

    def die(**_):
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(ExportedSeal.objects, "create", die)
        with pytest.raises(Died):
            export.export(bucket, now=timezone.now())
    assert exported(bucket_client, bucket_name) == [f"audit/{export.key_of(1)}"]
    assert not ExportedSeal.objects.exists()
    if died != "before the note":
        ExportedSeal.objects.create(number=1, version_id="another's", exported_at=timezone.now())
    export.export(bucket, now=timezone.now())
    assert [each.number for each in ExportedSeal.objects.order_by("number")] == [1, 2]
    assert len(bucket_client.list_object_versions(Bucket=bucket_name)["Versions"]) == 2
    verified()


def test_two_who_export_at_once_write_an_object_once(bucket, bucket_client, bucket_name, monkeypatch):
    seal_each(3)
    put, nested = Bucket.put, []

    def slow(self, key, body, *, until):
        if not nested:  # another whole turn, just before ours writes
            nested.append(key)
            assert export.export(bucket, now=timezone.now()) == 3
        return put(self, key, body, until=until)

    monkeypatch.setattr(Bucket, "put", slow)
    export.export(bucket, now=timezone.now())
    assert len(bucket_client.list_object_versions(Bucket=bucket_name)["Versions"]) == ExportedSeal.objects.count() == 3


def test_a_row_changed_after_the_seal_is_not_exported(bucket, bucket_client, bucket_name):
    (pk,) = seal_each()
    with tampering() as execute:
        execute(f"UPDATE notification_audit SET actor_id = 'user:2' WHERE id = {pk}")
    with pytest.raises(CommandError, match=f"row {pk} was changed"):
        call_command("audit_export")
    assert exported(bucket_client, bucket_name) == []


def test_anothers_object_in_the_place_is_told(bucket, bucket_client, bucket_name):
    seal_each()
    bucket_client.put_object(Bucket=bucket_name, Key=f"audit/{export.key_of(1)}", Body=b"{}\n")
    with pytest.raises(CommandError, match="another object lies in the bucket"):
        call_command("audit_export")
    assert not ExportedSeal.objects.exists()


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
    bucket, bucket_client, settings, setting, value, told, caplog
):
    seal_each()
    if value == "without-lock":
        bucket_client.create_bucket(Bucket=value, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    setattr(settings, setting, value)
    with pytest.raises(CommandError, match="was not exported: ") as raised:
        call_command("audit_export")
    assert told in str(raised.value)
    tasks.export_audit()
    assert "audit_not_exported" in caplog.text
    seal_each()
    assert Seal.objects.count() == 2
    if value == "without-lock":
        bucket_client.delete_bucket(Bucket=value)
    else:
        with pytest.raises(CommandError, match="can't be compared") as raised:
            call_command("audit_verify", stdout=StringIO())
        assert raised.value.returncode == 2
    assert AuditEvent.objects.count() == 2


@pytest.mark.parametrize(
    "fault", [Reply(403, b""), Reply(503, b"<html>"), Reply(200, b"what?"), silence, half, garbage, reset]
)
def test_a_bucket_that_fails_in_any_way_is_asked_once_and_left_for_the_next_turn(bucket, settings, monkeypatch, fault):
    seal_each()
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


def test_a_bucket_that_takes_an_object_without_locking_it_is_not_believed(
    bucket, bucket_client, bucket_name, monkeypatch
):
    seal_each()
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


def test_the_check_of_a_deployment_asks_the_bucket(bucket, bucket_client, settings):
    assert fault() == ""
    settings.AUDIT_EXPORT_BUCKET = "locks-nothing"
    bucket_client.create_bucket(
        Bucket="locks-nothing", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    assert fault() == "The bucket locks-nothing has no Object Lock."
    settings.AUDIT_EXPORT_BUCKET = "nobodys"
    assert "NoSuchBucket" in fault()


def test_a_bucket_that_can_not_be_asked_is_no_fault_of_its_own(bucket, settings):
    settings.AUDIT_EXPORT_ENDPOINT = "http://127.0.0.1:9"
    with pytest.raises(BucketAway, match="asking for its Object Lock"):
        fault()


def test_verifying_says_when_nothing_was_exported_for_a_quarter_of_an_hour(bucket):
    record()
    seals.seal(now=timezone.now() - timedelta(minutes=14))
    call_command("audit_verify", stdout=StringIO())
    export.export(bucket, now=timezone.now())
    record()
    seals.seal(now=timezone.now() - timedelta(minutes=16))
    with pytest.raises(CommandError, match="1 seals are not exported yet") as raised:
        call_command("audit_verify", stdout=StringIO())
    assert raised.value.returncode == 2


@pytest.mark.parametrize(("name", "value"), [("AUDIT_SEAL_KEY", ""), ("AUDIT_EXPORT_BUCKET", "")])
def test_settings_that_lack_something_are_no_tampering(bucket, settings, name, value):
    setattr(settings, name, value)
    with pytest.raises(CommandError) as raised:
        call_command("audit_verify", export=True, stdout=StringIO())
    assert raised.value.returncode == 3


def test_metrics_tell_what_waits(bucket):
    seal_each()
    record()
    before = metrics.page(now=timezone.now).decode()
    assert "audit_unsealed_rows 1.0" in before
    assert float(before.split("\naudit_oldest_unexported_seconds ")[1].split("\n")[0]) > 0
    export.export(bucket, now=timezone.now())
    assert "audit_oldest_unexported_seconds 0.0" in metrics.page(now=timezone.now).decode()


def test_without_a_bucket_nothing_is_exported(settings):
    settings.AUDIT_EXPORT_BUCKET = ""
    seal_each()
    tasks.export_audit()
    assert not ExportedSeal.objects.exists()
    assert "were not compared with exported ones" in verified()
    with pytest.raises(CommandError, match="AUDIT_EXPORT_BUCKET is not set"):
        call_command("audit_verify", export=True, stdout=StringIO())

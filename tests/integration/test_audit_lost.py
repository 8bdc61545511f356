"""What a restored database has lost of the audit is read from the bucket, where nobody could remove it: over moto."""

from datetime import timedelta

import pytest
from django.conf import settings as project
from django.core.management import CommandError, call_command
from django.utils import timezone

from audit import export, keys, lost, seals, trail
from audit.models import Action, Seal
from audit.verify import Tampered
from delivery import continuity
from schedules import recipients
from schedules.models import Recipient
from schedules.preferences import PERSON
from tests.audits import first_version, tampering
from tests.factories import people

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("same_numbers")]


def sealed(action: str, *, by: str = "user:1", **changes: object) -> None:
    trail.record(action=action, by=by, now=timezone.now(), changes=changes)
    seals.seal(now=timezone.now(), limit=1)


def set_back(*, last_seal: int) -> None:
    """The audit as it was when that seal was made."""
    with tampering() as execute:
        execute(
            f"DELETE FROM notification_audit WHERE tx >= (SELECT end_tx FROM notification_audit_seal"
            f" WHERE number = {last_seal})"
        )
        execute(f"DELETE FROM notification_audit_seal WHERE number > {last_seal}")
        execute(f"DELETE FROM notification_audit_export WHERE number > {last_seal}")


def events(bucket, since):
    return list(lost.events(bucket, keys.known_keys(project.AUDIT_FORMER_KEYS), since=since))


def test_what_was_exported_and_is_not_there_any_more_is_told_in_order(bucket):
    sealed(Action.SENDING_STOP, scope=[None, "all"])
    since = timezone.now()
    sealed(Action.RECIPIENT_ERASE, recipient=17)
    sealed(Action.SENDING_GO, by="user:2", scope=["all", None])
    export.export(bucket, now=timezone.now())
    set_back(last_seal=1)
    sealed(Action.SENDING_STOP, scope=[None, "all"])  # by the restored database: seal 2 of another time
    assert Seal.objects.count() == 2
    erased, went = events(bucket, since)
    assert (erased.action, erased.changes, erased.schedule_id) == ("recipient.erase", {"recipient": 17}, None)
    assert (went.action, went.actor_id) == ("sending.go", "user:2")
    assert since < erased.at < went.at
    assert events(bucket, timezone.now()) == []


def test_what_is_here_and_was_sealed_later_is_not_lost(bucket):
    """The backup is of the minute between a row and its seal."""
    trail.record(action=Action.RECIPIENT_ERASE, by="user:1", now=timezone.now(), changes={"recipient": 17})
    since = timezone.now()
    seals.seal(now=since + timedelta(seconds=30), limit=1)
    export.export(bucket, now=timezone.now())
    with tampering() as execute:
        execute("DELETE FROM notification_audit_seal")
        execute("DELETE FROM notification_audit_export")
    assert events(bucket, since) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda body: body.replace(b'"number": 2', b'"number": 3'), "object of seal 2 is not signed by a known key"),
        (lambda body: body.replace(b'"signature": "', b'"signature": "0'), "object of seal 2"),
        (lambda body: body.replace(b"recipient.erase", b"recipient.saved"), "object of seal 2 is not signed"),
        (lambda body: b"[]\n", "object of seal 2 can't be read"),
    ],
    ids=["another number", "another signature", "another row", "no object"],
)
def test_what_is_not_signed_is_not_believed(bucket, bucket_client, bucket_name, change, told):
    """Somebody who may write there must not have people erased."""
    sealed(Action.SENDING_STOP)
    since = timezone.now()
    sealed(Action.RECIPIENT_ERASE, recipient=17)
    export.export(bucket, now=timezone.now())
    version = first_version(bucket_client, bucket_name, 2)
    body = bucket_client.get_object(**version)["Body"].read()
    bucket_client.put_object_retention(
        **version, Retention={"Mode": "COMPLIANCE", "RetainUntilDate": since - timedelta(days=1)}
    )
    bucket_client.delete_object(**version)
    bucket_client.put_object(Bucket=bucket_name, Key=version["Key"], Body=change(body), ChecksumAlgorithm="SHA256")
    set_back(last_seal=1)
    with pytest.raises(Tampered, match=told):
        events(bucket, since)


def test_a_key_that_nobody_names_any_more_is_asked_for_and_nothing_is_done(bucket, service, settings):
    since = timezone.now()
    sealed(Action.RECIPIENT_ERASE, recipient=17)
    export.export(bucket, now=timezone.now())
    set_back(last_seal=0)
    settings.AUDIT_SEAL_KEY = "0d" * 32
    with pytest.raises(CommandError, match=r"nothing was done: the object of seal 1 is not signed by a known key"):
        call_command("settle_restored", "--restored-to", since.isoformat())
    assert continuity.restored() is None


def test_who_was_erased_or_unsubscribed_in_the_lost_time_is_so_again(bucket, service, capsys):
    service.at(timezone.now())
    gone, silent, other = people(3)
    assert continuity.look(now=service.now)
    since = service.now
    service.at(since + timedelta(minutes=1))
    trail.record(action=Action.RECIPIENT_ERASE, by="user:1", now=service.now, changes={"recipient": gone.pk})
    recipients.update(recipient_id=silent.pk, changes={"consent": {"email": False}}, by=PERSON, now=service.now)
    seals.seal(now=service.now, limit=10)
    export.export(bucket, now=timezone.now())
    set_back(last_seal=0)
    Recipient.objects.filter(pk=silent.pk).update(consent={})
    call_command("settle_restored", "--restored-to", since.isoformat())
    told = capsys.readouterr().out
    assert f"recipient.erase of person {gone.pk} by user:1 (is done again)" in told
    assert f"recipient.save of person {silent.pk} by " in told
    assert "(taken for a no to everything)" in told
    assert "1 erased again, 1 sent nothing more until they say otherwise" in told
    assert not Recipient.objects.filter(pk=gone.pk).exists()
    assert Recipient.objects.get(pk=silent.pk).consent["email"] is False
    assert Recipient.objects.get(pk=other.pk).consent == {}

"""People come in through every door and get every kind of message; then the database's own files are read."""

import json
import threading
from io import StringIO
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.urls import reverse
from django.utils import timezone
from redis import Redis

from delivery import test_sends
from delivery.models import Circuit, Delivery, InboxMessage, OutboxMessage, State, TestSend
from scheduler_project.volumes import Volume
from schedules import encryption, rotation
from schedules.imports import uploads
from schedules.imports.recipients import Format
from schedules.migrations._encrypting import encrypt_texts
from schedules.models import Device, Recipient, RecipientImport
from schedules.permissions import Role
from tests import roles
from tests.accounts import signed_in
from tests.api import Api, token
from tests.factories import BY, NOW, DeviceFactory, RecipientFactory, ScheduleFactory, TemplateFactory, people
from tests.service import MINUTE, states

pytestmark = pytest.mark.django_db(transaction=True)

OTHER = "5f" * 32


def found_on_disk(words):
    """Which of the words stand in the files of tables, indexes and write-ahead log."""
    with roles.owner(), connection.cursor() as cursor:
        cursor.execute("CHECKPOINT")
        cursor.execute("SHOW data_directory")
        folder = Path(cursor.fetchone()[0])
        cursor.execute("SELECT oid FROM pg_database WHERE datname = current_database()")
        (database,) = cursor.fetchone()
    files = [*(folder / "base" / str(database)).iterdir(), *(folder / "pg_wal").iterdir(), *folder.glob("global/*")]
    found = set()
    for file in files:
        if file.is_file():
            data = file.read_bytes()
            found |= {word for word in words if word.encode() in data}
    return found


def found_in_redis(words):
    found = set()
    for url in {django_settings.COUNTERS_URL, django_settings.BROKER_URL}:
        with Redis.from_url(url) as redis:
            for key in redis.scan_iter(count=1000):
                said = key + (redis.dump(key) or b"")
                found |= {word for word in words if word.encode() in said}
    return found


def test_no_address_token_or_message_is_in_the_files_of_the_database(service, caplog, capfd):
    """Whole messages: what a template says and a profile's attributes lie in clear, so capitals make the message's."""
    mark = token_hex(6)
    addresses = {door: f"{mark}-{door}@planted.example" for door in ("put", "bulk", "file", "page", "test")}
    tokens = {door: f"{mark}-{door}-device-token" for door in ("put", "device", "bulk", "file")}
    attributes = {"first_name": f"{mark}-in-clear"}
    api, admin = Api(token()), signed_in(Role.ADMIN)

    def person(door):
        devices = [{"platform": "ios", "token": tokens[door]}]
        return {"email": addresses[door], "attributes": attributes, "devices": devices}

    assert api.call("PUT", f"recipients/{mark}-put", person("put"), headers={"If-None-Match": "*"}).status_code == 201
    device = {"platform": "ios", "token": tokens["device"]}
    kept = {"Idempotency-Key": mark}
    assert api.call("POST", f"recipients/{mark}-put/devices", device, headers=kept).status_code == 201
    lines = [json.dumps({"externalId": f"{mark}-{door}", **person(door)}).encode() for door in ("bulk", "file")]
    sent = {"content_type": "application/x-ndjson", "headers": {"Idempotency-Key": f"{mark}-bulk"}}
    assert api.call("POST", "recipients:bulk", lines[0], **sent).status_code == 200
    upload = uploads.keep(name="people.ndjson", chunks=[lines[1]], format=Format.NDJSON, by=BY, now=NOW)
    uploads.run(import_id=upload.pk, now=NOW)
    uploads.confirm(import_id=upload.pk, by=BY, now=NOW)
    uploads.run(import_id=upload.pk, now=NOW)
    assert RecipientImport.objects.get().state == "done"
    uploads.keep(name="people.ndjson", chunks=[lines[1]], format=Format.NDJSON, by=BY, now=NOW)  # one that still waits
    form = {
        "external_id": f"{mark}-page", "email": addresses["page"], "attributes-TOTAL_FORMS": 1,
        "attributes-INITIAL_FORMS": 0, "attributes-0-name": "first_name", "attributes-0-kind": "text",
        "attributes-0-value": attributes["first_name"],
    }  # fmt: skip
    assert admin.post(reverse("recipient-new"), form).status_code == 302
    template = TemplateFactory(subject="For {{ first_name|upper }}", text="Dear {{ first_name|upper }}")
    for channel in ("email", "push", "in_app"):
        schedule = ScheduleFactory(channel=channel, template_id=template.pk)
    service.step()
    assert (OutboxMessage.objects.count(), InboxMessage.objects.count()) == (4 + 3, 4)
    test_sends.ask(
        schedule_id=ScheduleFactory(template_id=template.pk, run_at=NOW + MINUTE).pk,
        external_id=f"{mark}-put", to=addresses["test"], by=BY, now=NOW,
    )  # fmt: skip
    for wish, _ in test_sends.take_waiting():
        test_sends.send(test_send_id=wish, now=NOW)
    assert TestSend.objects.get().subject == f"For {attributes['first_name'].upper()}"
    assert {each.email for each in Recipient.objects.all()} == set(addresses.values()) - {addresses["test"]}
    assert states(schedule) == {"sent": 4}

    secret = [*addresses.values(), *tokens.values(), attributes["first_name"].upper()]
    in_clear = attributes["first_name"]
    assert found_on_disk([*secret, in_clear]) == {in_clear}, "what lies in clear is found, else nothing would be"
    assert found_in_redis(secret) == set()
    out, err = capfd.readouterr()
    assert not [word for word in secret if word in f"{out}{err}{caplog.text}"]


def test_columns_that_were_in_clear_are_encrypted_piece_by_piece_and_read_as_before(monkeypatch):
    monkeypatch.setattr("schedules.migrations._encrypting.CHUNK", 2)
    table = "schedules_recipient"
    RecipientFactory.create_batch(5, email="")
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} ADD COLUMN email_plain text NOT NULL DEFAULT ''")
        try:
            cursor.execute(f"UPDATE {table} SET email_plain = 'Person' || id || '@example.com' WHERE id % 5 <> 0")
            made = iter([encryption.index_of_address] * 3)  # then it is killed
            with pytest.raises(StopIteration):
                encrypt_texts(cursor, table, {"email": lambda text: next(made)(text)})
            cursor.execute(f"SELECT count(*) FROM {table} WHERE email_plain <> ''")
            assert cursor.fetchone()[0] == 2
            assert encrypt_texts(cursor, table, {"email": encryption.index_of_address})
            assert not encrypt_texts(cursor, table, {"email": encryption.index_of_address})
            cursor.execute(f"SELECT count(*) FROM {table} WHERE email_plain <> ''")
            assert cursor.fetchone()[0] == 0
        finally:
            cursor.execute(f"ALTER TABLE {table} DROP COLUMN email_plain")
    found = {each.pk: each.email for each in Recipient.objects.all()}
    assert found == {pk: f"Person{pk}@example.com" if pk % 5 else "" for pk in found}
    pk = next(pk for pk in found if found[pk])
    within = encryption.range_of_address(found[pk].upper())
    assert Recipient.objects.get(email_index__range=within).pk == pk


# Rotation


@pytest.fixture
def rotated(settings):
    """Under the former key there are people with devices; the settings have a new one in front of it."""
    made = people(1_200)
    Device.objects.bulk_create(DeviceFactory.build(recipient=each) for each in made[:10])
    settings.ENCRYPTION_KEYS = [OTHER, *settings.ENCRYPTION_KEYS]
    return settings


def outdated():
    return sum(rotation.outdated(column) for column in rotation.columns())


def rotate_keys(*arguments):
    told = StringIO()
    call_command("rotate_keys", *arguments, stdout=told, stderr=told)
    return told.getvalue()


def test_after_a_rotation_the_former_key_is_not_needed(rotated):
    before = set(Recipient.objects.values_list("pk", "email", "version", "updated_at"))
    assert outdated() == 1_210
    former = encryption.keyset().key_ids[1]
    told = rotate_keys()
    assert "Encrypted anew: 1,210." in told
    assert f"Under the former key {former}: 0, so it may be taken out." in told
    rotated.ENCRYPTION_KEYS = [OTHER]
    assert set(Recipient.objects.values_list("pk", "email", "version", "updated_at")) == before
    assert Device.objects.filter(token_index=encryption.index_of_token(Device.objects.first().token)).count() == 1
    assert "Encrypted anew: 0." in rotate_keys()


def test_a_rotation_that_is_killed_goes_on_where_it_was(rotated):
    def killed(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rotation.rotate(progress=killed)
    assert outdated() == 710
    assert len({each.email for each in Recipient.objects.all()}) == 1_200
    assert rotation.rotate().done == 710
    assert outdated() == 0


def test_values_that_nobody_can_read_are_named_and_the_others_are_rotated(rotated):
    bad, foreign = Recipient.objects.order_by("pk")[:2]
    keys = encryption.Keys((bytes(32),), bytes(range(32)))
    unknown = encryption.Keyset(keys).encrypt(b"anna@example.com", b"schedules_recipient.email")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE schedules_recipient SET email = overlay(email placing '\\x00'::bytea from 20) WHERE id = %s",
            [bad.pk],
        )
        cursor.execute("UPDATE schedules_recipient SET email = %s WHERE id = %s", [unknown, foreign.pk])
    told = StringIO()
    with pytest.raises(CommandError, match="2 values can't be decrypted"):
        call_command("rotate_keys", stdout=StringIO(), stderr=told)
    assert f"schedules_recipient.email, id {bad.pk}: " in told.getvalue()
    assert f"schedules_recipient.email, id {foreign.pk}: " in told.getvalue()
    assert "ENCRYPTION_KEYS" in told.getvalue()
    assert outdated() == 2


def test_rows_that_somebody_holds_are_not_waited_for(rotated, monkeypatch):
    monkeypatch.setattr(rotation, "_PAUSE_S", 0.0)
    held = Recipient.objects.first()
    with psycopg.connect(**_address()) as other:
        other.execute("SELECT FROM schedules_recipient WHERE id = %s FOR UPDATE", [held.pk])
        with pytest.raises(CommandError, match="1 values were held"):
            rotate_keys()
    assert "Encrypted anew: 1." in rotate_keys()


def test_a_send_goes_on_beside_a_rotation(rotated, service):
    schedule = ScheduleFactory()

    def rotate():
        try:
            rotation.rotate()
        finally:
            connections.close_all()

    beside = threading.Thread(target=rotate)
    service.open()
    beside.start()
    service.send(rounds=20)
    beside.join()
    assert states(schedule) == {"sent": 1_200}
    assert {each.to for each in OutboxMessage.objects.all()} == {each.email for each in Recipient.objects.all()}
    rotation.rotate()
    rotated.ENCRYPTION_KEYS = [OTHER]
    assert len({each.to for each in OutboxMessage.objects.all()}) == 1_200


def test_another_key_of_the_indexes_is_brought_in_by_making_them_anew(rotated):
    device = Device.objects.first()
    rotated.BLIND_INDEX_KEY = "a0" * 32
    assert not Device.objects.filter(token_index=encryption.index_of_token(device.token)).exists()
    rotate_keys("--reindex")
    assert Device.objects.get(token_index=encryption.index_of_token(device.token)).pk == device.pk
    within = encryption.range_of_address(device.recipient.email)
    assert Recipient.objects.get(email_index__range=within).pk == device.recipient_id


# What lies in clear


def test_folders_on_disks_that_nobody_is_seen_to_encrypt_are_named(monkeypatch):
    seen = []

    def look(folder):
        seen.append(folder)
        return Volume.UNKNOWN if len(seen) == 2 else Volume.ENCRYPTED

    monkeypatch.setattr("scheduler_project.management.commands.check_volumes.volume_of", look)
    told = StringIO()
    with roles.owner(), pytest.raises(CommandError, match="LUKS"):
        call_command("check_volumes", stdout=told)
    assert f"write-ahead log, {seen[1]}: not seen to be encrypted" in told.getvalue()
    assert (seen[1] / "PG_VERSION").exists()
    told = StringIO()
    call_command("check_volumes", stdout=told)  # the application's role, which is not told where the files are
    assert "Only a superuser" in told.getvalue()


# What a sender does with what it can't read


@pytest.mark.parametrize("channel", ["email", "push"])
def test_a_missing_key_keeps_people_waiting_and_costs_them_nothing(service, provider, settings, channel):
    keys = settings.ENCRYPTION_KEYS
    DeviceFactory()
    schedule = ScheduleFactory(channel=channel)
    settings.ENCRYPTION_KEYS = [OTHER]
    service.step()
    row = Delivery.objects.get()
    assert (row.state, row.reason, row.attempt) == (State.PENDING, "key_unknown", 0)
    assert not provider.calls
    settings.ENCRYPTION_KEYS = [OTHER, *keys]
    service.after(MINUTE).step()
    assert states(schedule) == {"sent": 1}
    assert Delivery.objects.get().attempt == 1


def test_where_nobody_can_be_read_the_channel_is_held_and_says_so(service, provider, settings):
    keys = settings.ENCRYPTION_KEYS
    people(30)
    schedule = ScheduleFactory()
    settings.ENCRYPTION_KEYS = [OTHER]
    service.step()
    assert Circuit.objects.get().reason == "key_unknown"
    assert "a key is missing here" in signed_in(Role.ANALYST).get("/schedules/").content.decode()
    settings.ENCRYPTION_KEYS = [OTHER, *keys]
    Circuit.objects.update(probe_at=timezone.now() - MINUTE)
    service.after(MINUTE).step()
    service.after(MINUTE).step()
    assert states(schedule) == {"sent": 30}
    assert not Circuit.objects.exists()


def test_a_changed_address_is_one_persons_failure_with_a_reason(service, provider):
    people(3)
    schedule = ScheduleFactory()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE schedules_recipient a SET email = b.email FROM schedules_recipient b"
            " WHERE a.id = (SELECT min(id) FROM schedules_recipient) AND b.id = a.id + 1"
        )
        cursor.execute(
            "UPDATE schedules_recipient SET email = substr(email, 1, 30) WHERE id = (SELECT max(id)"
            " FROM schedules_recipient)"
        )
    service.step()
    assert states(schedule) == {"sent": 2, "failed": 1}
    assert Delivery.objects.get(state=State.FAILED).reason == "unreadable"


def _address():
    given = connection.get_connection_params()
    return {name: given[name] for name in ("dbname", "user", "password", "host", "port") if name in given}

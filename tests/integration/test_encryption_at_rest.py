"""People come in through every door and get every kind of message; then the database's own files are read."""

import json
import threading
from importlib import import_module
from io import StringIO
from pathlib import Path
from secrets import token_hex
from types import SimpleNamespace

import psycopg
import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, OperationalError, connection, connections
from django.urls import reverse
from redis import Redis

from delivery import test_sends
from delivery.models import InboxMessage, OutboxMessage, TestSend
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
            encrypt_texts(cursor, table, {"email": encryption.index_of_address})
            cursor.execute(f"SELECT count(*) FROM {table} WHERE email_plain <> ''")
            assert cursor.fetchone()[0] == 0
        finally:
            cursor.execute(f"ALTER TABLE {table} DROP COLUMN email_plain")
    found = {each.pk: each.email for each in Recipient.objects.all()}
    assert found == {pk: f"Person{pk}@example.com" if pk % 5 else "" for pk in found}
    pk = next(pk for pk in found if found[pk])
    within = encryption.range_of_address(found[pk].upper())
    assert Recipient.objects.get(email_index__range=within).pk == pk


def test_a_migration_that_was_killed_before_it_rewrote_the_tables_does_so_when_it_runs_again(monkeypatch):
    migration = import_module("schedules.migrations.0014_encrypt")
    editor = SimpleNamespace(connection=connection)
    people(3, email="")

    def no_room(cursor, table):
        raise OperationalError("No space left on device")

    def file():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_relation_filenode('schedules_recipient')")
            return cursor.fetchone()[0]

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE schedules_recipient ADD COLUMN email_plain text NOT NULL DEFAULT 'a@example.com'")
        cursor.execute("ALTER TABLE schedules_device ADD COLUMN token_plain text")
        try:
            with monkeypatch.context() as patched:
                patched.setattr(migration, "rewrite", no_room)
                with pytest.raises(OperationalError):
                    migration.encrypt(None, editor)
            assert {each.email for each in Recipient.objects.all()} == {"a@example.com"}
            before = file()
            migration.encrypt(None, editor)
            assert file() != before
        finally:
            cursor.execute("ALTER TABLE schedules_recipient DROP COLUMN email_plain")
            cursor.execute("ALTER TABLE schedules_device DROP COLUMN token_plain")


def test_no_column_takes_a_value_in_clear():
    """As a process of an older version would write it: a text that PostgreSQL takes for bytes."""
    DeviceFactory()
    refused = set()
    for column in rotation.columns():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c'",
                [column.table],
            )
            if any(f"substr({name}, 1, 1)" in rule for (rule,) in cursor for name in (column.name, f'"{column.name}"')):
                refused.add(f"{column.table}.{column.name}")
    assert refused == {f"{column.table}.{column.name}" for column in rotation.columns()}
    for statement in (
        "UPDATE schedules_recipient SET email = 'a@b.c', email_index = gen_random_uuid()",
        "UPDATE schedules_device SET token = 'a-token'",
    ):
        with connection.cursor() as cursor, pytest.raises(IntegrityError):
            cursor.execute(statement)


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
            "UPDATE schedules_recipient SET email = set_byte(email, 20, get_byte(email, 20) # 1) WHERE id = %s",
            [bad.pk],
        )
        cursor.execute("UPDATE schedules_recipient SET email = %s WHERE id = %s", [unknown, foreign.pk])
    told = StringIO()
    with pytest.raises(CommandError, match="2 values can't be decrypted"):
        call_command("rotate_keys", stdout=StringIO(), stderr=told)
    assert f"schedules_recipient.email, id {bad.pk}: " in told.getvalue()
    assert f"schedules_recipient.email, id {foreign.pk}: " in told.getvalue()
    assert "ENCRYPTION_KEYS" in told.getvalue()
    assert "schedules_recipient.email, unreadable: 1" in told.getvalue()
    assert "schedules_recipient.email, key_unknown: 1" in told.getvalue()
    assert outdated() == 2


def test_of_a_key_that_is_lost_the_values_are_counted_and_the_first_ones_named(rotated, monkeypatch):
    monkeypatch.setattr(rotation, "_PAUSE_S", 0.0)
    rotated.ENCRYPTION_KEYS = [OTHER]
    with psycopg.connect(**_address()) as other:
        other.execute("SELECT FROM schedules_recipient WHERE id = (SELECT max(id) FROM schedules_recipient) FOR UPDATE")
        result = rotation.rotate()  # goes over the table again and again for the row that is held
    assert result.unreadable == {
        ("schedules_recipient", "email", "key_unknown"): 1_199,
        ("schedules_device", "token", "key_unknown"): 10,
    }
    assert len(result.examples) == rotation.EXAMPLES
    assert result.held == 1


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


def test_devices_that_were_registered_again_under_the_new_key_of_the_indexes_stand_there_once_again(rotated):
    one, two = Device.objects.order_by("pk")[:2]
    former = rotated.BLIND_INDEX_KEY
    assert rotation.stale_indexes() == []
    rotated.BLIND_INDEX_KEY = "a0" * 32
    again = DeviceFactory(recipient=two.recipient, token=one.token)
    assert rotation.stale_indexes() == ["schedules_recipient.email_index", "schedules_device.token_index"]
    assert "stood there twice, of which the newer one stays: 1." in rotate_keys("--reindex")
    assert not Device.objects.filter(pk=one.pk).exists()
    assert Device.objects.get(token_index=encryption.index_of_token(one.token)).pk == again.pk
    assert Device.objects.count() == 10
    assert rotation.stale_indexes() == []
    # And back, when a device has been registered once more under the key before.
    rotated.BLIND_INDEX_KEY = former
    newest = DeviceFactory(recipient=one.recipient, token=one.token)
    rotate_keys("--reindex")
    assert Device.objects.get(token_index=encryption.index_of_token(one.token)).pk == newest.pk
    assert Device.objects.count() == 10


def test_a_process_that_starts_with_another_key_of_the_indexes_says_so(rotated, caplog):
    rotation.tell_stale()
    assert "blind_index_key_changed" not in caplog.text
    rotated.BLIND_INDEX_KEY = "a0" * 32
    rotation.tell_stale()
    assert "blind_index_key_changed" in caplog.text
    assert "schedules_device.token_index" in caplog.text


def _address():
    given = connection.get_connection_params()
    return {name: given[name] for name in ("dbname", "user", "password", "host", "port") if name in given}

"""Encrypt addresses, device tokens and uploaded files. Stop the service for it; ``_encrypting`` says more."""

from django.db import migrations

from schedules import encryption
from schedules.fields import place
from schedules.migrations._encrypting import encrypt_texts, rewrite

FILES = "schedules_recipientimportchunk"


def encrypt(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        encrypt_texts(cursor, "schedules_recipient", {"email": encryption.index_of_address})
        encrypt_texts(cursor, "schedules_device", {"token": encryption.index_of_token}, nothing="NULL")
        _encrypt_files(cursor)
        for table in ("schedules_recipient", "schedules_device", FILES):
            rewrite(cursor, table)


def _encrypt_files(cursor):
    of = place(FILES, "data")
    cursor.execute(f"SELECT id FROM {FILES} ORDER BY id")
    for (pk,) in cursor.fetchall():
        cursor.execute(f"SELECT data FROM {FILES} WHERE id = %s", [pk])
        data = bytes(cursor.fetchone()[0])
        try:
            encryption.keyset().decrypt(data, of)
        except encryption.Undecryptable:  # not yet done
            kept = encryption.keyset().encrypt(data, of)
            cursor.execute(f"UPDATE {FILES} SET data = %s WHERE id = %s", [kept, pk])


class Migration(migrations.Migration):

    atomic = False

    dependencies = [("schedules", "0013_room_for_ciphertext")]

    operations = [migrations.RunPython(encrypt)]

"""Encrypt rendered messages and where they went. Stop the service for it; ``_encrypting`` says more."""

from django.db import migrations

from schedules import encryption
from schedules.migrations._encrypting import encrypt_texts, rewrite

TABLES = {
    "delivery_inboxmessage": {"title": None, "body": None},
    "delivery_outboxmessage": {"to": encryption.index_of_address, "subject": None, "text": None, "html": None},
    "delivery_testsend": {"to": encryption.index_of_address, "subject": None, "detail": None},
}


def encrypt(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        for table, columns in TABLES.items():
            encrypt_texts(cursor, table, columns)
            rewrite(cursor, table)


class Migration(migrations.Migration):

    atomic = False

    dependencies = [("delivery", "0009_room_for_ciphertext")]

    operations = [migrations.RunPython(encrypt)]

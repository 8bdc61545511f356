"""Rendered messages and where they went are to be encrypted (0010); what was in clear is set aside for that."""

from django.db import migrations

from schedules import fields


def aside(model, column, **given):
    """The column in clear gets another name, and one that is encrypted its own."""
    return [
        migrations.RenameField(model_name=model, old_name=column, new_name=f"{column}_plain"),
        migrations.AddField(model_name=model, name=column, field=fields.EncryptedTextField(default="", **given)),
    ]


def index(model):
    return migrations.AddField(
        model_name=model,
        name="to_index",
        field=fields.BlindIndexField(editable=False, is_address=True, null=True, of="to"),
    )


class Migration(migrations.Migration):

    dependencies = [("delivery", "0008_audit_seals"), ("schedules", "0015_nothing_in_clear")]

    operations = [
        *aside("inboxmessage", "title", blank=True),
        *aside("inboxmessage", "body", blank=True),
        *aside("outboxmessage", "to"),
        index("outboxmessage"),
        *aside("outboxmessage", "subject", blank=True),
        *aside("outboxmessage", "text", blank=True),
        *aside("outboxmessage", "html", blank=True),
        *aside("testsend", "to", blank=True, max_length=320),
        index("testsend"),
        *aside("testsend", "subject", blank=True, max_length=998),
        *aside("testsend", "detail", blank=True, max_length=400),
    ]

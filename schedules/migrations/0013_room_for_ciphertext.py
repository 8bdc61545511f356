"""Addresses, device tokens and uploaded files are to be encrypted (0014); what was in clear is set aside for that.

The new columns refuse a text in clear, such as a process of the version before would go on writing.
"""

from django.db import migrations, models

from schedules import fields


class Migration(migrations.Migration):

    dependencies = [("schedules", "0012_erased_people")]

    operations = [
        migrations.RemoveIndex(model_name="recipient", name="recipient_no_email_idx"),
        migrations.RenameField(model_name="recipient", old_name="email", new_name="email_plain"),
        migrations.AddField(
            model_name="recipient",
            name="email",
            field=fields.EncryptedTextField(blank=True, default="", max_length=320),
        ),
        migrations.AddField(
            model_name="recipient",
            name="email_index",
            field=fields.BlindIndexField(editable=False, is_address=True, null=True, of="email"),
        ),
        migrations.RenameField(model_name="device", old_name="token", new_name="token_plain"),
        migrations.AlterField(
            model_name="device", name="token_plain", field=models.CharField(max_length=500, null=True, unique=True)
        ),
        migrations.AddField(
            model_name="device",
            name="token",
            field=fields.EncryptedTextField(default="", max_length=500),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="device",
            name="token_index",
            field=fields.BlindIndexField(editable=False, is_address=False, null=True, of="token", unique=True),
        ),
    ]

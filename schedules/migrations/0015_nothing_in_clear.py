"""The columns in clear go, empty by now. From here on a file in clear is refused, as a text has been since 0013."""

from django.db import migrations, models

from schedules import fields


class Migration(migrations.Migration):

    dependencies = [("schedules", "0014_encrypt")]

    operations = [
        migrations.RemoveField(model_name="recipient", name="email_plain"),
        migrations.RemoveField(model_name="device", name="token_plain"),
        migrations.AlterField(model_name="recipientimportchunk", name="data", field=fields.EncryptedBytesField()),
        # As the field says itself where a column is made; of one that is altered Django does not ask it.
        migrations.RunSQL(
            "ALTER TABLE schedules_recipientimportchunk ADD CONSTRAINT schedules_recipientimportchunk_data_check"
            " CHECK (substr(data, 1, 1) IN ('', '\\x01'))",
            "ALTER TABLE schedules_recipientimportchunk DROP CONSTRAINT schedules_recipientimportchunk_data_check",
        ),
        migrations.AddIndex(
            model_name="recipient",
            index=models.Index(condition=models.Q(("email", "")), fields=["id"], name="recipient_no_email_idx"),
        ),
        migrations.AddIndex(
            model_name="recipient",
            index=models.Index(
                condition=models.Q(("email_index__isnull", False)), fields=["email_index"], name="recipient_email_idx"
            ),
        ),
        migrations.AddConstraint(
            model_name="recipient",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("email", ""), ("email_index__isnull", True)),
                    models.Q(models.Q(("email", ""), _negated=True), ("email_index__isnull", False)),
                    _connector="OR",
                ),
                name="recipient_email_indexed",
            ),
        ),
        migrations.AddConstraint(
            model_name="device",
            constraint=models.CheckConstraint(
                condition=models.Q(("token_index__isnull", False)), name="device_token_indexed"
            ),
        ),
    ]

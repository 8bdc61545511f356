"""The columns in clear go, empty by now."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [("schedules", "0014_encrypt")]

    operations = [
        migrations.RemoveField(model_name="recipient", name="email_plain"),
        migrations.RemoveField(model_name="device", name="token_plain"),
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

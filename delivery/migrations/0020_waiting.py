"""Until when a person may wait for the message, where the schedule says so."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0019_subscribers"),
        ("schedules", "0024_windows"),
    ]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE delivery_delivery ADD COLUMN expires_at timestamptz",
            "ALTER TABLE delivery_delivery DROP COLUMN expires_at",
        ),
        migrations.AddField(
            model_name="batch",
            name="expires_at",
            field=models.DateTimeField(help_text="When the first of its people has waited for too long", null=True),
        ),
    ]

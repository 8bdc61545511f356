"""Days and hours in which a schedule's messages may reach a person, and how long they may wait for that."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("schedules", "0023_topics"),
    ]

    operations = [
        migrations.AddField(
            model_name="schedule",
            name="send_window",
            field=models.JSONField(blank=True, help_text="Days and hours on each person's own clock", null=True),
        ),
        migrations.AddField(
            model_name="schedule",
            name="expires_after_minutes",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
    ]

"""How many people a minute a schedule may send to."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("schedules", "0024_windows"),
    ]

    operations = [
        migrations.AddField(
            model_name="schedule",
            name="max_per_minute",
            field=models.PositiveIntegerField(blank=True, null=True),
        ),
    ]

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("schedules", "0005_runs_at_once_and_lists"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="occurrence",
            options={"ordering": ["-occurrence_at", "-id"], "verbose_name": "run"},
        ),
    ]

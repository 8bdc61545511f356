"""A rate of no people a minute is none. In pieces that hold no long lock, each of which can be done again."""

from django.contrib.postgres.operations import AddConstraintNotValid, ValidateConstraint
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("schedules", "0027_key"),
    ]

    operations = [
        migrations.RunSQL(
            "ALTER TABLE schedules_schedule DROP CONSTRAINT IF EXISTS schedule_rate_positive", migrations.RunSQL.noop
        ),
        AddConstraintNotValid(
            model_name="schedule",
            constraint=models.CheckConstraint(
                condition=models.Q(("max_per_minute__isnull", True), ("max_per_minute__gt", 0), _connector="OR"),
                name="schedule_rate_positive",
            ),
        ),
        ValidateConstraint("schedule", "schedule_rate_positive"),
    ]

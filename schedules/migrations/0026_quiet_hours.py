"""Quiet hours of people. In pieces that hold no long lock, each of which can be done again."""

import django.contrib.postgres.operations
import django.db.models.functions.comparison
import django.db.models.lookups
from django.db import migrations, models

_CLOCK = r'"([01][0-9]|2[0-3]):[0-5][0-9]"'
_TABLE = "ALTER TABLE schedules_recipient"


def column(name, field):
    return migrations.SeparateDatabaseAndState(
        state_operations=[migrations.AddField(model_name="recipient", name=name, field=field)],
        database_operations=[
            migrations.RunSQL(
                f"{_TABLE} ADD COLUMN IF NOT EXISTS {name} jsonb", f"{_TABLE} DROP COLUMN IF EXISTS {name}"
            )
        ],
    )


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("schedules", "0025_rate"),
    ]

    operations = [
        column("quiet_hours", models.JSONField(blank=True, null=True)),
        column("quiet_hours_source", models.JSONField(editable=False, null=True)),
        migrations.RunSQL(f"{_TABLE} DROP CONSTRAINT IF EXISTS recipient_quiet_hours_shape", migrations.RunSQL.noop),
        django.contrib.postgres.operations.AddConstraintNotValid(
            model_name="recipient",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("quiet_hours__isnull", True),
                    models.Q(
                        django.db.models.lookups.Regex(
                            django.db.models.functions.comparison.Cast("quiet_hours", models.TextField()),
                            rf'^\{{"to": {_CLOCK}, "from": {_CLOCK}\}}$',
                        ),
                        models.Q(("quiet_hours__from", models.F("quiet_hours__to")), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="recipient_quiet_hours_shape",
            ),
        ),
        django.contrib.postgres.operations.ValidateConstraint("recipient", "recipient_quiet_hours_shape"),
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS recipient_quiet_hours_idx", migrations.RunSQL.noop),
        django.contrib.postgres.operations.AddIndexConcurrently(
            model_name="recipient",
            index=models.Index(
                condition=models.Q(("quiet_hours__isnull", False)),
                fields=["quiet_hours", "time_zone"],
                name="recipient_quiet_hours_idx",
            ),
        ),
    ]

"""How files know a schedule; in pieces that hold no long lock."""

import django.contrib.postgres.functions
import django.db.models.functions.comparison
from django.db import migrations, models

_AT_ONCE = 10_000


def fill(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT COALESCE(max(id), 0) FROM schedules_schedule WHERE key IS NULL")
        (last,) = cursor.fetchone()
        for first in range(0, last + 1, _AT_ONCE):
            cursor.execute(
                "UPDATE schedules_schedule SET key = gen_random_uuid()::text"
                " WHERE key IS NULL AND id BETWEEN %s AND %s",
                [first, first + _AT_ONCE - 1],
            )


def table(change, back=migrations.RunSQL.noop):
    return migrations.RunSQL(f"ALTER TABLE schedules_schedule {change}", back)


class Migration(migrations.Migration):
    atomic = False  # each piece is committed by itself, and can be done again

    dependencies = [
        ("schedules", "0026_quiet_hours"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AddField(
                    model_name="schedule",
                    name="key",
                    field=models.CharField(
                        db_default=django.db.models.functions.comparison.Cast(
                            django.contrib.postgres.functions.RandomUUID(), models.TextField()
                        ),
                        editable=False,
                        max_length=100,
                    ),
                ),
            ],
            database_operations=[
                table(
                    "ADD COLUMN IF NOT EXISTS key varchar(100)",
                    "ALTER TABLE schedules_schedule DROP COLUMN IF EXISTS key",
                ),
                table("ALTER COLUMN key SET DEFAULT gen_random_uuid()::text"),
                migrations.RunPython(fill, migrations.RunPython.noop),
                table("DROP CONSTRAINT IF EXISTS schedule_key_given"),
                table("ADD CONSTRAINT schedule_key_given CHECK (key IS NOT NULL) NOT VALID"),
                table("VALIDATE CONSTRAINT schedule_key_given"),
                table("ALTER COLUMN key SET NOT NULL"),
                table("DROP CONSTRAINT schedule_key_given"),
            ],
        ),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AddConstraint(
                    model_name="schedule",
                    constraint=models.UniqueConstraint(
                        condition=models.Q(("status", "deleted"), _negated=True),
                        fields=("key",),
                        name="schedule_key_once",
                    ),
                ),
            ],
            database_operations=[
                migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS schedule_key_once", migrations.RunSQL.noop),
                migrations.RunSQL(
                    "CREATE UNIQUE INDEX CONCURRENTLY schedule_key_once ON schedules_schedule (key)"
                    " WHERE NOT status = 'deleted'",
                    "DROP INDEX CONCURRENTLY IF EXISTS schedule_key_once",
                ),
            ],
        ),
    ]

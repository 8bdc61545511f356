"""Which seals were exported, append-only as they are, and the clock's entry that exports them, every minute.

The entry's queue is the one whose work may take seconds: a slow bucket must not hold up the tick.
"""

from django.db import migrations, models

NAME = "export of the audit"
TABLE = "notification_audit_export"


def create(apps, schema_editor):
    interval, _ = apps.get_model("django_celery_beat", "IntervalSchedule").objects.get_or_create(
        every=60, period="seconds"
    )
    task = {"task": "audit.export", "interval": interval, "queue": "materialise", "expire_seconds": 60, "enabled": True}
    apps.get_model("django_celery_beat", "PeriodicTask").objects.update_or_create(name=NAME, defaults=task)


def remove(apps, schema_editor):
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name=NAME).delete()


class Migration(migrations.Migration):

    dependencies = [
        ("audit", "0004_append_only"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]

    operations = [
        migrations.CreateModel(
            name="ExportedSeal",
            fields=[
                ("number", models.BigIntegerField(primary_key=True, serialize=False)),
                ("version_id", models.CharField(max_length=1024)),
                ("exported_at", models.DateTimeField()),
            ],
            options={"db_table": TABLE},
        ),
        migrations.RunSQL(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {TABLE}"
            " FOR EACH STATEMENT EXECUTE FUNCTION notification_audit_refuse()",
            f"DROP TRIGGER append_only ON {TABLE}",
        ),
        migrations.RunPython(create, remove),
    ]

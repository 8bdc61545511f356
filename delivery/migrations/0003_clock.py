"""The clock's handful of entries. One per schedule would bring beat to its knees, so there is none per schedule.

``expire_seconds``: a tick that waited longer than that is worth nothing, since the next one does its work.
"""

from datetime import UTC, datetime

from django.db import migrations

from delivery import partitions

ENTRIES = [
    # name, task, every, period, expires after (s)
    ("tick", "delivery.tick", 1, "seconds", 5),
    ("sweep", "delivery.sweep", 2, "seconds", 10),
    ("ledger days and zone data", "delivery.daily", 1, "hours", 3600),
]


def create(apps, schema_editor):
    interval_model = apps.get_model("django_celery_beat", "IntervalSchedule")
    task_model = apps.get_model("django_celery_beat", "PeriodicTask")
    for name, task, every, period, expires in ENTRIES:
        interval, _ = interval_model.objects.get_or_create(every=every, period=period)
        task_model.objects.update_or_create(
            name=name,
            defaults={"task": task, "interval": interval, "queue": "clock", "expire_seconds": expires, "enabled": True},
        )


def remove(apps, schema_editor):
    task_model = apps.get_model("django_celery_beat", "PeriodicTask")
    task_model.objects.filter(name__in=[entry[0] for entry in ENTRIES]).delete()


def make_days(apps, schema_editor):
    """The ledger's first days: the clock makes the later ones."""
    partitions.ensure_around(
        today=datetime.now(UTC).date(), tables=("delivery_delivery", "delivery_failedattempt")
    )


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0002_ledger"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]
    operations = [
        migrations.RunPython(create, remove),
        migrations.RunPython(make_days, migrations.RunPython.noop),
    ]

"""The clock's entry that seals the audit, every minute."""

from django.db import migrations

NAME = "seals of the audit"


def create(apps, schema_editor):
    interval, _ = apps.get_model("django_celery_beat", "IntervalSchedule").objects.get_or_create(
        every=60, period="seconds"
    )
    task = {"task": "delivery.seal_audit", "interval": interval, "queue": "clock", "expire_seconds": 60, "enabled": True}
    apps.get_model("django_celery_beat", "PeriodicTask").objects.update_or_create(name=NAME, defaults=task)


def remove(apps, schema_editor):
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name=NAME).delete()


class Migration(migrations.Migration):

    dependencies = [
        ("audit", "0004_append_only"),
        ("delivery", "0007_figures_by_quarters"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]

    operations = [migrations.RunPython(create, remove)]

"""The clock's entry that reads the template service's list, every minute."""

from django.db import migrations

NAME = "list of the template service"


def create(apps, schema_editor):
    interval, _ = apps.get_model("django_celery_beat", "IntervalSchedule").objects.get_or_create(
        every=60, period="seconds"
    )
    task = {
        "task": "delivery.mirror_templates",
        "interval": interval,
        "queue": "materialise",
        "expire_seconds": 60,
        "enabled": True,
    }
    apps.get_model("django_celery_beat", "PeriodicTask").objects.update_or_create(name=NAME, defaults=task)


def remove(apps, schema_editor):
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name=NAME).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0013_feedback"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]

    operations = [migrations.RunPython(create, remove)]

"""The clock's entry for throwing away expired tokens and spent idempotency keys."""

from django.db import migrations

NAME = "expired tokens and keys"


def create(apps, schema_editor):
    interval, _ = apps.get_model("django_celery_beat", "IntervalSchedule").objects.get_or_create(
        every=1, period="hours"
    )
    task = {"task": "frontend.tidy", "interval": interval, "queue": "clock", "expire_seconds": 3600}
    apps.get_model("django_celery_beat", "PeriodicTask").objects.update_or_create(name=NAME, defaults=task)


def remove(apps, schema_editor):
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name=NAME).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("frontend", "0001_clients_and_idempotency_keys"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]
    operations = [migrations.RunPython(create, remove)]

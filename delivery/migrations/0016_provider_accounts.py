"""What providers' accounts allow, asked every minute."""

from django.db import migrations, models

NAME = "accounts of the providers"


def create(apps, schema_editor):
    interval, _ = apps.get_model("django_celery_beat", "IntervalSchedule").objects.get_or_create(
        every=60, period="seconds"
    )
    task = {
        "task": "delivery.accounts",
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
        ("delivery", "0015_circuits_have_scopes"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]

    operations = [
        migrations.CreateModel(
            name="ProviderAccount",
            fields=[
                ("scope", models.CharField(max_length=200, primary_key=True, serialize=False)),
                ("per_s", models.FloatField(null=True)),
                ("per_day", models.BigIntegerField(null=True)),
                ("left", models.BigIntegerField(null=True)),
                ("read_at", models.DateTimeField()),
            ],
        ),
        migrations.RunPython(create, remove),
    ]

"""What the ledger comes to in every five minutes, and the clock's entry that keeps it."""

from django.db import migrations, models

NAME = "figures"


def create(apps, schema_editor):
    interval, _ = apps.get_model("django_celery_beat", "IntervalSchedule").objects.get_or_create(
        every=5, period="seconds"
    )
    task = {"task": "delivery.figures", "interval": interval, "queue": "clock", "expire_seconds": 5, "enabled": True}
    apps.get_model("django_celery_beat", "PeriodicTask").objects.update_or_create(name=NAME, defaults=task)


def remove(apps, schema_editor):
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name=NAME).delete()


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0005_test_sends'),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]

    operations = [
        migrations.CreateModel(
            name='Figure',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('slot', models.DateTimeField()),
                ('channel', models.CharField(choices=[('email', 'E-mail'), ('push', 'Push'), ('in_app', 'In-app')], max_length=10)),
                ('state', models.SmallIntegerField(choices=[(0, 'pending'), (1, 'sending'), (2, 'unknown'), (10, 'sent'), (11, 'failed'), (12, 'rate_limited'), (13, 'suppressed'), (14, 'unaddressable'), (15, 'cancelled'), (16, 'erased'), (17, 'expired')])),
                ('reason', models.TextField(blank=True)),
                ('lateness', models.SmallIntegerField()),
                ('people', models.IntegerField()),
            ],
        ),
        migrations.AddField(
            model_name='batch',
            name='figures',
            field=models.JSONField(db_default=models.Value([], models.JSONField()), default=list),
        ),
        migrations.AddField(
            model_name='batch',
            name='is_counted',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.AddIndex(
            model_name='batch',
            index=models.Index(condition=models.Q(('is_counted', False)), fields=['day', 'id'], name='batch_uncounted_idx'),
        ),
        migrations.AddConstraint(
            model_name='figure',
            constraint=models.UniqueConstraint(fields=('slot', 'channel', 'state', 'reason', 'lateness'), name='figure_once'),
        ),
        migrations.RunPython(create, remove),
    ]

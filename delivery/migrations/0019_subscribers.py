"""Subscribers' endpoints, what they are told, and the two tasks that tell them."""

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q
from django.db.models.functions import Now

import schedules.fields

# By name: task, queue. Each comes every two seconds, and one that nobody took by then is worthless.
TASKS = {
    "events for subscribers": ("delivery.tell", "clock"),
    "calls of subscribers": ("delivery.call_endpoints", "events"),
}


def create(apps, schema_editor):
    interval, _ = apps.get_model("django_celery_beat", "IntervalSchedule").objects.get_or_create(
        every=2, period="seconds"
    )
    for name, (task, queue) in TASKS.items():
        defaults = {"task": task, "interval": interval, "queue": queue, "expire_seconds": 2, "enabled": True}
        apps.get_model("django_celery_beat", "PeriodicTask").objects.update_or_create(name=name, defaults=defaults)


def remove(apps, schema_editor):
    apps.get_model("django_celery_beat", "PeriodicTask").objects.filter(name__in=TASKS).delete()


def own_id():
    return ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"))


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0018_unsubscribe_links"),
        ("django_celery_beat", "0019_alter_periodictasks_options"),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditPlace",
            fields=[own_id(), ("tx", models.BigIntegerField()), ("row_id", models.BigIntegerField())],
        ),
        migrations.CreateModel(
            name="ClosedRun",
            fields=[("occurrence_id", models.BigIntegerField(primary_key=True, serialize=False))],
        ),
        migrations.CreateModel(
            name="Endpoint",
            fields=[
                own_id(),
                ("url", schedules.fields.EncryptedTextField(max_length=2000, verbose_name="address")),
                ("description", models.CharField(blank=True, max_length=200, verbose_name="description")),
                ("types", models.JSONField(default=list)),
                ("secret", schedules.fields.EncryptedTextField()),
                ("old_secret", schedules.fields.EncryptedTextField(blank=True, default="")),
                ("old_secret_until", models.DateTimeField(null=True)),
                (
                    "off_reason",
                    models.CharField(
                        blank=True,
                        choices=[("person", "Person"), ("gone", "Gone"), ("failing", "Failing")],
                        max_length=10,
                    ),
                ),
                ("off_at", models.DateTimeField(null=True)),
                ("version", models.PositiveIntegerField(default=1)),
                ("created_at", models.DateTimeField()),
                ("created_by", models.CharField(max_length=100)),
                ("failing_since", models.DateTimeField(null=True)),
                ("failures", models.PositiveIntegerField(default=0)),
                ("answered_at", models.DateTimeField(null=True)),
                ("retry_at", models.DateTimeField(null=True)),
                ("lease", models.UUIDField(null=True)),
                ("leased_until", models.DateTimeField(null=True)),
            ],
            options={"ordering": ["id"]},
        ),
        migrations.CreateModel(
            name="Report",
            fields=[
                own_id(),
                ("day", models.DateField()),
                ("occurrence_id", models.BigIntegerField()),
                ("recipient_id", models.BigIntegerField()),
                ("news", models.SmallIntegerField()),
                ("at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Event",
            fields=[
                own_id(),
                ("event_id", models.CharField(max_length=40, unique=True)),
                (
                    "type",
                    models.CharField(
                        choices=[
                            ("schedule.changed", "Schedule Changed"),
                            ("occurrence.started", "Occurrence Started"),
                            ("occurrence.finished", "Occurrence Finished"),
                            ("deliveries.settled", "Deliveries Settled"),
                            ("deliveries.reported", "Deliveries Reported"),
                            ("endpoint.test", "Test"),
                        ],
                        max_length=40,
                    ),
                ),
                ("source", models.CharField(max_length=60, null=True, unique=True)),
                ("occurred_at", models.DateTimeField()),
                ("created_at", models.DateTimeField(db_default=Now())),
                ("data", models.JSONField()),
                (
                    "of",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="tests",
                        to="delivery.endpoint",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [models.Index(fields=["created_at"], name="event_created_idx")],
            },
        ),
        migrations.CreateModel(
            name="Posting",
            fields=[
                own_id(),
                (
                    "state",
                    models.CharField(
                        choices=[("waiting", "Waiting"), ("delivered", "Delivered"), ("failed", "Failed")],
                        default="waiting",
                        max_length=10,
                    ),
                ),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("due_at", models.DateTimeField(db_default=Now(), null=True)),
                ("settled_at", models.DateTimeField(null=True)),
                (
                    "endpoint",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="postings", to="delivery.endpoint"
                    ),
                ),
                (
                    "event",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="postings", to="delivery.event"
                    ),
                ),
            ],
            options={
                "ordering": ["-event_id"],
                "indexes": [
                    models.Index(condition=Q(state="waiting"), fields=["endpoint", "due_at"], name="posting_due_idx"),
                    models.Index(fields=["endpoint", "state", "-event"], name="posting_list_idx"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=["endpoint", "event"], name="posting_once"),
                    models.CheckConstraint(
                        condition=Q(state="waiting", due_at__isnull=False)
                        | (~Q(state="waiting") & Q(due_at__isnull=True)),
                        name="posting_due_while_waiting",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Attempt",
            fields=[
                own_id(),
                ("at", models.DateTimeField()),
                ("duration_ms", models.PositiveIntegerField()),
                ("outcome", models.CharField(max_length=20)),
                ("status", models.PositiveSmallIntegerField(null=True)),
                ("answer", schedules.fields.EncryptedTextField(blank=True, default="")),
                (
                    "posting",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="tries", to="delivery.posting"
                    ),
                ),
            ],
            options={"ordering": ["id"]},
        ),
        migrations.CreateModel(
            name="ToldBatch",
            fields=[
                ("batch_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("day", models.DateField()),
                ("is_changed", models.BooleanField()),
                ("told", models.JSONField(default=dict)),
            ],
            options={
                "indexes": [
                    models.Index(condition=Q(is_changed=True), fields=["batch_id"], name="toldbatch_changed_idx")
                ],
            },
        ),
        migrations.RunPython(create, remove),
    ]

"""What messages are about, what they are for, and who told of a consent."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("schedules", "0022_shared_resolutions"),
    ]

    operations = [
        migrations.CreateModel(
            name="Topic",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=40, unique=True)),
                ("name", models.CharField(max_length=100)),
                ("names", models.JSONField(default=dict)),
                ("description", models.CharField(blank=True, max_length=300)),
                (
                    "default",
                    models.CharField(
                        choices=[("opted_in", "Opted In"), ("opted_out", "Opted Out")],
                        default="opted_in",
                        max_length=10,
                    ),
                ),
                ("version", models.PositiveIntegerField(default=1, editable=False)),
                ("updated_by", models.CharField(editable=False, max_length=100)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "updated_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("archived_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "ordering": ["name", "id"],
            },
        ),
        migrations.AddField(
            model_name="recipient",
            name="consent_source",
            field=models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict, editable=False),
        ),
        migrations.AddField(
            model_name="schedule",
            name="purpose",
            field=models.CharField(
                choices=[("marketing", "Marketing"), ("transactional", "Transactional")],
                db_default="marketing",
                default="marketing",
                max_length=15,
            ),
        ),
        migrations.AddField(
            model_name="schedule",
            name="topic",
            field=models.CharField(blank=True, max_length=40, null=True),
        ),
        migrations.AddIndex(
            model_name="schedule",
            index=models.Index(
                condition=models.Q(("status__in", ["draft", "active", "paused", "broken"]), ("topic__isnull", False)),
                fields=["topic"],
                name="schedule_topic_live_idx",
            ),
        ),
        migrations.AddConstraint(
            model_name="schedule",
            constraint=models.CheckConstraint(
                condition=models.Q(("purpose__in", ["marketing", "transactional"])), name="schedule_purpose_known"
            ),
        ),
        migrations.AddConstraint(
            model_name="topic",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("key__regex", "^[a-z0-9][a-z0-9_-]*$"),
                    models.Q(("key__in", ["email", "push", "in_app"]), _negated=True),
                ),
                name="topic_key_shape",
            ),
        ),
        migrations.AddConstraint(
            model_name="topic",
            constraint=models.CheckConstraint(
                condition=models.Q(("default__in", ["opted_in", "opted_out"])), name="topic_default_known"
            ),
        ),
    ]

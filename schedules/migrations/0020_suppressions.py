"""Addresses that are not written to any more, and those that may become so."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("schedules", "0019_templates_of_a_service"),
    ]

    operations = [
        migrations.CreateModel(
            name="SoftBounce",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "channel",
                    models.CharField(
                        choices=[("email", "E-mail"), ("push", "Push"), ("in_app", "In-app")], max_length=10
                    ),
                ),
                ("fingerprint", models.BinaryField(max_length=12)),
                ("occurrence_id", models.BigIntegerField()),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "indexes": [models.Index(fields=["created_at"], name="soft_bounce_created_at_idx")],
                "constraints": [
                    models.UniqueConstraint(fields=("channel", "fingerprint", "occurrence_id"), name="soft_bounce_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="Suppression",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "channel",
                    models.CharField(
                        choices=[("email", "E-mail"), ("push", "Push"), ("in_app", "In-app")], max_length=10
                    ),
                ),
                ("fingerprint", models.BinaryField(max_length=12)),
                (
                    "reason",
                    models.CharField(
                        choices=[
                            ("blocked", "Blocked"),
                            ("bounced_often", "Bounced Often"),
                            ("bounced", "Bounced"),
                            ("complained", "Complained"),
                        ],
                        max_length=20,
                    ),
                ),
                ("source", models.CharField(max_length=100)),
                ("occurrence_id", models.BigIntegerField(null=True)),
                ("detail", models.CharField(blank=True, db_default="", default="", max_length=200)),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "ordering": ["-id"],
                "constraints": [models.UniqueConstraint(fields=("channel", "fingerprint"), name="suppression_once")],
            },
        ),
    ]

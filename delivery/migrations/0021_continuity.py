"""Whether this database is the one that the service left off with: a row that every look renews."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0020_waiting"),
    ]

    operations = [
        migrations.CreateModel(
            name="Continuity",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("service", models.UUIDField()),
                ("number", models.BigIntegerField(default=0)),
                ("server", models.CharField(max_length=80)),
                ("seen_at", models.DateTimeField()),
                ("proven_until", models.DateTimeField()),
                ("restored_to", models.DateTimeField(null=True)),
                ("last_seen_at", models.DateTimeField(null=True)),
                ("noticed_at", models.DateTimeField(null=True)),
                ("runs_from", models.BigIntegerField(null=True)),
            ],
            options={
                "constraints": [models.CheckConstraint(condition=Q(id=1), name="continuity_single")],
            },
        ),
    ]

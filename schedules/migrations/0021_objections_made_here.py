"""When people objected here, who asks the user service for a resolution and for whom, and its counts for all processes."""

import django.db.models.deletion
from django.db import migrations, models

# Who told of an objection was not kept so far: all count as made here, no later than the profile was last changed.
_DATE_OBJECTIONS = """
UPDATE schedules_recipient r SET objected_at = (
    SELECT jsonb_object_agg(key, to_jsonb(r.updated_at)) FROM jsonb_each(r.consent) WHERE value = 'false'
) WHERE r.consent @? '$.* ? (@ == false)'
"""


class Migration(migrations.Migration):
    dependencies = [
        ("schedules", "0020_suppressions"),
    ]

    operations = [
        migrations.AddField(
            model_name="recipient",
            name="objected_at",
            field=models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict, editable=False),
        ),
        migrations.RunSQL(_DATE_OBJECTIONS, migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="resolution",
            name="occurrence_id",
            field=models.BigIntegerField(null=True, unique=True),
        ),
        migrations.AddField(
            model_name="resolution",
            name="idle",
            field=models.PositiveIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name="resolution",
            name="asked_by",
            field=models.UUIDField(null=True),
        ),
        migrations.AddField(
            model_name="resolution",
            name="asked_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.CreateModel(
            name="ResolutionUse",
            fields=[
                ("occurrence_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("used_at", models.DateTimeField(null=True)),
                (
                    "resolution",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="uses",
                        to="schedules.resolution",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ServedCount",
            fields=[
                ("key", models.UUIDField(primary_key=True, serialize=False)),
                ("people", models.PositiveBigIntegerField(null=True)),
                ("as_of", models.DateTimeField()),
                ("reason", models.CharField(blank=True, default="", max_length=30)),
                ("good_until", models.DateTimeField()),
                ("asked_until", models.DateTimeField(null=True)),
            ],
        ),
    ]

"""Runs that ask the user service the same share one answer; a service that gives none is left alone."""

from django.db import migrations, models

_SHARE = """
INSERT INTO schedules_resolutionuse (occurrence_id, resolution_id, used_at)
SELECT occurrence_id, id, used_at FROM schedules_resolution WHERE occurrence_id IS NOT NULL
ON CONFLICT DO NOTHING;
-- the digests had no key; what is under way begins again
UPDATE schedules_resolution SET audience = '';
"""


class Migration(migrations.Migration):
    dependencies = [
        ("schedules", "0021_objections_made_here"),
    ]

    operations = [
        migrations.CreateModel(
            name="LeftAlone",
            fields=[
                ("question", models.UUIDField(primary_key=True, serialize=False)),
                ("failures", models.PositiveIntegerField()),
                ("until", models.DateTimeField()),
                ("asked_until", models.DateTimeField(null=True)),
            ],
        ),
        migrations.RunSQL(_SHARE, migrations.RunSQL.noop),
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS ALL IMMEDIATE"),
        migrations.RemoveField(model_name="resolution", name="occurrence_id"),
        migrations.RemoveField(model_name="resolution", name="used_at"),
        migrations.AddIndex(
            model_name="resolution",
            index=models.Index(
                condition=models.Q(("audience", ""), _negated=True),
                fields=["audience"],
                name="resolution_audience_idx",
            ),
        ),
    ]

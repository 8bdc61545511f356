"""What providers tell of a message after they have answered for it: rows in days, as the ledger's, and their counts.

No index but the key: a later event is a heap-only update. Each day of the ledger gets its table.
"""

from datetime import date

from django.db import connection, migrations, models

from delivery import partitions

FEEDBACK = """
CREATE TABLE delivery_feedback (
    day date NOT NULL,
    occurrence_id bigint NOT NULL,
    recipient_id bigint NOT NULL,
    accepted_at timestamptz,
    delayed_at timestamptz,
    bounced_soft_at timestamptz,
    delivered_at timestamptz,
    rejected_at timestamptz,
    not_rendered_at timestamptz,
    bounced_hard_at timestamptz,
    complained_at timestamptz,
    news smallint NOT NULL,
    kinds smallint NOT NULL,
    kinds_before smallint NOT NULL DEFAULT 0,
    detail text NOT NULL DEFAULT '',
    provider_id text NOT NULL DEFAULT '',
    CONSTRAINT feedback_pk PRIMARY KEY (day, occurrence_id, recipient_id),
    CONSTRAINT feedback_news_known CHECK (news BETWEEN 1 AND 8),
    CONSTRAINT feedback_news_is_gravest CHECK (kinds >> (news - 1) = 1),
    CONSTRAINT feedback_nothing_unsaid CHECK ((kinds | kinds_before) = kinds)
) PARTITION BY RANGE (day);
CREATE TABLE delivery_feedback_default PARTITION OF delivery_feedback DEFAULT WITH (fillfactor = 70);
"""


def make_days(apps, schema_editor):
    """Those that the ledger has: an event may come weeks after its message."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT right(c.relname, 8) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = 'delivery_delivery'::regclass AND c.relname !~ '_default$'"
        )
        days = sorted(date(int(name[:4]), int(name[4:6]), int(name[6:])) for (name,) in cursor.fetchall())
    if days:
        partitions.ensure(first=days[0], last=days[-1], tables=("delivery_feedback",))


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0012_words_for_people"),
    ]

    operations = [
        migrations.CreateModel(
            name="Feedback",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "day",
                        "occurrence_id",
                        "recipient_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("day", models.DateField()),
                ("occurrence_id", models.BigIntegerField()),
                ("recipient_id", models.BigIntegerField()),
                (
                    "news",
                    models.SmallIntegerField(
                        choices=[
                            (1, "accepted"),
                            (2, "delayed"),
                            (3, "bounced_soft"),
                            (4, "delivered"),
                            (5, "rejected"),
                            (6, "not_rendered"),
                            (7, "bounced_hard"),
                            (8, "complained"),
                        ]
                    ),
                ),
                ("kinds", models.SmallIntegerField()),
                ("kinds_before", models.SmallIntegerField()),
                ("accepted_at", models.DateTimeField(null=True)),
                ("delayed_at", models.DateTimeField(null=True)),
                ("bounced_soft_at", models.DateTimeField(null=True)),
                ("delivered_at", models.DateTimeField(null=True)),
                ("rejected_at", models.DateTimeField(null=True)),
                ("not_rendered_at", models.DateTimeField(null=True)),
                ("bounced_hard_at", models.DateTimeField(null=True)),
                ("complained_at", models.DateTimeField(null=True)),
                ("detail", models.TextField()),
                ("provider_id", models.TextField()),
            ],
            options={
                "verbose_name_plural": "feedback",
                "db_table": "delivery_feedback",
                "managed": False,
            },
        ),
        migrations.CreateModel(
            name="FeedbackCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("occurrence_id", models.BigIntegerField()),
                (
                    "news",
                    models.SmallIntegerField(
                        choices=[
                            (1, "accepted"),
                            (2, "delayed"),
                            (3, "bounced_soft"),
                            (4, "delivered"),
                            (5, "rejected"),
                            (6, "not_rendered"),
                            (7, "bounced_hard"),
                            (8, "complained"),
                        ]
                    ),
                ),
                ("slot", models.SmallIntegerField()),
                ("people", models.IntegerField()),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("occurrence_id", "news", "slot"), name="feedback_count_once")
                ],
            },
        ),
        migrations.RunSQL(FEEDBACK, "DROP TABLE delivery_feedback"),
        migrations.RunPython(make_days, migrations.RunPython.noop),
    ]

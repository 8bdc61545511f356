"""Rows that nobody changes: triggers, the transaction that wrote each row, and the seals over them.

``tx`` is the number of the writing transaction. It is no field of the model: an INSERT never names it, so that the
application's role need not be allowed to choose it. Ids are taken before a commit, numbers of transactions decide what
is complete: once every transaction below some number has ended, no row of any of them can still appear.
"""

import django.contrib.postgres.fields
from django.db import migrations, models

TABLES = ("notification_audit", "notification_audit_seal")
REFUSE = "CREATE FUNCTION notification_audit_refuse() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$ BEGIN RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege'; END $$"
GUARD = "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {} FOR EACH STATEMENT EXECUTE FUNCTION notification_audit_refuse()"


class Migration(migrations.Migration):

    dependencies = [
        ("audit", "0003_actor_and_correlation"),
    ]

    operations = [
        migrations.CreateModel(
            name="Seal",
            fields=[
                ("number", models.BigIntegerField(primary_key=True, serialize=False)),
                ("first_tx", models.BigIntegerField(help_text="Of the transactions whose rows it covers")),
                ("end_tx", models.BigIntegerField(help_text="The first one that it does not cover")),
                ("rows", models.IntegerField()),
                ("row_ids", django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), size=None)),
                ("row_hashes", models.BinaryField(help_text="32 bytes a row, in the order of row_ids")),
                ("previous", models.CharField(max_length=64)),
                ("digest", models.CharField(max_length=64)),
                ("key_id", models.CharField(max_length=16)),
                ("signature", models.CharField(max_length=128)),
                ("sealed_at", models.DateTimeField()),
            ],
            options={"db_table": "notification_audit_seal", "ordering": ["number"]},
        ),
        migrations.RunSQL(
            [
                # Rows from before take the number of this migration, which no seal covers before it has ended.
                "ALTER TABLE notification_audit ADD COLUMN tx bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint)",
                "CREATE INDEX audit_tx_idx ON notification_audit (tx, id)",
                REFUSE,
                *(GUARD.format(table) for table in TABLES),
            ],
            [
                *(f"DROP TRIGGER append_only ON {table}" for table in TABLES),
                "DROP FUNCTION notification_audit_refuse()",
                "ALTER TABLE notification_audit DROP COLUMN tx",
            ],
        ),
    ]

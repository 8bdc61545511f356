"""The partitioned ledger, by SQL: Django knows neither partitions nor fillfactor.

No index, partial predicate included, stands on a column that changes: an outcome is then a heap-only update. The index on
batches has the day too, which every statement names: without statistics, a new day's partition would else be read whole,
by its primary key, to find the rows of one batch.
"""

from django.db import migrations

LEDGER = """
CREATE TABLE delivery_delivery (
    day date NOT NULL,
    occurrence_id bigint NOT NULL,
    recipient_id bigint NOT NULL,
    batch_id bigint NOT NULL,
    wave_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    leased_until timestamptz,
    called_at timestamptz,
    settled_at timestamptz,
    version integer NOT NULL DEFAULT 0,
    state smallint NOT NULL DEFAULT 0,
    zone_source smallint NOT NULL,
    attempt smallint NOT NULL DEFAULT 0,
    claim_token uuid,
    reason text NOT NULL DEFAULT '',
    provider_id text NOT NULL DEFAULT '',
    CONSTRAINT delivery_pk PRIMARY KEY (day, occurrence_id, recipient_id),
    CONSTRAINT delivery_state_known CHECK (state IN (0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 17)),
    CONSTRAINT delivery_reason_given CHECK (state IN (0, 1, 2, 10) OR reason <> ''),
    CONSTRAINT delivery_claim_whole CHECK ((state IN (1, 2)) = (claim_token IS NOT NULL)),
    CONSTRAINT delivery_settled_is_outcome CHECK ((state >= 10) = (settled_at IS NOT NULL))
) PARTITION BY RANGE (day);
CREATE INDEX delivery_batch_idx ON delivery_delivery (batch_id, day);
CREATE INDEX delivery_recipient_idx ON delivery_delivery (recipient_id);
CREATE TABLE delivery_delivery_default PARTITION OF delivery_delivery DEFAULT WITH (fillfactor = 70);

CREATE TABLE delivery_failedattempt (
    day date NOT NULL,
    occurrence_id bigint NOT NULL,
    recipient_id bigint NOT NULL,
    attempt smallint NOT NULL,
    at timestamptz NOT NULL,
    verdict text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL DEFAULT '',
    CONSTRAINT failedattempt_pk PRIMARY KEY (day, occurrence_id, recipient_id, attempt, at)
) PARTITION BY RANGE (day);
CREATE TABLE delivery_failedattempt_default PARTITION OF delivery_failedattempt DEFAULT;
"""


class Migration(migrations.Migration):
    dependencies = [("delivery", "0001_initial")]
    operations = [
        migrations.RunSQL(LEDGER, "DROP TABLE delivery_failedattempt; DROP TABLE delivery_delivery"),
    ]

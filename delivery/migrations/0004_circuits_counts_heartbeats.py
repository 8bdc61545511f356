"""Circuits, heartbeats and counts; and what a ledger row says more: when it was claimed, why in detail, whom it reached."""

from django.db import migrations, models

COLUMNS = """
ALTER TABLE delivery_delivery
    ADD COLUMN claimed_at timestamptz,
    ADD COLUMN detail text NOT NULL DEFAULT '',
    ADD COLUMN reached text NOT NULL DEFAULT '';
ALTER TABLE delivery_count SET (fillfactor = 50);
"""


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0003_clock'),
    ]

    operations = [
        migrations.CreateModel(
            name='Circuit',
            fields=[
                ('channel', models.CharField(choices=[('email', 'E-mail'), ('push', 'Push'), ('in_app', 'In-app')], max_length=10, primary_key=True, serialize=False)),
                ('reason', models.CharField(max_length=60)),
                ('detail', models.CharField(blank=True, max_length=200)),
                ('opened_at', models.DateTimeField()),
                ('probe_at', models.DateTimeField()),
                ('openings', models.PositiveIntegerField(default=1)),
            ],
        ),
        migrations.CreateModel(
            name='Heartbeat',
            fields=[
                ('name', models.CharField(max_length=40, primary_key=True, serialize=False)),
                ('seen_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='Count',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=60)),
                ('channel', models.CharField(blank=True, max_length=10)),
                ('label', models.CharField(blank=True, max_length=40)),
                ('slot', models.SmallIntegerField()),
                ('value', models.FloatField(default=0)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('name', 'channel', 'label', 'slot'), name='count_once')],
            },
        ),
        migrations.RunSQL(
            COLUMNS,
            "ALTER TABLE delivery_delivery DROP COLUMN claimed_at, DROP COLUMN detail, DROP COLUMN reached",
        ),
    ]

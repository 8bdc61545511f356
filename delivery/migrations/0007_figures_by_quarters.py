"""Figures by the quarter of an hour and the hour, beside those by five minutes: all are counted anew."""

from django.db import migrations, models

ANEW = """
DELETE FROM delivery_figure;
UPDATE delivery_batch SET figures = '[]', is_counted = false WHERE is_counted OR figures <> '[]';
"""


class Migration(migrations.Migration):

    dependencies = [
        ('delivery', '0006_figures'),
    ]

    operations = [
        migrations.RunSQL(ANEW, ANEW),
        migrations.RemoveConstraint(model_name='figure', name='figure_once'),
        migrations.AddField(
            model_name='figure',
            name='minutes',
            field=models.SmallIntegerField(default=5),
            preserve_default=False,
        ),
        migrations.AddConstraint(
            model_name='figure',
            constraint=models.UniqueConstraint(fields=('minutes', 'slot', 'channel', 'state', 'reason', 'lateness'), name='figure_once'),
        ),
    ]

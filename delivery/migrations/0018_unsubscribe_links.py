"""Where one click ends what a kept message belongs to."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("delivery", "0017_inbox_written_in"),
    ]

    operations = [
        migrations.AddField(
            model_name="outboxmessage",
            name="unsubscribe_url",
            field=models.CharField(blank=True, db_default="", default="", max_length=500),
        ),
    ]

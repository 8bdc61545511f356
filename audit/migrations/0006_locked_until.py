"""Until when each exported object is locked: the days of the settings may be others by then."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("audit", "0005_export")]

    operations = [
        migrations.AddField(
            "exportedseal",
            "locked_until",
            models.DateTimeField(
                null=True,
                help_text="Nobody can remove the object before; none for what was noted before this was",
            ),
        ),
    ]

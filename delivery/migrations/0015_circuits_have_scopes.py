"""A circuit is a channel's, that of one of its several providers, or a template's."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("delivery", "0014_template_lists")]

    operations = [
        migrations.RenameField("circuit", "channel", "scope"),
        migrations.AlterField("circuit", "scope", models.CharField(max_length=200, primary_key=True, serialize=False)),
    ]

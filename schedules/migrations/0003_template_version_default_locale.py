"""A version says in which locale it falls back, so that a later change cannot reach what is already pinned."""

from django.db import migrations, models
from django.db.models import OuterRef, Subquery


def take_from_templates(apps, schema_editor):
    template = apps.get_model("schedules", "MessageTemplate")
    default = template.objects.filter(pk=OuterRef("template")).values("default_locale")
    apps.get_model("schedules", "TemplateVersion").objects.update(default_locale=Subquery(default))


class Migration(migrations.Migration):
    dependencies = [("schedules", "0002_roles")]
    operations = [
        migrations.AddField(
            model_name="templateversion",
            name="default_locale",
            field=models.CharField(default="en", max_length=35),
            preserve_default=False,
        ),
        migrations.RunPython(take_from_templates, migrations.RunPython.noop),
    ]

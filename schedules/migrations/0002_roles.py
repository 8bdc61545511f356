"""The groups that are the roles of schedules.permissions."""

from django.db import migrations

ROLES = ("MARKETER", "ADMIN", "ANALYST")


def create(apps, schema_editor):
    group = apps.get_model("auth", "Group")
    for name in ROLES:
        group.objects.get_or_create(name=name)


class Migration(migrations.Migration):
    dependencies = [
        ("schedules", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]
    # Going back keeps the groups: people are in them.
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]

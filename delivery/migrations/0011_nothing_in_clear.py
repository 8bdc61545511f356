"""The columns in clear go, empty by now."""

from django.db import migrations, models

IN_CLEAR = {
    "inboxmessage": ["title", "body"],
    "outboxmessage": ["to", "subject", "text", "html"],
    "testsend": ["to", "subject", "detail"],
}


class Migration(migrations.Migration):

    dependencies = [("delivery", "0010_encrypt")]

    operations = [
        *(
            migrations.RemoveField(model_name=model, name=f"{column}_plain")
            for model, columns in IN_CLEAR.items()
            for column in columns
        ),
        migrations.AddIndex(model_name="outboxmessage", index=models.Index(fields=["to_index"], name="outbox_to_idx")),
    ]

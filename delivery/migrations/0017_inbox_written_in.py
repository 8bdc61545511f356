import delivery.fields
from django.db import migrations


class Migration(migrations.Migration):
    """Those that lie there already get the transaction of this migration, without being written anew."""

    dependencies = [("delivery", "0016_provider_accounts")]

    operations = [
        migrations.AddField(
            model_name="inboxmessage",
            name="written_in",
            field=delivery.fields.TransactionField(),
        ),
    ]

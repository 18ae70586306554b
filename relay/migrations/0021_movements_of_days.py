"""An index of movements by people by day, for the ledger's page and its sums."""

from django.conf import settings
from django.db import migrations, models


def index_on_mysql(apps, schema_editor):
    """MySQL has no partial indexes, and Django leaves those out. Going back, `AddIndex` drops it by its name."""
    if schema_editor.connection.vendor == "mysql":
        schema_editor.execute("CREATE INDEX movement_of_day ON relay_ledgerentry (token_id, day, id)")


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0020_sentences_of_constraints'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddIndex(
            model_name='ledgerentry',
            index=models.Index(condition=models.Q(('token__isnull', True)), fields=['day', 'id'], name='movement_of_day'),
        ),
        migrations.RunPython(index_on_mysql, migrations.RunPython.noop),
    ]

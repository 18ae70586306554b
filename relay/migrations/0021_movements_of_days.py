"""An index of movements by people by day, for the ledger's page and its sums.

It begins with the token, which is null in it: MySQL has no partial indexes, and finds movements by people by that.
"""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0020_sentences_of_constraints'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddIndex(
            model_name='ledgerentry',
            index=models.Index(condition=models.Q(('token__isnull', True)), fields=['token', 'day', 'id'], name='movement_of_day'),
        ),
    ]

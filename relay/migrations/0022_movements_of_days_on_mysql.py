"""The index of movements by people begins with the token, which is always null in it.

MySQL has no partial indexes: its index has all entries, and finds movements by people by their token.
"""

from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0021_movements_of_days'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveIndex(model_name='ledgerentry', name='movement_of_day'),
        migrations.AddIndex(
            model_name='ledgerentry',
            index=models.Index(condition=models.Q(('token__isnull', True)), fields=['token', 'day', 'id'], name='movement_of_day'),
        ),
    ]

"""The requests of a batch that were not answered before it was cancelled or had expired.

The column has a default in the database, for workers of the version before it that still run.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0028_hour_long_cache_writes'),
    ]

    operations = [
        migrations.AddField(
            model_name='batch',
            name='unanswered',
            field=models.PositiveIntegerField(db_default=0, default=0, editable=False),
        ),
    ]

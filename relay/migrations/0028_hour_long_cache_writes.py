"""The price of what is written to the cache for an hour, and how many of its tokens a request had.

The column of usage records has a default in the database, for workers of the version before it that still run.
"""

from decimal import Decimal

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0027_unwritten_batches'),
    ]

    operations = [
        migrations.AddField(
            model_name='modelprice',
            name='cache_write_1h',
            field=models.DecimalField(blank=True, decimal_places=9, max_digits=18, null=True, validators=[django.core.validators.MinValueValidator(Decimal('0'))], verbose_name='cache write for 1 hour, per 1M'),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='cache_write_1h_tokens',
            field=models.PositiveBigIntegerField(db_default=0, default=0),
        ),
    ]

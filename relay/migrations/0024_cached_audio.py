"""The price of audio that was read from the cache, and how many of its tokens a request had.

The column of usage records has a default in the database, for workers of the version before it that still run.
"""

from decimal import Decimal

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0023_batch_progress'),
    ]

    operations = [
        migrations.AddField(
            model_name='modelprice',
            name='cached_audio_input',
            field=models.DecimalField(blank=True, decimal_places=9, max_digits=18, null=True, validators=[django.core.validators.MinValueValidator(Decimal('0'))], verbose_name='cached audio input, per 1M'),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='cached_audio_input_tokens',
            field=models.PositiveBigIntegerField(db_default=0, default=0),
        ),
    ]

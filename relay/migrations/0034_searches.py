"""The price of a search on the web that an upstream makes for an answer, and how many of them a request had.

The column of usage records has a default in the database, for workers of the version before it that still run.
"""

from decimal import Decimal

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0033_aliases'),
    ]

    operations = [
        migrations.AddField(
            model_name='modelprice',
            name='per_search',
            field=models.DecimalField(blank=True, decimal_places=9, max_digits=18, null=True, validators=[django.core.validators.MinValueValidator(Decimal('0'))], verbose_name='per web search'),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='searches',
            field=models.PositiveIntegerField(db_default=0, default=0, help_text='On the web, by the upstream.'),
        ),
    ]

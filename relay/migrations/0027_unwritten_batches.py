"""Batches that have ended without their files, since there was no room for them."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0026_realtime_calls'),
    ]

    operations = [
        migrations.AddField(
            model_name='batch',
            name='unwritten',
            field=models.BooleanField(db_default=False, db_index=True, default=False, editable=False),
        ),
    ]

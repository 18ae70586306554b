"""What channels change in requests before they are sent.

The column may be null, for workers of the version before it that still run and add channels without it.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0029_message_batches'),
    ]

    operations = [
        migrations.AddField(
            model_name='channel',
            name='overrides',
            field=models.JSONField(blank=True, default=list, help_text='What is changed in requests before they are sent to this upstream: members set, removed or renamed, headers set or removed.', null=True),
        ),
    ]

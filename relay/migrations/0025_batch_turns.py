"""Batches say that they wait for their turn."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0024_cached_audio'),
    ]

    operations = [
        migrations.AlterField(
            model_name='batch',
            name='waits_for',
            field=models.CharField(blank=True, choices=[('limit', 'a limit of requests or tokens'), ('money', 'a top-up, or a higher quota of its token'), ('held', 'money that other requests hold'), ('budget', 'the renewal of a budget'), ('room', 'room for its results'), ('upstream', 'the upstream'), ('operator', 'a channel that can serve its model'), ('portal', 'the portal itself'), ('turn', 'its turn among other batches')], db_default='', default='', max_length=12),
        ),
    ]

"""What a running batch waits for, and when it will probably be done."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0022_client_secrets'),
    ]

    operations = [
        migrations.AddField(
            model_name='batch',
            name='ends_about',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='batch',
            name='waits_for',
            field=models.CharField(blank=True, choices=[('limit', 'a limit of requests or tokens'), ('money', 'a top-up, or a higher quota of its token'), ('held', 'money that other requests hold'), ('budget', 'the renewal of a budget'), ('room', 'room for its results'), ('upstream', 'the upstream'), ('operator', 'a channel that can serve its model'), ('portal', "the portal's database")], db_default='', default='', max_length=12),
        ),
        migrations.AddField(
            model_name='batch',
            name='waits_since',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='batch',
            name='waits_until',
            field=models.DateTimeField(null=True),
        ),
    ]

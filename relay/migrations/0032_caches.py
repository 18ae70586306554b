"""Prompt caches: which conversation a request belonged to, sums by key, switches from warm caches, settings of models.

The new columns have defaults in the database, for workers of the version before it that still run.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

_DAYS = 92  # of which sums by key are made from records that have been added up; pages show no more


def add_up_keys(apps, schema_editor):
    zone = ZoneInfo(settings.TIME_ZONE)
    first = datetime.now(UTC).astimezone(zone).date() - timedelta(days=_DAYS)
    begin = datetime(first.year, first.month, first.day, tzinfo=zone)
    mark = apps.get_model('relay', 'RollupMark').objects.first()
    if mark is None:
        return
    names = (
        'pk', 'started_at', 'api_key_id', 'status', 'end_reason', 'input_tokens', 'cached_input_tokens',
        'output_tokens', 'cost', 'shortfall', 'upstream_cost',
    )
    rows = apps.get_model('relay', 'UsageRecord').objects.filter(started_at__gte=begin, pk__lte=mark.last_id)
    faults = {'no_channel', 'upstream_error', 'timeout', 'truncated', 'internal_error', 'shutdown'}
    sums = {}
    for pk, at, key, status, reason, into, cached, out, cost, short, upstream in rows.values_list(*names).iterator(5000):
        if key is None or any(low <= pk <= high for low, high, _ in mark.gaps):
            continue
        fault = reason in faults
        values = (1, int(fault or status >= 400), int(fault), into, cached, out, cost - short, upstream)
        of = sums.setdefault((at.astimezone(zone).date().toordinal(), key), [0] * len(values))
        for index, value in enumerate(values):
            of[index] += value
    columns = ('requests', 'failed', 'faults', 'input', 'cached', 'output', 'charged', 'upstream_cost')
    table = apps.get_model('relay', 'KeyDay')
    table.objects.bulk_create(
        (table(day=day, api_key_id=key, **dict(zip(columns, of))) for (day, key), of in sums.items()), batch_size=500
    )


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0031_sessions'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='CacheSwitch',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(db_index=True)),
                ('model', models.CharField(max_length=120)),
                ('request_id', models.CharField(help_text='The first request that was answered elsewhere.', max_length=36)),
                ('reason', models.CharField(choices=[('failed', 'the request had failed there'), ('limit', 'it was at its limit'), ('cooling', 'it was left alone after failures'), ('key_out', 'its key was out of service'), ('key_removed', 'its key was disabled or deleted'), ('channel_off', 'the channel was disabled or deleted'), ('model_off', 'it no longer served the model'), ('priority', 'a channel of higher priority served'), ('returned', "the conversation's usual channel served again"), ('scattered', 'conversations of this model do not keep their channel'), ('config', 'channels, keys or their weights had been changed')], max_length=12)),
                ('detail', models.CharField(blank=True, help_text='The class of the failure behind it.', max_length=20)),
                ('tokens', models.BigIntegerField(help_text='That had been cached, and were read uncached or written anew.')),
                ('cost', models.BigIntegerField(help_text='Nano-USD that these cost more than from the cache, as an estimate.')),
                ('switches', models.PositiveIntegerField(default=1, help_text='That the row stands for.')),
                ('from_channel', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='relay.channel')),
                ('from_key', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='relay.apikey')),
                ('to_channel', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='relay.channel')),
                ('to_key', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='relay.apikey')),
                ('user', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'verbose_name': 'switch from a warm cache',
                'verbose_name_plural': 'switches from warm caches',
                'ordering': ['-id'],
                'default_permissions': (),
                'indexes': [models.Index(fields=['from_channel', 'at'], name='switch_channel_time')],
            },
        ),
        migrations.CreateModel(
            name='KeyDay',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('requests', models.BigIntegerField(default=0)),
                ('failed', models.BigIntegerField(default=0)),
                ('faults', models.BigIntegerField(default=0)),
                ('input', models.BigIntegerField(default=0)),
                ('cached', models.BigIntegerField(default=0)),
                ('output', models.BigIntegerField(default=0)),
                ('charged', models.BigIntegerField(default=0)),
                ('upstream_cost', models.BigIntegerField(default=0)),
                ('day', models.IntegerField()),
                ('api_key', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='relay.apikey')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('day', 'api_key'), name='one_sum_of_a_key_and_day')],
            },
        ),
        migrations.AddField(
            model_name='model',
            name='keeps_cache',
            field=models.BooleanField(db_default=False, default=False, help_text='While the channel and key that have a conversation in their prompt cache cannot answer, its requests get 503 “warm_channel_unavailable” instead of an answer from elsewhere, where the whole prompt is paid for again. It ends when the cache has expired.', verbose_name='rather fail than leave the cache'),
        ),
        migrations.AddField(
            model_name='model',
            name='native_only',
            field=models.BooleanField(db_default=False, default=False, help_text="Only channels that speak the client's own API serve it; where none can, requests get 503 “conversion_refused” instead of an answer that was converted.", verbose_name='rather fail than convert'),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='conversation',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AlterField(
            model_name='notice',
            name='kind',
            field=models.CharField(choices=[('low_balance', 'balance is low'), ('budget', 'budget reached'), ('redeemed', 'code redeemed'), ('key_disabled', 'upstream key taken out of service'), ('key_enabled', 'upstream key back in service'), ('channel', 'channel needs attention'), ('model_list', "an upstream's models changed"), ('cache_share', 'less comes from prompt caches')], max_length=12),
        ),
        migrations.AddIndex(
            model_name='usagerecord',
            index=models.Index(fields=['conversation', 'id'], name='usage_conversation'),
        ),
        migrations.RunPython(add_up_keys, migrations.RunPython.noop),
    ]

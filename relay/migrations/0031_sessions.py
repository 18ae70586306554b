"""Sessions: digests of their ids and names of apps in usage records, and sums by session.

The columns of usage records may be null, so that adding them rewrites no table, and workers of the version before it
that still run add records without them. The index has the records of sessions alone, which takes no room for the older
ones. MySQL has no such indexes: there it is a whole one.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


def _index_all(apps, schema_editor):
    """Make the index in databases that leave out those with a condition."""
    if not schema_editor.connection.features.supports_partial_indexes:
        record = apps.get_model('relay', 'UsageRecord')
        schema_editor.add_index(record, _whole())


def _drop_all(apps, schema_editor):
    if not schema_editor.connection.features.supports_partial_indexes:
        record = apps.get_model('relay', 'UsageRecord')
        schema_editor.remove_index(record, _whole())


def _whole():
    return models.Index(fields=['user', 'session', 'started_at'], name='usage_session_time')


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0030_overrides'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterField(
            model_name='model',
            name='sticky',
            field=models.BooleanField(default=True, help_text='Requests of a session, as the client names it, or with the same prompt_cache_key, previous_response_id, metadata.user_id or user go to the same channel and key, whose prompt cache knows them.', verbose_name='conversations keep their channel'),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='session',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='agent',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='parent_agent',
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name='usagerecord',
            name='app',
            field=models.CharField(max_length=32, null=True),
        ),
        migrations.AddIndex(
            model_name='usagerecord',
            index=models.Index(condition=models.Q(('session__isnull', False)), fields=['user', 'session', 'started_at'], name='usage_session_time'),
        ),
        migrations.RunPython(_index_all, _drop_all),
        migrations.CreateModel(
            name='SessionSum',
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
                ('turns', models.BigIntegerField(default=0)),
                ('busy_ms', models.BigIntegerField(default=0)),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField()),
                ('user', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('token', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='relay.token')),
                ('session', models.BigIntegerField()),
                ('app', models.CharField(blank=True, max_length=32)),
            ],
            options={
                'indexes': [models.Index(fields=['user', 'last_at'], name='session_user_time'), models.Index(fields=['last_at'], name='session_time')],
                'constraints': [models.UniqueConstraint(fields=('session', 'user'), name='one_sum_of_a_session')],
            },
        ),
        migrations.CreateModel(
            name='SessionPart',
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
                ('turns', models.BigIntegerField(default=0)),
                ('busy_ms', models.BigIntegerField(default=0)),
                ('first_at', models.DateTimeField()),
                ('last_at', models.DateTimeField()),
                ('user', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('session', models.BigIntegerField()),
                ('agent', models.BigIntegerField(default=0)),
                ('parent_agent', models.BigIntegerField(default=0)),
                ('model', models.CharField(max_length=120)),
                ('channel', models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='relay.channel')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('user', 'session', 'agent', 'parent_agent', 'model', 'channel'), name='one_part_of_a_session')],
            },
        ),
    ]

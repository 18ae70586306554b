"""Stored responses: the token of an interaction in the background, and an index of those that workers make.

The column may be null, so that adding it rewrites no table. The index has the few rows of running ones alone; MySQL
has no such indexes: there it is a whole one.
"""

import django.db.models.deletion
from django.db import migrations, models

_RUNNING = ~models.Q(owner='')


def _index_all(apps, schema_editor):
    """Make the index in databases that leave out those with a condition."""
    if not schema_editor.connection.features.supports_partial_indexes:
        schema_editor.add_index(apps.get_model('relay', 'StoredResponse'), _whole())


def _drop_all(apps, schema_editor):
    if not schema_editor.connection.features.supports_partial_indexes:
        schema_editor.remove_index(apps.get_model('relay', 'StoredResponse'), _whole())


def _whole():
    return models.Index(fields=['owner'], name='response_of_worker')


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0037_personal'),
    ]

    operations = [
        migrations.AddField(
            model_name='storedresponse',
            name='token',
            field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='relay.token'),
        ),
        migrations.AddIndex(
            model_name='storedresponse',
            index=models.Index(condition=_RUNNING, fields=['owner'], name='response_of_worker'),
        ),
        migrations.RunPython(_index_all, _drop_all),
    ]

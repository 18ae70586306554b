"""MySQL and MariaDB: texts are compared by their bytes, as in the other databases.

Their usual collations take letter cases, accents and spaces at the end for the same: there was no model GPT-4o beside
gpt-4o. Tables that are made from now on compare bytes from the beginning; here those of before follow, each rewritten
once. Those that have been are left out, so that it can be run again after an interruption.
"""

from django.apps import apps as installed
from django.db import migrations


def _convert(apps, schema_editor):
    connection = schema_editor.connection
    if connection.vendor != 'mysql':
        return
    collation = 'utf8mb4_nopad_bin' if connection.mysql_is_mariadb else 'utf8mb4_0900_bin'
    ours = {model._meta.db_table for model in installed.get_models(include_auto_created=True)} | {'django_migrations'}
    with connection.cursor() as cursor:
        cursor.execute(
            'SELECT table_name FROM information_schema.tables'
            ' WHERE table_schema = DATABASE() AND table_collation <> %s',
            [collation],
        )
        others = sorted(name for (name,) in cursor.fetchall() if name in ours)
        cursor.execute('SET foreign_key_checks = 0')
        try:
            for name in others:
                table = schema_editor.quote_name(name)
                cursor.execute(f'ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE {collation}')
        finally:
            cursor.execute('SET foreign_key_checks = 1')


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('relay', '0039_bills'),
    ]

    operations = [
        migrations.RunPython(_convert, migrations.RunPython.noop),
    ]

from django.db import migrations, models


def forget_upstream_ids(apps, schema_editor):
    """Version 0.2 names a response at its upstream by `response_id`, which is not the upstream's here.

    It tells the whole conversation where the upstream does not keep a response.
    """
    stored = apps.get_model('relay', 'StoredResponse')
    stored.objects.exclude(upstream_id='').update(upstream_keeps=False)


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0011_proofs_of_the_books'),
    ]

    operations = [
        migrations.AddField(
            model_name='storedresponse',
            name='upstream_id',
            field=models.CharField(blank=True, db_default='', default='', max_length=512),
        ),
        migrations.AddField(
            model_name='storedresponse',
            name='output',
            field=models.TextField(null=True),
        ),
        migrations.RunPython(migrations.RunPython.noop, forget_upstream_ids),
    ]

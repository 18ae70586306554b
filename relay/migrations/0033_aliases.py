"""Further names of models, and what is known of models: reasoning levels, the day on which they are retired.

The columns may be null, for workers of the version before them that still run and add models without them.
"""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0032_caches'),
    ]

    operations = [
        migrations.AddField(
            model_name='model',
            name='filled_facts',
            field=models.JSONField(blank=True, default=dict, editable=False, null=True),
        ),
        migrations.AddField(
            model_name='model',
            name='reasoning_levels',
            field=models.JSONField(blank=True, default=list, help_text='Values of reasoning_effort that it takes. Empty: those that its name tells.', null=True),
        ),
        migrations.AddField(
            model_name='model',
            name='retires_on',
            field=models.DateField(blank=True, help_text='The day on which its vendor takes it out of service.', null=True, verbose_name='retired on'),
        ),
        migrations.CreateModel(
            name='ModelAlias',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=120, unique=True)),
                ('model', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='aliases', to='relay.model')),
            ],
            options={
                'verbose_name': 'further name of a model',
                'verbose_name_plural': 'further names of models',
                'ordering': ['name'],
                'default_permissions': (),
            },
        ),
    ]

"""The token in whose name an open relay answers, and reports of what is wrong with an installation."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0036_adoption'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name='token',
            name='built_in',
            field=models.CharField(editable=False, max_length=16, null=True, unique=True),
        ),
        migrations.CreateModel(
            name='Diagnosis',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('began_at', models.DateTimeField(auto_now_add=True)),
                ('seen_at', models.DateTimeField(auto_now_add=True, help_text='When the process that makes it was last heard of.')),
                ('finished_at', models.DateTimeField(null=True)),
                ('language', models.CharField(default='en', max_length=12)),
                ('response', models.BooleanField(default=True, help_text='Whether one real request is made.')),
                ('stage', models.CharField(blank=True, max_length=80)),
                ('done', models.PositiveIntegerField(default=0, help_text='Checks that have ended.')),
                ('error', models.CharField(blank=True, max_length=300)),
                ('report', models.JSONField(default=dict, help_text='What `airelays doctor --json` prints; empty while it runs.')),
                ('actor', models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'ordering': ['-id'],
                'verbose_name_plural': 'diagnoses',
                'default_permissions': (),
            },
        ),
    ]

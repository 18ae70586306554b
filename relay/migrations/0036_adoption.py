"""What of AIRelays 0.x has been taken over, so that it does not come back after it was deleted."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('relay', '0035_chatgpt_accounts'),
    ]

    operations = [
        migrations.CreateModel(
            name='Adoption',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('source', models.CharField(max_length=200, unique=True)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
    ]

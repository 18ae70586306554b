"""Staff can fix validity, quota and budgets of a token, which its owner could change otherwise."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("relay", "0018_bytes_stored")]

    operations = [
        migrations.AddField(
            model_name="token",
            name="limits_fixed",
            field=models.BooleanField(
                default=False,
                help_text="Its owner cannot change its validity, quota and budgets.",
                verbose_name="limits fixed",
            ),
        )
    ]

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_attempts_and_invitations")]

    operations = [
        migrations.CreateModel(
            name="FormKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=43, unique=True)),
                ("used_at", models.DateTimeField(auto_now_add=True, db_index=True)),
            ],
            options={"verbose_name": "form that was sent"},
        ),
    ]

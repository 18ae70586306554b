"""A right of its own to see what upstreams cost and what is earned, for those who could already see all movements of money."""

from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.db import migrations


def grant(apps, schema_editor):
    Group, Permission, User = (
        apps.get_model("auth", "Group"),
        apps.get_model("auth", "Permission"),
        apps.get_model("accounts", "User"),
    )
    database = schema_editor.connection.alias
    # Django makes permissions after all migrations only.
    create_permissions(installed.get_app_config("relay"), verbosity=0, using=database, apps=apps)
    held = Permission.objects.using(database).filter(content_type__app_label="relay", codename="view_ledgerentry")
    earnings = Permission.objects.using(database).get(content_type__app_label="relay", codename="view_earnings")
    for group in Group.objects.using(database).filter(permissions__in=held):
        group.permissions.add(earnings)
    for user in User.objects.using(database).filter(user_permissions__in=held):
        user.user_permissions.add(earnings)


def withdraw(apps, schema_editor):
    Permission = apps.get_model("auth", "Permission")
    Permission.objects.using(schema_editor.connection.alias).filter(
        content_type__app_label="relay", codename="view_earnings"
    ).delete()


class Migration(migrations.Migration):
    dependencies = [("relay", "0015_refused_requests"), ("accounts", "0003_sign_in")]

    operations = [
        migrations.AlterModelOptions(
            name="usagerecord",
            options={
                "ordering": ["-id"],
                "permissions": [
                    ("end_request", "Can see and end running requests of everyone"),
                    ("view_earnings", "Can see what upstreams cost and what is earned"),
                ],
                "verbose_name": "usage record",
            },
        ),
        migrations.RunPython(grant, withdraw),
    ]

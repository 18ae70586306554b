"""A right of its own to help people sign in. Whoever may change users could do the same so far, and keeps it."""

from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.db import migrations

CODE = "help_sign_in"


def grant(apps, schema_editor):
    Group, Permission, User = (
        apps.get_model("auth", "Group"),
        apps.get_model("auth", "Permission"),
        apps.get_model("accounts", "User"),
    )
    database = schema_editor.connection.alias
    # Django makes permissions after all migrations only.
    create_permissions(installed.get_app_config("accounts"), verbosity=0, using=database, apps=apps)
    accounts = Permission.objects.using(database).filter(content_type__app_label="accounts")
    held, helping = accounts.filter(codename="change_user"), accounts.get(codename=CODE)
    for group in Group.objects.using(database).filter(permissions__in=held):
        group.permissions.add(helping)
    for user in User.objects.using(database).filter(user_permissions__in=held):
        user.user_permissions.add(helping)
    for group in Group.objects.using(database).filter(name="Support"):
        group.permissions.add(helping, *accounts.filter(codename="view_invitation"))


def withdraw(apps, schema_editor):
    Permission = apps.get_model("auth", "Permission")
    Permission.objects.using(schema_editor.connection.alias).filter(
        content_type__app_label="accounts", codename=CODE
    ).delete()


class Migration(migrations.Migration):
    dependencies = [("accounts", "0005_forms_once"), ("relay", "0007_roles")]

    operations = [
        migrations.AlterModelOptions(
            name="user",
            options={
                "permissions": [
                    ("view_as", "Can look at the portal as a user sees it, without changing anything"),
                    (CODE, "Can help to sign in"),
                ],
                "verbose_name": "user",
                "verbose_name_plural": "users",
            },
        ),
        migrations.RunPython(grant, withdraw),
    ]

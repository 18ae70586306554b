"""Which groups the portal made as roles, and what they were given so far.

Until now a role had the rights of the moment in which its group was made: an owner had none to sign-in providers on an
installation that began after they were added. What is missing is given after this, by `relay.roles`.
"""

from importlib import import_module

import django.db.models.deletion
from django.db import migrations, models

_MADE = import_module("relay.migrations.0007_roles")
_OWNERS_APPS = ("accounts", "relay", "auth", "socialaccount", "account")


def note(apps, schema_editor):
    """Note as given what was given, so that rights which were taken away from a role stay away."""
    Group, Permission, Role = (
        apps.get_model("auth", "Group"),
        apps.get_model("auth", "Permission"),
        apps.get_model("accounts", "Role"),
    )
    database = schema_editor.connection.alias
    for name in (_MADE.OWNER, *_MADE.ROLES):
        group = Group.objects.using(database).filter(name=name).first()
        if group is None:
            continue
        role = Role.objects.using(database).create(key=name.lower(), group=group)
        held = group.permissions.all()
        given = set(held)
        if name == _MADE.OWNER:
            # Of a kind of row of which the role has no right at all, it was given none.
            known = held.values("content_type")
            given |= set(Permission.objects.using(database).filter(content_type__in=known))
        else:
            for app, wanted in _MADE.ROLES[name].items():
                given |= set(_MADE._permissions(apps, app, wanted))
        role.given.add(*given)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0007_help_to_sign_in"), ("relay", "0018_bytes_stored")]

    operations = [
        migrations.CreateModel(
            name="Role",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=20, unique=True)),
                (
                    "given",
                    models.ManyToManyField(related_name="+", to="auth.permission"),
                ),
                (
                    "group",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="role", to="auth.group"
                    ),
                ),
            ],
            options={"default_permissions": ()},
        ),
        migrations.RunPython(note, migrations.RunPython.noop),
    ]

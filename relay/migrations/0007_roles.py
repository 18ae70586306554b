"""The roles of staff, as groups: owner, operator, accountant, support. What a role may do can be changed on its page; its name is free."""

from django.apps import apps as installed
from django.contrib.auth.management import create_permissions
from django.db import migrations

READ = ("view",)
ALL = ("view", "add", "change", "delete")

ROLES = {
    "Operator": {
        "relay": {
            "channel": ALL, "apikey": ALL, "channelmodel": ALL, "model": ALL, "modelpermission": ALL, "pool": ALL, "failurerule": ALL, "cooldown": READ,
            "blockedaddress": ALL, "incident": ALL, "errortext": ALL, "channelevent": READ, "usagerecord": (*READ, "end_request"), "token": READ, "modelprice": READ, "notice": READ,
            "upload": READ, "batch": READ,
        },
        "accounts": {"user": READ, "auditevent": READ},
        "auth": {"group": READ},
    },
    "Accountant": {
        "relay": {
            "modelprice": ALL, "redemptionbatch": ALL, "redemptioncode": READ, "ledgeraccount": READ, "ledgerentry": ("view", "add"), "budget": ALL, "notice": READ,
            "usagerecord": READ, "token": READ, "model": READ,
        },
        "accounts": {"user": READ, "groupsettings": READ, "auditevent": READ},
        "auth": {"group": READ},
    },
    "Support": {
        "relay": {
            "usagerecord": READ, "token": READ, "model": READ, "modelpermission": READ, "notice": READ, "incident": ALL, "errortext": READ, "channel": READ, "cooldown": READ,
            "ledgeraccount": READ, "blockedaddress": ("view", "delete"), "upload": READ, "batch": READ,
        },
        "accounts": {"user": (*READ, "view_as")},
        "auth": {"group": READ},
    },
}  # fmt: skip
OWNER = "Owner"


def _permissions(apps, app, wanted):
    Permission = apps.get_model("auth", "Permission")
    found = []
    for model, actions in wanted.items():
        for action in actions:
            code = action if action in {"end_request", "view_as"} else f"{action}_{model}"
            found.append(Permission.objects.get(content_type__app_label=app, content_type__model=model, codename=code))
    return found


def make(apps, schema_editor):
    Group, Permission = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    for name in ("accounts", "relay", "auth"):  # Django makes them after all migrations only
        config = installed.get_app_config(name)
        create_permissions(config, verbosity=0, using=schema_editor.connection.alias, apps=apps if name != "auth" else installed)
    for role, wanted in ROLES.items():
        group, made = Group.objects.get_or_create(name=role)
        if made:
            for app, models in wanted.items():
                group.permissions.add(*_permissions(apps, app, models))
    owner, made = Group.objects.get_or_create(name=OWNER)
    if made:
        owner.permissions.add(*Permission.objects.filter(content_type__app_label__in=("relay", "accounts", "auth", "socialaccount", "account")))


def unmake(apps, schema_editor):
    """Groups that have members stay: somebody's rights hang on them."""
    Group = apps.get_model("auth", "Group")
    for group in Group.objects.filter(name__in=[*ROLES, OWNER], user__isnull=True):
        group.delete()


class Migration(migrations.Migration):
    dependencies = [
        ("relay", "0006_pages"),
        ("accounts", "0003_sign_in"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
        ("socialaccount", "0006_alter_socialaccount_extra_data"),
    ]

    operations = [migrations.RunPython(make, unmake)]

"""What the roles of staff may do. Given after every migration, so that no role depends on when a portal was set up."""

from __future__ import annotations

from typing import Any, Final

from django.apps import AppConfig
from django.apps import apps as registry
from django.contrib.auth.models import Permission
from django.db.models.signals import post_migrate

from accounts.models import Role

_SEE: Final = ("view",)
_ALL: Final = ("view", "add", "change", "delete")
Rights = dict[str, dict[str, tuple[str, ...]]]  # by app and model: what Django has for each, or whole codenames

OWNER: Final = "owner"  # everything in these apps
OWNERS_APPS: Final = ("accounts", "relay", "auth", "socialaccount", "account")
ROLES: Final[dict[str, Rights]] = {
    "operator": {
        "relay": {
            **dict.fromkeys(("channel", "apikey", "channelmodel", "model", "modelpermission", "pool"), _ALL),
            **dict.fromkeys(("failurerule", "blockedaddress", "incident", "errortext"), _ALL),
            **dict.fromkeys(("cooldown", "channelevent", "token", "modelprice", "notice", "upload", "batch"), _SEE),
            "usagerecord": (*_SEE, "end_request"),
            "chatgptaccount": (*_SEE, "change"),
        },
        "accounts": {"user": _SEE, "auditevent": _SEE},
        "auth": {"group": _SEE},
    },
    "accountant": {
        "relay": {
            **dict.fromkeys(("modelprice", "redemptionbatch", "budget", "billingkey"), _ALL),
            **dict.fromkeys(("redemptioncode", "ledgeraccount", "notice", "token", "model", "channel"), _SEE),
            "upstreambill": _SEE,
            "ledgerentry": ("view", "add"),
            "usagerecord": (*_SEE, "view_earnings"),
        },
        "accounts": {"user": _SEE, "groupsettings": _SEE, "auditevent": _SEE},
        "auth": {"group": _SEE},
    },
    "support": {
        "relay": {
            **dict.fromkeys(("usagerecord", "token", "model", "modelpermission", "notice", "errortext"), _SEE),
            **dict.fromkeys(("channel", "cooldown", "ledgeraccount", "upload", "batch"), _SEE),
            "incident": _ALL,
            "blockedaddress": ("view", "delete"),
        },
        "accounts": {"user": (*_SEE, "view_as", "help_sign_in"), "invitation": _SEE},
        "auth": {"group": _SEE},
    },
}
"""Accountants see channels, since a price or a cost can be that of one channel."""


def rights_of(key: str) -> list[Permission]:
    """Return the rights of a role, as far as they are in the database."""
    if key == OWNER:
        return list(Permission.objects.filter(content_type__app_label__in=OWNERS_APPS))
    wanted = {
        (app, model, action if "_" in action else f"{action}_{model}")
        for app, models in ROLES.get(key, {}).items()
        for model, actions in models.items()
        for action in actions
    }
    found = Permission.objects.filter(content_type__app_label__in=OWNERS_APPS).select_related("content_type")
    return [one for one in found if (one.content_type.app_label, one.content_type.model, one.codename) in wanted]


def give_rights() -> None:
    """Give each role the rights that it has never been given."""
    for role in Role.objects.select_related("group"):
        given = set(role.given.values_list("pk", flat=True))
        new = [right for right in rights_of(role.key) if right.pk not in given]
        role.group.permissions.add(*new)
        role.given.add(*new)


def _migrated(sender: AppConfig, using: str, apps: Any = registry, **_: Any) -> None:
    """`apps`: as they are after the last migration; `manage.py flush` does not say."""
    try:
        apps.get_model("accounts", "Role")
    except LookupError:  # migrated back to a time without it
        return
    if using == "default":
        give_rights()


def connect(app: AppConfig) -> None:
    """Give rights after the permissions of all apps are made: `app` must be the last that has any."""
    post_migrate.connect(_migrated, sender=app, dispatch_uid="relay.roles")

"""Changes that Django itself makes to what the relay keeps in memory, and the group of new users."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from accounts.models import Change, User
from accounts.models.change import announce


def connect() -> None:
    m2m_changed.connect(_membership, sender=User.groups.through, dispatch_uid="accounts.membership")
    post_save.connect(_group, sender=Group, dispatch_uid="accounts.group.save")
    post_delete.connect(_group, sender=Group, dispatch_uid="accounts.group.delete")
    post_save.connect(_new_user, sender=User, dispatch_uid="accounts.user.new")


def _membership(instance: Any, action: str, reverse: bool, pk_set: set[int] | None, **_: Any) -> None:
    if action not in {"post_add", "post_remove", "pre_clear", "post_clear"}:
        return
    if not reverse:
        announce(Change.USER, [str(instance.pk)])
    else:  # group.user_set.add(…)
        users = pk_set if pk_set is not None else instance.user_set.values_list("pk", flat=True)
        announce(Change.USER, [str(pk) for pk in users])


def _group(**_: Any) -> None:
    announce(Change.CATALOG)


def _new_user(instance: User, created: bool, raw: bool, **_: Any) -> None:
    if created and not raw:
        with transaction.atomic():
            instance.groups.add(*Group.objects.filter(settings__is_default=True))

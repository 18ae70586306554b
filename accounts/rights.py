"""Who may use a power of staff. Asked at every door, each time: pages, websockets, /v1, exports, viewing as a user."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db.models import Q


def has_required_factor(user: Any) -> bool:
    """Whether a user has a second factor, or none is required.

    Takes one query for each object that stands for a user, as Django's own look-up of permissions does, and none when
    no factor is required.
    """
    if not settings.CONFIG.staff_mfa:
        return True
    found: bool | None = getattr(user, "_has_factor", None)
    if found is None:
        from allauth.mfa.models import Authenticator  # models import this module before allauth is ready

        found = user._has_factor = bool(Authenticator.objects.filter(user_id=user.pk).exists())
    return found


def may_act_as_staff(user: Any) -> bool:
    """Whether a user may use any power of staff: active, staff, with the second factor that is required."""
    return bool(user.is_active and user.is_staff and has_required_factor(user))


def may(user: Any, *powers: str) -> bool:
    """Whether a user has all of these permissions now. False for anonymous visitors."""
    return bool(user is not None and user.is_authenticated and user.is_active and user.has_perms(powers))


def may_everything(user: Any) -> bool:
    """Whether a user is a superuser who may act as staff now."""
    return bool(getattr(user, "is_superuser", False) and may_act_as_staff(user))


def exceeds(user: Any, person: Any) -> bool:
    """Whether a user has rights that a person has not, so that the person may not come into that account.

    Rights count as stored: also those that are asleep, of a disabled user or of no staff.
    """
    if user == person or may_everything(person):
        return False
    if user.is_superuser:
        return True
    from django.contrib.auth.models import Permission  # models import this module before the applications are ready

    stored = Permission.objects.filter(Q(group__user=user) | Q(user=user))
    rights = {f"{app}.{code}" for app, code in stored.values_list("content_type__app_label", "codename")}
    return not (may(person, "auth.change_group") or rights <= person.get_all_permissions())


def people_who_may(power: str, most: int = 5) -> str:
    """Return the names of staff who have a permission, for a page that says whom to ask; empty when nobody has it."""
    found: Any = get_user_model()._default_manager
    names = list(
        found.with_perm(power, backend=settings.AUTHENTICATION_BACKENDS[0])
        .filter(is_staff=True)
        .order_by("is_superuser", "username")
        .values_list("username", flat=True)[: most + 1]
    )
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


def staff_member(user_id: int, *powers: str) -> Any:
    """Return the user with this id, read anew, if it has all of these permissions now; otherwise None."""
    user = get_user_model()._default_manager.filter(pk=user_id).first()
    return user if may(user, *powers) else None

"""Signal handlers: announce changes of groups, prepare new users, and audit what users do to their sign-in."""

from __future__ import annotations

from typing import Any

from allauth.account import signals as account
from allauth.account.models import EmailAddress
from allauth.mfa import signals as mfa
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save

from accounts.models import AuditEvent, Change, User
from accounts.models.change import announce

# Signals of allauth, and the actions in the audit log.
_AUDITED: dict[Any, str] = {
    account.password_changed: "password.change",
    account.password_set: "password.set",
    account.password_reset: "password.reset",
    account.email_confirmed: "email.confirm",
    account.email_removed: "email.remove",
    mfa.authenticator_added: "second-factor.add",
    mfa.authenticator_removed: "second-factor.remove",
}


def connect() -> None:
    """Connect the handlers. Called once, when the app is ready."""
    m2m_changed.connect(_membership_changed, sender=User.groups.through, dispatch_uid="accounts.membership")
    post_save.connect(_group_changed, sender=Group, dispatch_uid="accounts.group.save")
    post_delete.connect(_group_changed, sender=Group, dispatch_uid="accounts.group.delete")
    post_save.connect(_user_saved, sender=User, dispatch_uid="accounts.user.new")
    account.user_logged_in.connect(_signed_in, dispatch_uid="accounts.sign-in")
    account.user_signed_up.connect(_signed_up, dispatch_uid="accounts.sign-up")
    for signal, action in _AUDITED.items():
        signal.connect(_audit(action), weak=False, dispatch_uid=f"accounts.{action}")


def _membership_changed(instance: Any, action: str, reverse: bool, pk_set: set[int] | None, **_: Any) -> None:
    if action not in {"post_add", "post_remove", "pre_clear", "post_clear"}:
        return
    if not reverse:
        announce(Change.USER, [str(instance.pk)])
    else:  # group.user_set.add(…)
        users = pk_set if pk_set is not None else instance.user_set.values_list("pk", flat=True)
        announce(Change.USER, [str(pk) for pk in users])


def _group_changed(**_: Any) -> None:
    announce(Change.CATALOG)


def _user_saved(instance: User, created: bool, raw: bool, **_: Any) -> None:
    if created and not raw:
        with transaction.atomic():
            instance.groups.add(*Group.objects.filter(settings__is_default=True))
    if not raw and not instance.signed_up and instance.email:
        _confirm_email(instance)


def _confirm_email(user: User) -> None:
    """Confirm the address of a user, as staff typed it. One that another user has confirmed stays unconfirmed."""
    email = user.email.lower()
    row = EmailAddress.objects.filter(user=user, email=email).first()
    if (row is None or not row.verified) and not EmailAddress.objects.filter(email=email, verified=True).exclude(
        user=user
    ).exists():
        EmailAddress.objects.filter(user=user, primary=True).exclude(email=email).update(primary=False)
        EmailAddress.objects.update_or_create(user=user, email=email, defaults={"verified": True, "primary": True})


def _ip(request: Any) -> str | None:
    return request.META.get("REMOTE_ADDR") if request is not None else None


def _signed_in(request: Any, user: User, **_: Any) -> None:
    AuditEvent.write("sign-in", user, None, _ip(request))


def _signed_up(request: Any, user: User, **_: Any) -> None:
    """Add a new user to the groups of the invitation, and audit the sign-up."""
    invitation = getattr(request, "invitation", None)
    if invitation is not None:
        user.groups.add(*invitation.groups.all())
        request.session.pop("invitation", None)
    AuditEvent.write(
        "sign-up", user, None, _ip(request), invitation=invitation.note if invitation is not None else None
    )


def _audit(action: str) -> Any:
    """Return a handler that writes an action into the audit log."""

    def write(request: Any = None, user: Any = None, **details: Any) -> None:
        authenticator = details.get("authenticator")
        person = user or (
            details["email_address"].user if "email_address" in details else getattr(authenticator, "user", None)
        )
        AuditEvent.write(
            action, person, None, _ip(request), **({"type": authenticator.type} if authenticator is not None else {})
        )

    return write

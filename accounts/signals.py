"""Signal handlers: announce changes of groups, prepare new users, and audit what users do to their sign-in."""

from __future__ import annotations

from typing import Any

from allauth.account import signals as account
from allauth.account.models import EmailAddress
from allauth.mfa import signals as mfa
from allauth.mfa.models import Authenticator
from allauth.socialaccount import signals as social
from django.conf import settings
from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete

from accounts.models import AuditEvent, Change, Invitation, User
from accounts.models.change import announce
from accounts.sign_in import attempts, sign_up, throttle

# Signals of allauth, and the actions in the audit log.
_AUDITED: dict[Any, str] = {
    account.password_changed: "password.change",
    account.password_set: "password.set",
    account.password_reset: "password.reset",
    account.email_confirmed: "email.confirm",
    account.email_removed: "email.remove",
    mfa.authenticator_added: "second-factor.add",
    mfa.authenticator_removed: "second-factor.remove",
    social.social_account_added: "connection.add",
    social.social_account_removed: "connection.remove",
}


def connect() -> None:
    """Connect the handlers. Called once, when the app is ready."""
    m2m_changed.connect(_membership_changed, sender=User.groups.through, dispatch_uid="accounts.membership")
    m2m_changed.connect(_membership_changed, sender=User.user_permissions.through, dispatch_uid="accounts.rights")
    m2m_changed.connect(
        _rights_of_group_changed, sender=Group.permissions.through, dispatch_uid="accounts.group.rights"
    )
    post_save.connect(_factors_changed, sender=Authenticator, dispatch_uid="accounts.factor.save")
    post_delete.connect(_factors_changed, sender=Authenticator, dispatch_uid="accounts.factor.delete")
    post_save.connect(_group_changed, sender=Group, dispatch_uid="accounts.group.save")
    post_delete.connect(_group_changed, sender=Group, dispatch_uid="accounts.group.delete")
    pre_delete.connect(_group_deleted, sender=Group, dispatch_uid="accounts.group.members")
    pre_delete.connect(_invitation_deleted, sender=Invitation, dispatch_uid="accounts.invitation.delete")
    post_save.connect(_user_saved, sender=User, dispatch_uid="accounts.user.new")
    account.user_logged_in.connect(_signed_in, dispatch_uid="accounts.sign-in")
    account.user_signed_up.connect(_signed_up, dispatch_uid="accounts.sign-up")
    account.email_confirmed.connect(_address_proved, dispatch_uid="accounts.address-proved")
    account.password_reset.connect(_password_reset, dispatch_uid="accounts.attempts")
    for signal, action in _AUDITED.items():
        signal.connect(_audit(action), weak=False, dispatch_uid=f"accounts.{action}")


def _invitation_deleted(instance: Invitation, **_: Any) -> None:
    """What is taken back invites nobody: not those either who are about to prove their address."""
    if settings.CONFIG.signup != "open":
        for user in sign_up.unproved().filter(invitation=instance):
            sign_up.release(user)


def _membership_changed(instance: Any, action: str, reverse: bool, pk_set: set[int] | None, **_: Any) -> None:
    if action not in {"post_add", "post_remove", "pre_clear", "post_clear"}:
        return
    if not reverse:
        announce(Change.USER, [str(instance.pk)])
    else:  # group.user_set.add(…)
        users = pk_set if pk_set is not None else instance.user_set.values_list("pk", flat=True)
        announce(Change.USER, [str(pk) for pk in users])


def _rights_of_group_changed(instance: Any, action: str, reverse: bool, pk_set: set[int] | None, **_: Any) -> None:
    """Announce staff in a group whose permissions have changed: workers remember what their tokens may do."""
    if action not in {"post_add", "post_remove", "pre_clear", "post_clear"}:
        return
    groups = [instance.pk] if not reverse else list(pk_set or instance.group_set.values_list("pk", flat=True))
    members = User.objects.filter(groups__in=groups, is_staff=True).distinct()
    announce(Change.USER, [str(pk) for pk in members.values_list("pk", flat=True)])


def _factors_changed(instance: Authenticator, raw: bool = False, **_: Any) -> None:
    """Announce a user whose second factors have changed, on which the powers of staff may depend."""
    if not raw and settings.CONFIG.staff_mfa:
        announce(Change.USER, [str(instance.user_id)])


def _group_deleted(instance: Group, **_: Any) -> None:
    announce(Change.USER, [str(pk) for pk in User.objects.filter(groups=instance).values_list("pk", flat=True)])


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


def _password_reset(user: User, **_: Any) -> None:
    attempts.forget(user, throttle.PASSWORD)


def _signed_in(request: Any, user: User, **_: Any) -> None:
    AuditEvent.write("sign-in", user, None, _ip(request))


def _signed_up(request: Any, user: User, **_: Any) -> None:
    note = user.invitation.note if user.invitation is not None else None
    AuditEvent.write("sign-up", user, None, _ip(request), invitation=note)


def _address_proved(request: Any, email_address: EmailAddress, **_: Any) -> None:
    """Count the invitation of a new account. Raises ImmediateHttpResponse when somebody else has used it up."""
    user = User.objects.select_related("invitation").get(pk=email_address.user_id)
    if not user.is_active:  # given up meanwhile: it holds no address
        email_address.delete()
    elif user.invitation is not None:
        sign_up.settle_invitation(request, user)


def _audit(action: str) -> Any:
    """Return a handler that writes an action into the audit log."""

    def write(request: Any = None, user: Any = None, **details: Any) -> None:
        authenticator = details.get("authenticator")
        of = ("email_address", "authenticator", "sociallogin", "socialaccount")
        person = user or next((details[name].user for name in of if name in details), None)
        AuditEvent.write(
            action, person, None, _ip(request), **({"type": authenticator.type} if authenticator is not None else {})
        )

    return write

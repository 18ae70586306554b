"""What staff do for somebody who cannot sign in: a mail to set a new password, lost second factors, lifted limits.

Nobody is helped by somebody who may do less: whoever can remove a second factor could otherwise take over an account
with more rights, given its mailbox.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from allauth.account.adapter import get_adapter
from allauth.account.internal.flows.password_reset_by_code import PasswordResetVerificationProcess
from allauth.account.models import EmailAddress
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.tokens import default_token_generator
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import base36_to_int, int_to_base36
from django.utils.translation import gettext, gettext_noop

from accounts.models import AuditEvent, StaffKey, User
from accounts.preferences import language_of
from accounts.rights import exceeds, may
from accounts.sign_in import attempts

HELP: Final = "accounts.help_sign_in"
_MOST_EVENTS: Final = 100
_GUESSED: Final = ("password", "code", "login-code")  # the others count mails
# Actions in the audit log that are about signing in: of somebody about their own account, and of others about it.
_OWN: Final = (
    "sign-in",
    "sign-up",
    "password.change",
    "password.set",
    "password.reset",
    "email.confirm",
    "email.remove",
    "second-factor.add",
    "second-factor.remove",
    "connection.add",
    "connection.remove",
)
_OF_OTHERS: Final = (
    "user.add",
    "user.change",
    "user.enable",
    "user.disable",
    "password.change",
    "password-reset.send",
    "second-factor.reset",
    "sign-in.lift",
    *(f"{what}.limited" for what in ("sign-in", "sign-in-code", "second-factor", "password-reset", "reauthenticate")),
)
SIGN_IN_FIELDS: Final = frozenset(
    ("username", "email", "password", "is_active", "is_staff", "is_superuser", "groups", "user_permissions")
)


def tell_owner(request: HttpRequest, user: User, what: str, email: str | None = None) -> None:
    """Mail the owner of an account what staff changed about signing in to it; to `email` or to the present address."""
    with language_of(user):
        get_adapter(request).send_notification_mail(
            "account/email/changed_by_staff", user, {"what": gettext(what)}, email=email
        )


# -- whom somebody may help -------------------------------------------------------------------------------------------


def why_not(person: Any, user: User) -> str:
    """Return why somebody who has the right to help may not help this user, empty when they may."""
    if person.pk == user.pk:
        return gettext("This is your own account: what you need is on its page, under Account.")
    if exceeds(user, person):
        return gettext("This person has rights that you do not have. Only somebody who has them, too, can help.")
    return ""


def may_help(person: Any, user: User) -> bool:
    return may(person, HELP) and not why_not(person, user)


# -- what somebody can do ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Limited:
    """A limit that refuses further attempts at an account."""

    kind: str  # what is tried, a key of `attempts.LIMITS`
    until: datetime


def reset_address(user: User) -> str:
    """Return the address to which a mail for a new password can go, empty when none is proved to be the user's."""
    proved = EmailAddress.objects.filter(user=user, email=user.email.lower(), verified=True)
    return user.email if user.email and proved.exists() else ""


def why_no_mail(user: User) -> str:
    """Return why no mail for a new password can be sent, empty when one can."""
    if not settings.MAILS:
        return gettext(
            "This portal cannot send mail: its mail server is not set up (AIRELAYS_EMAIL_HOST). Until then, whoever "
            "may change users can set a password on the user's page."
        )
    if not user.is_active:
        return gettext("This account is disabled.")
    if not reset_address(user):
        return gettext("No address of this account is proved: sign-up was never finished, or the address is missing.")
    return ""


def send_reset_mail(request: HttpRequest, user: User) -> bool:
    """Mail a link to set a new password, and audit it. False when the mail server does not take it."""
    key = f"{int_to_base36(user.pk)}-{default_token_generator.make_token(user)}"
    link = f"{settings.CONFIG.origin(request)}{reverse('password-reset-link', args=[key])}"
    context = {"link": link, "hours": settings.PASSWORD_RESET_TIMEOUT // 3600}
    try:
        with language_of(user):
            get_adapter(request).send_mail("account/email/reset_by_staff", reset_address(user), context)
    except ImmediateHttpResponse:  # the adapter has logged why
        return False
    AuditEvent.write("password-reset.send", request.user, user, request.META.get("REMOTE_ADDR"))
    return True


def open_reset_link(request: HttpRequest, key: str) -> HttpResponse:
    """Lead who comes from such a mail to the form for a new password. The link holds until it was used."""
    number, _dash, token = key.partition("-")
    try:
        user = User.objects.filter(pk=base36_to_int(number), is_active=True).first()
    except (ValueError, OverflowError):
        user = None
    if user is not None and request.user.is_authenticated and request.user.pk != user.pk:
        logout(request)
    if user is None or not reset_address(user) or not default_token_generator.check_token(user, token):
        return render(request, "account/reset_link_over.html", status=410)
    state = PasswordResetVerificationProcess.initial_state(user, reset_address(user))
    PasswordResetVerificationProcess(request, state=state, user=user).confirm_code()
    return redirect("account_complete_password_reset")


def remove_factors(request: HttpRequest, user: User) -> tuple[int, int]:
    """Remove all second factors of a user, end the staff keys, audit it and tell the owner. Returns how many of each.

    Whoever may be in the account from then on needs the password alone: keys that were made before are not trusted.
    """
    ip = request.META.get("REMOTE_ADDR")
    with transaction.atomic():
        count: int = Authenticator.objects.filter(user=user).delete()[0]
        AuditEvent.write("second-factor.reset", request.user, user, ip, count=count)
        ended = StaffKey.revoke_all(user, request.user, ip)
    if count or ended:
        said = gettext_noop("Your second factors were removed.")
        if ended:
            said = gettext_noop("Your second factors were removed, and your staff keys were revoked.")
        tell_owner(request, user, said)
    return count, ended


def limits_of(user: User) -> list[Limited]:
    """Return the limits that refuse attempts at an account now, from strange browsers or from one of its own."""
    found = ((kind, attempts.limited_until(user, kind)) for kind in attempts.LIMITS)
    return [Limited(kind, until) for kind, until in found if until is not None]


def failures_of(user: User) -> list[tuple[str, int]]:
    """Return how often something was tried in vain at an account lately, by kind: a key of `attempts.LIMITS`."""
    return [(kind, count) for kind in _GUESSED if (count := attempts.failed(user, kind))]


def lift_limits(request: HttpRequest, user: User) -> None:
    """Forget all attempts at an account, and audit it. What an address may try is counted apart, and stays."""
    with transaction.atomic():
        for kind in attempts.LIMITS:
            attempts.forget(user, kind)
        AuditEvent.write("sign-in.lift", request.user, user, request.META.get("REMOTE_ADDR"))


def events_of(user: User) -> list[AuditEvent]:
    """Return what the audit log has about signing in to an account, the newest first."""
    own = AuditEvent.objects.filter(actor=user, action__in=_OWN)
    about = AuditEvent.objects.filter(target_type="user", target_id=str(user.pk), action__in=_OF_OTHERS)
    rows = {row.pk: row for row in [*own[:_MOST_EVENTS], *about[:_MOST_EVENTS]] if _is_about_sign_in(row)}
    return [rows[pk] for pk in sorted(rows, reverse=True)][:_MOST_EVENTS]


def _is_about_sign_in(event: AuditEvent) -> bool:
    return event.action != "user.change" or bool(changed_fields(event))


def changed_fields(event: AuditEvent) -> Iterable[str]:
    """Return which fields about signing in an entry of the log has changed."""
    changes = (event.detail or {}).get("changes")
    return sorted(SIGN_IN_FIELDS & changes.keys()) if isinstance(changes, dict) else ()

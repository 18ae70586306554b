"""Signing up: who may, invitations, and accounts whose address is not proved yet, which hold nothing for long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from allauth.account.models import EmailAddress
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import formats, timezone
from django.utils.translation import gettext as _

from accounts.models import AuditEvent, Invitation, User
from accounts.sign_in import invitations
from portal.lib import clock

_INVITATION: Final = "invitation"  # session key of the invitation's code
_PROOF: Final = "invitation_proof"  # session key of what the mailed link says more
_CODE_LIVES: Final = timedelta(minutes=15)  # that is mailed to prove an address
_KEPT: Final = timedelta(days=1)  # accounts whose address was not proved


def invitation_of(request: HttpRequest) -> Invitation | None:
    """Return the open invitation of a visitor, from the link or the session, and store its code in the session."""
    found = _presented(request)
    return found if found is not None and found.open() else None


def _presented(request: HttpRequest) -> Invitation | None:
    code = str(request.GET.get("invitation", "") or request.session.get(_INVITATION, ""))[:100]
    found = Invitation.find(code)
    if found is not None:
        request.session[_INVITATION] = code
        if proof := str(request.GET.get(invitations.PROOF, ""))[:500]:
            request.session[_PROOF] = proof
    return found


def invited_email(request: HttpRequest) -> str:
    """Return the only address that a visitor's invitation is for, empty when there is none."""
    invited = invitation_of(request)
    return invited.email if invited is not None else ""


def proved_by_invitation(request: HttpRequest, email: str) -> bool:
    """Whether a visitor has come by the link that was mailed to this address."""
    invited = invitation_of(request)
    return invited is not None and invitations.proves(invited, str(request.session.get(_PROOF, "")), email)


def refusal(request: HttpRequest) -> str:
    """Return why a visitor may not sign up, and what to do; empty when the visitor may."""
    if settings.CONFIG.signup == "off":
        return _("Accounts of this portal are made by its administrator. Ask for one.")
    if settings.CONFIG.signup == "open":
        return ""
    found = _presented(request)
    if found is not None:
        return refusal_of(found)
    if request.GET.get("invitation") or request.session.get(_INVITATION):
        return _("This invitation is not known here. Check the link for a typing error, or ask for another.")
    return _("New accounts need an invitation. Open the link that you were sent, or ask the administrator for one.")


def refusal_of(invitation: Invitation) -> str:
    """Return why an invitation cannot be used, empty when it can."""
    if invitation.used >= invitation.uses:
        return _("This invitation has been used. If you made an account with it, sign in; otherwise ask for another.")
    if not invitation.open() and invitation.expires_at is not None:
        ended = formats.date_format(timezone.localtime(invitation.expires_at), "DATETIME_FORMAT")
        return _("This invitation ended on %(date)s. Ask for another.") % {"date": ended}
    return ""


def closed_page(request: HttpRequest, why: str) -> HttpResponse:
    """Return the page that says why somebody cannot sign up."""
    request.sign_up_refusal = why  # type: ignore[attr-defined]  # for the template, which allauth renders as well
    return render(request, "account/signup_closed.html", status=403)


def check_email(request: HttpRequest, email: str) -> None:
    """Check that an e-mail address may sign up. Raises ValidationError."""
    invited = invitation_of(request)
    if invited is not None:
        if invited.email and invited.email.lower() != email.lower():
            raise ValidationError(_("This invitation is for another e-mail address."))
        return
    domains = settings.CONFIG.signup_domains
    if domains and email.rpartition("@")[2].lower() not in {domain.lower().lstrip("@") for domain in domains}:
        raise ValidationError(_("Accounts here are for addresses at %(domains)s.") % {"domains": ", ".join(domains)})


def attach_invitation(request: HttpRequest, user: User) -> None:
    """Note on a new account with which invitation it is made. Raises ImmediateHttpResponse when it may not be made."""
    if why := refusal(request):
        raise ImmediateHttpResponse(closed_page(request, why))
    user.invitation = invitation_of(request)


def settle_invitation(request: HttpRequest, user: User) -> None:
    """Count the invitation of a new account as used, now that its address is proved or need not be.

    Raises ImmediateHttpResponse when somebody else has used it up meanwhile; the account is then given up.
    """
    invitation = user.invitation
    if invitation is None:
        return
    with transaction.atomic():
        taken = invitation.take()
        if taken:
            user.groups.add(*invitation.groups.all())
        user.invitation = None
        user.save(update_fields=["invitation"])
        given_up = not taken and settings.CONFIG.signup == "invitation"
        if given_up:
            release(user)
    request.session.pop(_INVITATION, None)
    request.session.pop(_PROOF, None)
    if given_up:
        invitation.refresh_from_db()
        raise ImmediateHttpResponse(closed_page(request, refusal_of(invitation) or refusal(request)))


# -- accounts whose address is not proved ----------------------------------------------------------------------------


def unproved(email: str = "") -> QuerySet[User]:
    """Accounts that somebody made and has never entered, as their address is not proved; those with this address."""
    found = User.objects.filter(signed_up=True, last_login=None, is_active=True)
    found = found.exclude(pk__in=EmailAddress.objects.filter(verified=True).values("user"))
    if email:
        same = EmailAddress.objects.filter(email=email.lower()).values("user")
        found = found.filter(Q(email__iexact=email) | Q(pk__in=same))
    return found


def release(user: User) -> None:
    """Give up an account that was never entered: its name, address and connections are free again.

    The row stays, disabled, since the ledger has an account for it.
    """
    with transaction.atomic():
        EmailAddress.objects.filter(user=user).delete()
        SocialAccount.objects.filter(user=user).delete()
        name = user.username
        user.username, user.email, user.is_active = f"unconfirmed-{user.pk}", "", False
        user.set_unusable_password()
        user.save()
        AuditEvent.write("sign-up.expire", None, user, name=name)


def release_abandoned(name: str = "", email: str = "") -> None:
    """Give up accounts with this name or address whose code has expired; without both, all of a day ago."""
    old = unproved().filter(date_joined__lt=clock.now() - (_CODE_LIVES if name or email else _KEPT))
    if name or email:
        old = old.filter(Q(username__iexact=name) if name else Q(pk__in=unproved(email).values("pk")))
    for user in old[:100]:
        release(user)


def taken_by_others(email: str, users: list[Any]) -> bool:
    """Whether an account that counts has an address, among `users` who have it: an unproved address binds nobody."""
    return bool({user.pk for user in users} - set(unproved(email).values_list("pk", flat=True)))

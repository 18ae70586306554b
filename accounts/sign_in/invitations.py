"""Mails with invitations. Following the link in one proves the address that it was sent to."""

from __future__ import annotations

import logging
import smtplib
from typing import Final
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.core import signing
from django.core.mail import send_mail
from django.http import HttpRequest
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.translation import gettext as _

from accounts.models import Invitation, User

logger: Final = logging.getLogger(__name__)
_SALT: Final = "accounts.sign_in.invitations"
PROOF: Final = "proof"  # parameter of the mailed link; the one that the administrator sees has none


def link_of(request: HttpRequest, code: str, **more: str) -> str:
    """Return the link of an invitation."""
    return request.build_absolute_uri(f"{reverse('account_signup')}?{urlencode({'invitation': code, **more})}")


def mail_invitation(request: HttpRequest, invitation: Invitation, code: str, inviter: User) -> bool:
    """Mail an invitation to its address. Returns whether the mail server has taken it."""
    if not invitation.email or not settings.MAILS:
        return False
    link = link_of(request, code, **{PROOF: _proof(invitation)})
    who = " ".join((inviter.get_full_name() or inviter.get_username()).split())[:100]
    values = {"who": who, "host": urlsplit(link).netloc, "email": invitation.email, "link": link}
    lines = [
        _("%(who)s invites you to an account at AIRelays, the portal to AI models at %(host)s.") % values,
        _(
            "Open this link and choose a name and a password. The account is for %(email)s; following the link proves "
            "that this address is yours:"
        )
        % values,
        link,
        _ends(invitation),
        _("If you did not expect this mail, ignore it: without the link, nothing happens."),
    ]
    subject = _("%(who)s invites you to AIRelays") % values
    try:
        return bool(send_mail(f"[AIRelays] {subject}", "\n\n".join(lines) + "\n", None, [invitation.email]))
    except (OSError, smtplib.SMTPException, ValueError) as error:
        logger.error("an invitation could not be mailed: %s", error)
        return False


def _ends(invitation: Invitation) -> str:
    if invitation.expires_at is None:
        return _("The link can be used once.")
    local = timezone.localtime(invitation.expires_at)
    date = f"{formats.date_format(local, 'DATETIME_FORMAT')} ({timezone.get_current_timezone_name()})"
    return _("The link can be used once, until %(date)s.") % {"date": date}


def _proof(invitation: Invitation) -> str:
    return signing.dumps(_what(invitation), salt=_SALT)


def _what(invitation: Invitation) -> list[object]:
    return [invitation.pk, invitation.email.lower(), invitation.digest]  # the digest changes with the link


def proves(invitation: Invitation, proof: str, email: str) -> bool:
    """Whether a link with this proof was mailed to `email`, the address that the invitation is for."""
    try:
        found = signing.loads(proof, salt=_SALT) if proof else None
    except signing.BadSignature:
        return False
    return found == _what(invitation) and invitation.email.lower() == email.lower() != ""

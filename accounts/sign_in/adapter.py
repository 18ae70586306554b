"""Adapters of allauth: who may sign up, whose address must be confirmed, how secrets are encrypted."""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.stages import EmailVerificationStage
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp
from django.conf import settings
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from accounts.models import Invitation, User
from accounts.sign_in.outbound import CheckedSession
from portal.lib import net
from portal.lib.crypto import SecretBox, Undecryptable

_INVITATION = "invitation"  # session key of the invitation's code


@cache
def _box(purpose: str) -> SecretBox:
    return SecretBox(settings.ENCRYPTION_KEYS, purpose)


def invitation_of(request: HttpRequest) -> Invitation | None:
    """Return the open invitation of a visitor, from the link or the session, and store its code in the session."""
    code = request.GET.get("invitation", "") or request.session.get(_INVITATION, "")
    found = Invitation.find(str(code)[:100])
    if found is not None:
        request.session[_INVITATION] = str(code)[:100]
    return found


def use_invitation(request: HttpRequest) -> None:
    """Use the visitor's invitation before the account is created. Raises ImmediateHttpResponse when it is used up."""
    if settings.CONFIG.signup == "off":
        raise ImmediateHttpResponse(redirect("account_signup"))
    found = invitation_of(request)
    taken = found is not None and found.take()
    if not taken and settings.CONFIG.signup == "invitation":
        raise ImmediateHttpResponse(redirect("account_signup"))
    # accounts.signals adds the user to its groups.
    request.invitation = found if taken else None  # type: ignore[attr-defined]


def may_sign_up(request: HttpRequest) -> bool:
    """Whether a visitor may sign up."""
    return settings.CONFIG.signup == "open" or (
        settings.CONFIG.signup == "invitation" and invitation_of(request) is not None
    )


def check_signup_email(request: HttpRequest, email: str) -> None:
    """Check that an e-mail address may sign up. Raises ValidationError."""
    invited = invitation_of(request)
    if invited is not None:
        if invited.email and invited.email.lower() != email.lower():
            raise ValidationError(_("This invitation is for another e-mail address."))
        return
    domains = settings.CONFIG.signup_domains
    if domains and email.rpartition("@")[2].lower() not in {domain.lower().lstrip("@") for domain in domains}:
        raise ValidationError(_("Accounts here are for addresses at %(domains)s.") % {"domains": ", ".join(domains)})


class SignupVerificationStage(EmailVerificationStage):  # type: ignore[misc]  # allauth has no types
    """Requires a confirmed e-mail address of users who signed up themselves, unless the portal cannot send mail."""

    def handle(self) -> Any:
        user = self.login.user
        # There is no user where allauth hides that the address has an account: its mail says so, the page does not.
        if user is not None and (not settings.MAILS or not user.signed_up):
            return None, True
        return super().handle()


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return may_sign_up(request)

    def get_login_stages(self) -> list[str]:
        own = f"{SignupVerificationStage.__module__}.{SignupVerificationStage.__name__}"
        return [own if path.endswith(".EmailVerificationStage") else path for path in super().get_login_stages()]

    def new_user(self, request: HttpRequest) -> User:
        user: User = super().new_user(request)
        user.signed_up = True
        return user

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> Any:
        if commit:
            use_invitation(request)
        return super().save_user(request, user, form, commit)

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send a mail that names the portal by its configured address."""
        if settings.CONFIG.public_url:
            name = urlsplit(settings.CONFIG.public_url).netloc
            context = {"current_site": {"name": name, "domain": name}, **context}
        super().send_mail(template_prefix, email, context)

    def get_client_ip(self, request: HttpRequest) -> str:
        return str(request.META.get("REMOTE_ADDR", ""))


class SocialAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]  # allauth has no types
    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """Whether a user of a sign-in provider may sign up, by the same rules as others."""
        if not may_sign_up(request):
            return False
        try:
            check_signup_email(request, str(sociallogin.user.email or ""))
        except ValidationError:
            return False
        return True

    def new_user(self, request: HttpRequest, sociallogin: Any) -> User:
        user: User = super().new_user(request, sociallogin)
        user.signed_up = True
        return user

    def save_user(self, request: HttpRequest, sociallogin: Any, form: Any = None) -> Any:
        use_invitation(request)
        return super().save_user(request, sociallogin, form)

    def list_apps(self, request: HttpRequest, provider: str | None = None, client_id: str | None = None) -> list[Any]:
        """Return the sign-in providers with their secrets decrypted, without those whose secret cannot be used."""
        found = []
        for app in super().list_apps(request, provider=provider, client_id=client_id):
            sealed = app.settings.get("sealed_secret")
            if sealed:
                if app.settings.get("secret_for", secret_destination(app)) != secret_destination(app):
                    continue  # its address was changed by other means than its form, which demands the secret anew
                try:
                    app.secret = _box("sign-in-secret").open(sealed)
                except Undecryptable:
                    continue
            found.append(app)
        return found

    def get_app(self, request: HttpRequest, provider: str, client_id: str | None = None) -> Any:
        """Return a sign-in provider. Raises Http404 if it is not set up: anybody may type its address."""
        try:
            return super().get_app(request, provider, client_id)
        except SocialApp.DoesNotExist:
            raise Http404 from None

    def get_requests_session(self) -> CheckedSession:
        return CheckedSession()


def secret_destination(app: Any) -> str:
    """Who gets the secret of a sign-in provider: its kind, and the origin of its address where it has one."""
    return f"{app.provider} {net.origin(app.settings.get('server_url') or '')}".strip()


def seal_secret(secret: str) -> str:
    """Encrypt the secret of a sign-in provider for the database."""
    return _box("sign-in-secret").seal(secret)


class MfaAdapter(DefaultMFAAdapter):  # type: ignore[misc]  # allauth has no types
    def encrypt(self, text: str) -> str:
        return _box("second-factor").seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        return _box("second-factor").open(encrypted_text)

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        host = urlsplit(settings.CONFIG.public_url).hostname  # a proxy may send another
        return {
            **super().get_public_key_credential_rp_entity(),
            **({"id": host} if host else {}),
            "name": "AIRelays",
        }

"""Adapters of allauth: who may sign up, whose address must be confirmed, how secrets are encrypted."""

from __future__ import annotations

import logging
import smtplib
import time
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.models import EmailAddress
from allauth.account.stages import EmailVerificationStage
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialApp, SocialLogin
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.rights import exceeds
from accounts.sign_in import sign_up
from accounts.sign_in.outbound import CheckedSession
from accounts.sign_in.provider_faults import fault_page
from portal.lib import net
from portal.lib.crypto import SecretBox, Undecryptable
from portal.services import outside

logger: Final = logging.getLogger(__name__)
# Mails that are sent where there is an account, and not where there is none. The page must not tell which, not even by
# the time that it takes.
_TELLING: Final = frozenset(
    f"account/email/{name}" for name in ("password_reset_code", "password_reset_key", "login_code")
)
_CONNECTION: Final = "pending_connection"  # session key of a sign-in that waits to be connected to an account
_CONNECTION_SECONDS: Final = 600


@cache
def _box(purpose: str) -> SecretBox:
    return SecretBox(settings.ENCRYPTION_KEYS, purpose)


class SignupVerificationStage(EmailVerificationStage):  # type: ignore[misc]  # allauth has no types
    """Requires a confirmed e-mail address of users who signed up themselves, unless the portal cannot send mail."""

    def handle(self) -> Any:
        user = self.login.user
        if user is None:  # allauth hides that the address has an account: its mail says so, the page does not
            return super().handle()
        response, go_on = None, True
        if settings.MAILS and user.signed_up:
            try:
                response, go_on = super().handle()
            except ImmediateHttpResponse as limited:
                if limited.response.status_code != 429:
                    raise
                # Codes for this address were sent elsewhere a moment ago.
                response, go_on = render(self.request, "account/code_sent_before.html", status=429), False
        if response is None and user.invitation_id is not None:
            sign_up.settle_invitation(self.request, user)
        return response, go_on


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth has no types
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        why = sign_up.refusal(request)
        request.sign_up_refusal = why  # type: ignore[attr-defined]  # for the page that allauth shows then
        return not why

    def get_login_stages(self) -> list[str]:
        own = f"{SignupVerificationStage.__module__}.{SignupVerificationStage.__name__}"
        return [own if path.endswith(".EmailVerificationStage") else path for path in super().get_login_stages()]

    def new_user(self, request: HttpRequest) -> User:
        user: User = super().new_user(request)
        user.signed_up = True
        return user

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> Any:
        if commit:
            sign_up.attach_invitation(request, user)
        return super().save_user(request, user, form, commit)

    def is_email_verified(self, request: HttpRequest, email: str) -> bool:
        return bool(super().is_email_verified(request, email)) or sign_up.proved_by_invitation(request, email)

    def get_client_ip(self, request: HttpRequest) -> str:
        return str(request.META.get("REMOTE_ADDR", ""))

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send a mail with a code, which names the product, and the portal by its configured address.

        Raises ImmediateHttpResponse when the mail server does not take it. What would tell that there is an account is
        not waited for: failures are only logged.
        """
        host = urlsplit(settings.CONFIG.public_url).netloc or self.request.get_host()
        context = {"current_site": {"name": "AIRelays", "domain": host}, **context}
        telling = outside.unawaited.set(template_prefix in _TELLING)
        try:
            super().send_mail(template_prefix, email, context)
        except (OSError, smtplib.SMTPException) as error:
            logger.error("a mail for a sign-in could not be sent: %s", error)
            page = render(self.request, "account/mail_failed.html", status=503)
            raise ImmediateHttpResponse(page) from None
        finally:
            outside.unawaited.reset(telling)

    def send_notification_mail(self, template_prefix: str, user: User, *args: Any, **kwargs: Any) -> None:
        """Tell somebody of a change that has been made; whether the mail can be sent changes nothing about it."""
        try:
            super().send_notification_mail(template_prefix, user, *args, **kwargs)
        except ImmediateHttpResponse:
            pass


class SocialAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]  # allauth has no types
    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """Whether a user of a sign-in provider may sign up, by the same rules as others."""
        why = sign_up.refusal(request)
        if not why:
            try:
                sign_up.check_email(request, str(sociallogin.user.email or ""))
            except ValidationError as error:
                why = " ".join(error.messages)
        request.sign_up_refusal = why  # type: ignore[attr-defined]
        return not why

    def new_user(self, request: HttpRequest, sociallogin: Any) -> User:
        user: User = super().new_user(request, sociallogin)
        user.signed_up = True
        return user

    def save_user(self, request: HttpRequest, sociallogin: Any, form: Any = None) -> Any:
        """Make the account, its address and its connection in one transaction."""
        try:
            with transaction.atomic():
                sign_up.attach_invitation(request, sociallogin.user)
                return super().save_user(request, sociallogin, form)
        except IntegrityError:  # somebody was faster, perhaps the same person in another window
            messages.error(request, _("The account could not be made: its name was taken a moment ago. Sign in again."))
            raise ImmediateHttpResponse(redirect("account_login")) from None

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Lead people who have an account here already, by the address that the provider has verified, to connect it.

        Raises ImmediateHttpResponse.
        """
        if sociallogin.is_existing or sociallogin.state.get("process") == "connect":
            return
        proved = [address.email.lower() for address in sociallogin.email_addresses if address.verified]
        for email in proved:
            for user in sign_up.unproved(email):
                sign_up.release(user)  # whoever typed it there did not have it
        known = EmailAddress.objects.filter(email__in=proved, verified=True, user__is_active=True).first()
        if known is None:
            return
        request.session[_CONNECTION] = {"at": time.time(), "email": known.email, "login": sociallogin.serialize()}
        messages.info(
            request,
            _(
                "%(email)s has an account here. Sign in to it once, with its password or a code by e-mail: then "
                "“%(provider)s” is connected to it, and signs you in from now on."
            )
            % {"email": known.email, "provider": sociallogin.provider.name},
        )
        target = urlencode({"next": reverse("connect_pending")})
        raise ImmediateHttpResponse(redirect(f"{reverse('account_login')}?{target}"))

    def authenticate_by_email(self, sociallogin: Any) -> tuple[Any, str] | None:
        """Find the account of a trusted provider's user by an address that is proved on both sides."""
        for address in sociallogin.email_addresses:
            if address.verified and self.can_authenticate_by_email(sociallogin, address.email):
                known = EmailAddress.objects.filter(email=address.email.lower(), verified=True).first()
                if known is not None and self._may_lead_to(known.user, sociallogin.provider.app):
                    return known.user, known.email
        return None

    def _may_lead_to(self, user: User, app: SocialApp) -> bool:
        """Whether who has trusted a provider could come into this account anyway.

        Otherwise a server of their own would make them whoever they like. People with more rights sign in to their
        account once, and are connected then.
        """
        person = User.objects.filter(pk=app.settings.get("trusted_by") or 0).first()
        return not (exceeds(user, person) if person is not None else user.is_superuser)

    def on_authentication_error(
        self, request: HttpRequest, provider: Any, error: Any = None, exception: Any = None, extra_context: Any = None
    ) -> None:
        """Say what went wrong, and at whom. Raises ImmediateHttpResponse."""
        if getattr(error, "value", error) != "cancelled":
            raise ImmediateHttpResponse(fault_page(request, str(provider.name), error, exception, provider.app))

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


def pending_connection(request: HttpRequest) -> tuple[SocialLogin | None, bool]:
    """Take the sign-in that waits to be connected, if it belongs to the account that is signed in now.

    Returns it, and whether the account was entered after it: then nobody need be asked for a password once more.
    """
    stash = request.session.pop(_CONNECTION, None)
    if not isinstance(stash, dict) or time.time() - stash["at"] > _CONNECTION_SECONDS:
        return None, False
    if not EmailAddress.objects.filter(user_id=request.user.pk, email=stash["email"], verified=True).exists():
        return None, False
    try:
        waiting = SocialLogin.deserialize(stash["login"])
    except ValueError:
        return None, False
    records = get_authentication_records(request, request.user)
    return waiting, bool(records) and records[-1]["at"] >= stash["at"]


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

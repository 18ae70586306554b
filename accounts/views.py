"""The account page of a user: preferences, and links to the pages about sign-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from allauth.account.stages import LoginStageController
from allauth.account.views import ConfirmEmailVerificationCodeView
from allauth.mfa.base.views import AuthenticateView
from allauth.mfa.models import Authenticator
from allauth.mfa.stages import AuthenticateStage
from allauth.mfa.utils import is_mfa_enabled
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.internal.flows.connect import connect
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import translation
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.sign_in.adapter import pending_connection
from accounts.sign_in.forms import PreferencesForm

_ASKED: Final = [Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN]  # factors that are asked for at sign-in


@login_required
def account(request: HttpRequest) -> HttpResponse:
    """Show the account page, and save language and time zone."""
    user = request.user
    assert isinstance(user, User)  # noqa: S101
    if request.method == "POST":
        with transaction.atomic():
            row = User.objects.select_for_update().get(pk=user.pk)
            form = PreferencesForm(request.POST, instance=row)
            if form.is_valid():
                row.save(update_fields=form.Meta.fields)
                messages.success(request, _preferences(form, row))
                return redirect("account")
    else:
        form = PreferencesForm(instance=user)
    context = {
        "form": form,
        "factors": Authenticator.objects.filter(user=user).exclude(type="recovery_codes").count(),
        "connections": SocialAccount.objects.filter(user=user).count(),
        "providers": len(get_adapter().list_apps(request)),
        "has_password": user.has_usable_password(),
        "here": "account",
    }
    return render(request, "portal/account.html", context, status=422 if form.errors else 200)


def _preferences(form: PreferencesForm, user: User) -> str:
    """What holds for the user's pages from now on, in the language that they have from now on."""
    with translation.override(user.language or translation.get_language()):
        languages, zones = (dict(form.fields[name].choices) for name in form.Meta.fields)  # type: ignore[attr-defined]
        return _("Language of your pages: %(language)s. Times are shown in: %(zone)s.") % {
            "language": languages[user.language],
            "zone": zones[user.time_zone],
        }


def no_mail(request: HttpRequest) -> HttpResponse:
    """Say that this portal cannot send mail. Replaces the pages that would."""
    return render(request, "account/no_mail.html")


def mailing(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Wrap a view that sends mail: a portal that sends none says so in its place."""

    def choose(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return view(request, *args, **kwargs) if settings.MAILS else no_mail(request)

    return choose


@login_required
def connect_pending(request: HttpRequest) -> HttpResponseBase:
    """Connect the provider that somebody came from before signing in to an account that was there already."""
    waiting, just_entered = pending_connection(request)
    known = SocialAccount.objects
    if waiting is None or known.filter(provider=waiting.account.provider, uid=waiting.account.uid).exists():
        messages.error(request, _("Nothing was connected: this is another account, or too much time has passed."))
        return redirect("socialaccount_connections")
    if not just_entered:
        response: HttpResponseBase = connect(request, waiting)
        return response
    waiting.connect(request, request.user)
    messages.success(request, _("“%(name)s” is connected to your account.") % {"name": waiting.provider.name})
    return redirect(waiting.get_redirect_url(request) or "home")


class ConfirmEmailView(ConfirmEmailVerificationCodeView):  # type: ignore[misc]  # allauth has no types
    """The page of the code that proves an address."""

    def _change_form_invalid(self, form: Any) -> HttpResponseBase:  # which allauth calls and does not have
        page: HttpResponseBase = self.render_to_response(self.get_context_data(form=form))
        return page


confirm_email = ConfirmEmailView.as_view()


class SecondFactorView(AuthenticateView):  # type: ignore[misc]  # allauth has no types
    """The page that asks for the second factor: first for what the person has."""

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        types = set(Authenticator.objects.filter(user=self.stage.login.user).values_list("type", flat=True))
        has_app = Authenticator.Type.TOTP in types
        has_codes = has_app or Authenticator.Type.RECOVERY_CODES in types
        has_passkey = Authenticator.Type.WEBAUTHN in types
        return {
            **super().get_context_data(**kwargs),
            "has_app": has_app,
            "has_codes": has_codes,
            "has_passkey": has_passkey,
        }


_second_factor = SecondFactorView.as_view()


def second_factor(request: HttpRequest) -> HttpResponseBase:
    """Ask for the second factor. Goes on without one where they were removed meanwhile."""
    stage = LoginStageController.enter(request, AuthenticateStage.key)
    response: HttpResponseBase
    if stage is not None and stage.login.user is not None and not is_mfa_enabled(stage.login.user, _ASKED):
        response = stage.exit()
    else:
        response = _second_factor(request)
    return response

"""The account page of a user: preferences, and links to the pages about sign-in."""

from __future__ import annotations

from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.models import SocialAccount
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from accounts.models import User
from accounts.sign_in.forms import PreferencesForm


@login_required
def account(request: HttpRequest) -> HttpResponse:
    """Show the account page, and save language and time zone."""
    user = request.user
    assert isinstance(user, User)  # noqa: S101
    form = PreferencesForm(request.POST or None, instance=user)
    if request.method == "POST" and form.is_valid():
        form.save()
        messages.success(request, _("Saved."))
        return redirect("account")
    context = {
        "form": form,
        "factors": Authenticator.objects.filter(user=user).exclude(type="recovery_codes").count(),
        "connections": SocialAccount.objects.filter(user=user).count(),
        "providers": len(get_adapter().list_apps(request)),
        "has_password": user.has_usable_password(),
        "here": "account",
    }
    return render(request, "portal/account.html", context, status=422 if form.errors else 200)


def no_mail(request: HttpRequest) -> HttpResponse:
    """Say that this portal cannot send mail. Replaces the pages that would."""
    return render(request, "account/no_mail.html")

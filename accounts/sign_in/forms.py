from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from allauth.account.forms import BaseConfirmCodeForm, ConfirmEmailVerificationCodeForm
from allauth.account.forms import ChangeEmailForm as AllauthChangeEmailForm
from allauth.account.forms import ChangePasswordForm as AllauthChangePasswordForm
from allauth.account.forms import LoginForm as AllauthLoginForm
from allauth.account.forms import ResetPasswordKeyForm as AllauthResetPasswordKeyForm
from allauth.account.forms import SetPasswordForm as AllauthSetPasswordForm
from allauth.account.forms import SignupForm as AllauthSignupForm
from allauth.account.internal.userkit import filter_users_by_email
from allauth.core import context
from django import forms
from django.conf import settings
from django.contrib import messages
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.shortcuts import redirect
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.merging import Merging
from accounts.models import StaffKey, User
from accounts.sign_in import sign_up


class LoginForm(AllauthLoginForm):  # type: ignore[misc]  # allauth has no types
    """The sign-in form, without the placeholders that repeat the labels."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.widget.attrs.pop("placeholder", None)


class SignupForm(AllauthSignupForm):  # type: ignore[misc]  # allauth has no types
    """The sign-up form with the portal's rules about e-mail addresses."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        invited = sign_up.invited_email(context.request)
        if invited and "email" in self.fields:
            field = self.fields["email"]
            field.initial = self.initial["email"] = invited
            field.widget.attrs["readonly"] = True
            field.help_text = _("Your invitation is for this address.")

    def clean_username(self) -> str:
        sign_up.release_abandoned(name=str(self.cleaned_data["username"]))
        name: str = super().clean_username()
        return name

    def clean_email(self) -> str:
        sign_up.release_abandoned(email=str(self.cleaned_data["email"]))
        email: str = super().clean_email()
        sign_up.check_email(context.request, email)
        return email

    def validate_unique_email(self, value: str) -> str:
        if not sign_up.taken_by_others(value, filter_users_by_email(value)):
            return value
        email: str = super().validate_unique_email(value)
        return email

    def save(self, request: HttpRequest) -> Any:
        """Make the account and its address in one transaction."""
        email = str(self.cleaned_data.get("email") or "")
        with transaction.atomic():
            if sign_up.proved_by_invitation(request, email):
                for other in sign_up.unproved(email):
                    sign_up.release(other)  # whoever typed it there did not have it
            return super().save(request)

    def try_save(self, request: HttpRequest) -> Any:
        try:
            return super().try_save(request)
        except IntegrityError:  # of two who sent the same name, the slower one
            messages.error(request, _("This name was taken a moment ago. Choose another."))
            return None, redirect("account_signup")


class ConfirmEmailForm(ConfirmEmailVerificationCodeForm):  # type: ignore[misc]  # allauth has no types
    """The form of the code that proves an address. Whoever has it takes the address from others who typed it."""

    def clean_code(self) -> str:
        BaseConfirmCodeForm.clean_code(self)
        for user in sign_up.unproved(self.email).exclude(pk=self.user.pk if self.user else 0):
            sign_up.release(user)
        code: str = super().clean_code()
        return code


class ChangeEmailForm(AllauthChangeEmailForm):  # type: ignore[misc]  # allauth has no types
    """The form that corrects the address of a sign-up, by the same rules."""

    def clean_email(self) -> str:
        typed = str(self.cleaned_data["email"]).lower()
        sign_up.check_email(context.request, typed)
        sign_up.release_abandoned(email=typed)
        if not sign_up.taken_by_others(typed, filter_users_by_email(typed)):
            self.account_already_exists = False
            return typed
        email: str = super().clean_email()
        return email


def end_staff_keys(user: User) -> None:
    """Revoke the staff keys of a user who sets a password, and say so on the next page."""
    request: HttpRequest = context.request
    if count := StaffKey.revoke_all(user, user, request.META.get("REMOTE_ADDR")):
        said = ngettext("%(n)d staff key of yours was revoked.", "%(n)d staff keys of yours were revoked.", count)
        messages.warning(request, said % {"n": count})


class _OffersToEndKeys(forms.Form):
    """Asks those who have staff keys whether these end with the password."""

    user: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if count := StaffKey.active_of(self.user).count():
            label = ngettext("Also revoke my staff key", "Also revoke my %(n)d staff keys", count)
            self.fields["end_keys"] = forms.BooleanField(
                required=False,
                initial=True,
                label=label % {"n": count},
                help_text=_(
                    "Whoever knew the password could make some. Scripts that use them need new ones. Untick it only if "
                    "nobody else can have known the password."
                ),
            )

    def save(self) -> None:
        with transaction.atomic():
            if self.cleaned_data.get("end_keys", True):
                end_staff_keys(self.user)
            super().save()  # type: ignore[misc]  # of allauth's form


class ChangePasswordForm(_OffersToEndKeys, AllauthChangePasswordForm):  # type: ignore[misc]  # allauth has no types
    """The form that changes a password."""


class SetPasswordForm(_OffersToEndKeys, AllauthSetPasswordForm):  # type: ignore[misc]  # allauth has no types
    """The form that sets the first password of an account."""


class ResetPasswordKeyForm(AllauthResetPasswordKeyForm):  # type: ignore[misc]  # allauth has no types
    """The form that sets a password that was forgotten. Staff keys end: somebody else may have been in the account."""

    def save(self) -> None:
        with transaction.atomic():
            end_staff_keys(self.user)
            super().save()


class PreferencesForm(Merging, forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """Language and time zone of a user."""

    language = forms.ChoiceField(required=False, label=_("Language"))
    time_zone = forms.ChoiceField(required=False, label=_("Time zone"))

    class Meta:
        model = User
        fields = ("language", "time_zone")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        language, zone = self.fields["language"], self.fields["time_zone"]
        assert isinstance(language, forms.ChoiceField) and isinstance(zone, forms.ChoiceField)  # noqa: S101
        language.choices = [("", _("As the browser asks")), *settings.LANGUAGES]
        zone.choices = [
            ("", _("The browser's")),
            *((name, name.replace("_", " ")) for name in sorted(available_timezones()) if "/" in name or name == "UTC"),
        ]

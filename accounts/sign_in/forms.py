from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

from allauth.account.forms import LoginForm as AllauthLoginForm
from allauth.account.forms import SignupForm as AllauthSignupForm
from allauth.core import context
from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from accounts.sign_in.adapter import check_signup_email


class LoginForm(AllauthLoginForm):  # type: ignore[misc]  # allauth has no types
    """The sign-in form, without the placeholders that repeat the labels."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.widget.attrs.pop("placeholder", None)


class SignupForm(AllauthSignupForm):  # type: ignore[misc]  # allauth has no types
    """The sign-up form with the portal's rules about e-mail addresses."""

    def clean_email(self) -> str:
        email: str = super().clean_email()
        check_signup_email(context.request, email)
        return email


class PreferencesForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
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

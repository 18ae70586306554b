from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms

from accounts.models import User
from portal.lib import clock, net
from portal.views.scope import models_of
from relay.models import Model

_VALIDITY = [("", "Never expires"), ("1", "1 day"), ("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("365", "1 year")]


class TokenForm(forms.Form):
    """A new token of the signed-in user."""

    name = forms.CharField(max_length=60, help_text="For you, to tell your tokens apart: the app or the machine that will use it.")
    validity = forms.ChoiceField(choices=_VALIDITY, required=False, label="Valid for")
    models_allowed: forms.ModelMultipleChoiceField[Model] = forms.ModelMultipleChoiceField(
        queryset=Model.objects.none(), required=False, widget=forms.CheckboxSelectMultiple, label="Models", help_text="Tick none to allow every model you may use."
    )
    allowed_ips = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        label="Allowed addresses",
        help_text="One address or network a line, such as 203.0.113.7 or 10.0.0.0/8. Empty: all.",
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["models_allowed"]
        assert isinstance(field, forms.ModelMultipleChoiceField)  # noqa: S101
        field.queryset = models_of(user)

    def clean_allowed_ips(self) -> list[str]:
        try:
            return [str(network) for network in net.parse_networks(self.cleaned_data["allowed_ips"].splitlines())]
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    def expires_at(self) -> datetime | None:
        days = self.cleaned_data.get("validity")
        return clock.now() + timedelta(days=int(days)) if days else None

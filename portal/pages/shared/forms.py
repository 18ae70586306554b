from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.merging import Merging, digest
from accounts.models import User
from accounts.models.fields import END, FIRST, TypedMomentField
from portal.lib import clock, money, net
from portal.lib.days import PERIODS
from relay.billing.ledger import movements
from relay.catalog.offers import models_of
from relay.models import Budget, Model, Token
from relay.models.fields import UsdField
from relay.models.token import TokenPurpose

_VALIDITY = [
    ("", _("Never expires")),
    ("1", _("1 day")),
    ("7", _("7 days")),
    ("30", _("30 days")),
    ("90", _("90 days")),
    ("365", _("1 year")),
]


_AMOUNTS: Final = ("quota", *PERIODS)


def _until(label: Any) -> TypedMomentField:
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    return TypedMomentField(required=False, label=label, widget=widget)


def _check_until(until: datetime | None) -> datetime | None:
    if until is not None and not FIRST <= until < END:
        raise forms.ValidationError(gettext("Write a time between the years 2000 and 3000."))
    if until is not None and until <= clock.now():
        raise forms.ValidationError(gettext("This time is past. To end a token, disable or revoke it."))
    return until


class TokenLimitsForm(Merging, forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """Validity of a token, and its quota and budgets in USD. Empty fields set no limit."""

    expires_at = _until(_("Valid until"))
    quota = UsdField(required=False, label=_("In all, USD"))
    day = UsdField(required=False, label=_("A day, USD"))
    week = UsdField(required=False, label=_("A week, USD"))
    month = UsdField(required=False, label=_("A month, USD"))

    class Meta:
        model = Token
        fields = ("expires_at",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        token: Token = self.instance
        self.initial["expires_at"] = self.shown("expires_at", token.expires_at)
        for name in _AMOUNTS:
            self.initial[name] = None
            self.fields[name].widget = forms.TextInput(attrs={"inputmode": "decimal", "placeholder": _("no limit")})
        for budget in token.budgets.all():
            self.initial[budget.period] = f"{budget.limit.normalize():f}"
        account = token.ledger_accounts.filter(kind="quota", limited=True).first()
        if account is not None:
            self.initial["quota"] = money.plain(account.granted)

    def shown(self, name: str, value: Any) -> Any:
        return value.replace(second=0, microsecond=0) if name == "expires_at" and value is not None else value

    def clean_expires_at(self) -> datetime | None:
        until: datetime | None = self.cleaned_data["expires_at"]
        if until == self.initial["expires_at"]:
            stored: datetime | None = self.instance.expires_at
            return stored
        return until if self.seen and digest(until) == self.seen.get("expires_at") else _check_until(until)

    def apply(self) -> dict[str, str]:
        """Save what was changed. Returns it, for the audit log. The caller has locked the token."""
        token, data, changed = self.instance, self.cleaned_data, set(self.changed_data)
        if "expires_at" in changed:
            token.save(update_fields=["expires_at"])
        if "quota" in changed:
            movements.set_quota(token, None if data["quota"] is None else money.nano(data["quota"]))
        for period in changed.intersection(PERIODS):
            limit, budget = data[period], token.budgets.filter(period=period).first()
            if limit is None:
                if budget is not None:
                    budget.delete()
            elif budget is None:
                Budget.objects.create(token=token, period=period, limit=limit)
            else:
                budget.limit = limit
                budget.save()
        return {name: "" if data[name] is None else str(data[name]) for name in self.fields if name in changed}


class OwnTokenForm(forms.Form):
    """Creation of a token by its owner."""

    name = forms.CharField(
        label=_("Name"),
        max_length=60,
        help_text=_("For you, to tell your tokens apart: the app or the machine that will use it."),
    )
    purpose = forms.ChoiceField(
        choices=TokenPurpose.choices,
        required=False,
        label=_("For"),
        help_text=_("Which endpoints it opens. The list of models is open to all."),
    )
    validity = forms.ChoiceField(choices=_VALIDITY, required=False, label=_("Valid for"))
    until = _until(_("Or valid until"))
    quota = UsdField(
        required=False,
        label=_("Quota, USD"),
        widget=forms.TextInput(attrs={"inputmode": "decimal", "placeholder": _("no limit")}),
        help_text=_(
            "The most that it may spend in all. It can be changed on the token's page, like the validity; limits by "
            "day, week or month are there, too."
        ),
    )
    models_allowed: forms.ModelMultipleChoiceField[Model] = forms.ModelMultipleChoiceField(
        queryset=Model.objects.none(),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        label=_("Models"),
        help_text=_("Tick none to allow every model you may use."),
    )
    allowed_ips = forms.CharField(
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        label=_("Allowed addresses"),
        help_text=_("One address or network a line, such as 203.0.113.7 or 10.0.0.0/8. Empty: all."),
    )

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        purposes = self.fields["purpose"]
        assert isinstance(purposes, forms.ChoiceField)  # noqa: S101
        purposes.choices = [
            (value, _("tasks: not served by this version yet") if value == TokenPurpose.TASKS else label)
            for value, label in TokenPurpose.choices
        ]
        field = self.fields["models_allowed"]
        assert isinstance(field, forms.ModelMultipleChoiceField)  # noqa: S101
        field.queryset = models_of(user)

    def clean_allowed_ips(self) -> list[str]:
        try:
            return [str(network) for network in net.parse_networks(self.cleaned_data["allowed_ips"].splitlines())]
        except net.BadAddress as error:
            raise forms.ValidationError(error.translated(gettext)) from error

    def clean_until(self) -> datetime | None:
        until = _check_until(self.cleaned_data["until"])
        if until is not None and self.cleaned_data.get("validity"):
            raise forms.ValidationError(gettext("Choose a period or a time, not both."))
        return until

    def expires_at(self) -> datetime | None:
        days = self.cleaned_data.get("validity")
        until: datetime | None = self.cleaned_data.get("until")
        return clock.now() + timedelta(days=int(days)) if days else until

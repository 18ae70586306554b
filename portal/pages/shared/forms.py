from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.db import transaction
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models import User
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


class SpendingForm(forms.Form):
    """Quota and budgets of a token in USD. Empty fields set no limit."""

    quota = UsdField(required=False, label=_("In all, USD"))
    day = UsdField(required=False, label=_("A day, USD"))
    week = UsdField(required=False, label=_("A week, USD"))
    month = UsdField(required=False, label=_("A month, USD"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in self.fields.values():
            field.widget = forms.TextInput(attrs={"inputmode": "decimal", "placeholder": _("no limit")})

    @staticmethod
    def initial_of(token: Token) -> dict[str, Any]:
        """The present limits of a token, as initial data of the form."""
        found: dict[str, Any] = {budget.period: f"{budget.limit.normalize():f}" for budget in token.budgets.all()}
        account = token.ledger_accounts.filter(kind="quota", limited=True).first()
        if account is not None:
            found["quota"] = money.plain(account.granted)
        return found

    def apply(self, token: Token) -> None:
        quota = self.cleaned_data["quota"]
        with transaction.atomic():
            movements.set_quota(token, None if quota is None else money.nano(quota))
            for period in PERIODS:
                limit, budget = self.cleaned_data[period], token.budgets.filter(period=period).first()
                if limit is None:
                    if budget is not None:
                        budget.delete()
                elif budget is None:
                    Budget.objects.create(token=token, period=period, limit=limit)
                elif budget.limit != limit:
                    budget.limit = limit
                    budget.save()


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
    quota = UsdField(
        required=False,
        label=_("Quota, USD"),
        widget=forms.TextInput(attrs={"inputmode": "decimal", "placeholder": _("no limit")}),
        help_text=_("The most that it may spend in all. Limits by day, week or month are on its page."),
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

    def expires_at(self) -> datetime | None:
        days = self.cleaned_data.get("validity")
        return clock.now() + timedelta(days=int(days)) if days else None

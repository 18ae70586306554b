"""The forms of top-ups and deductions, and what they check beside the amount."""

from __future__ import annotations

from decimal import Decimal

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.admin.base import format_time
from accounts.models import User
from portal.lib import money
from relay.billing.ledger import movements
from relay.models.fields import UsdField


class AmountForm(forms.Form):
    """The form of a top-up or a deduction. To the nano-dollar: what requests have left, and cost, is moved whole."""

    amount = UsdField(
        least=Decimal("0.000000001"),
        decimal_places=9,
        label=_("Amount in USD"),
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "decimal", "autofocus": True}),
    )
    reason = forms.CharField(
        label=_("Reason"),
        max_length=200,
        help_text=_("Kept in the ledger; the user sees it."),
        widget=UnfoldAdminTextInputWidget(),
    )


class Meanwhile(ValidationError):
    """Something was booked on a wallet after the page that is sent was shown."""


def newest_seen(user: User) -> int:
    """Return what a page that shows a balance says is its newest movement, 0 without one."""
    entry = movements.newest_movement(user)
    return entry.pk if entry is not None else 0


def check_seen(user: User, seen: str) -> None:
    """Raise Meanwhile if a wallet has had a movement that the page did not show, such as the same top-up.

    `seen`: what the page said was the newest. Until the transaction ends, no other page moves anything.
    """
    User.objects.select_for_update().get(pk=user.pk)
    entry = movements.newest_movement(user)
    if entry is not None and seen and seen != str(entry.pk):
        said = _(
            "The balance has changed since you opened this page: %(kind)s of %(amount)s by %(who)s (“%(reason)s”), "
            "%(at)s. If you mean this one as well, send it again."
        )
        raise Meanwhile(
            said
            % {
                "kind": _(entry.get_kind_display()),
                "amount": money.exact(entry.amount),
                "who": entry.actor or _("the portal itself"),
                "reason": entry.reason,
                "at": format_time(entry.at),
            }
        )

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from portal.lib import money
from portal.lib.crypto import SecretBox


@cache
def box(purpose: str) -> SecretBox:
    """Return the encryption for one kind of stored secret, under the configured keys."""
    return SecretBox(settings.ENCRYPTION_KEYS, purpose)


class UsdField(forms.DecimalField):
    """An amount of money that somebody types: a finite number of USD, from `least` to `most`, by default what the
    columns of budgets, prices and the ledger can all hold.
    """

    def __init__(self, *, least: Decimal = Decimal(0), most: int = money.MOST_USD, **options: Any) -> None:
        self.least, self.most = least, most
        super().__init__(**{"max_digits": 18, "decimal_places": 6, **options})

    def clean(self, value: Any) -> Any:
        found = super().clean(value)
        if found is not None and not self.least <= found <= self.most:
            raise ValidationError(
                _("Write an amount from %(least)s to %(most)s.")
                % {"least": f"${self.least.normalize():f}", "most": f"${self.most:,}"},
                code="amount",
            )
        return found

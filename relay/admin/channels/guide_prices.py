"""The step of the set-up guide that gives models their prices."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from django import forms
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext as _

from accounts.admin.base import request_ip
from accounts.models import AuditEvent
from portal.lib import clock
from relay.billing import price_import
from relay.models import Model, ModelPrice
from relay.models.fields import UsdField

# A model, its price in force, and the fields of its form: side, value, what is wrong with it.
PriceRow = tuple[Model, ModelPrice | None, list[tuple[str, Any, str]]]
_SIDES: Final = ("input", "output")
_PRICE: Final = UsdField(decimal_places=9)


def save_prices(request: HttpRequest, models: list[Model]) -> list[PriceRow] | None:
    """Save the prices that were typed for models. Returns the rows of the form to show, None when all is saved."""
    typed: dict[int, dict[str, str]] = {}  # by model, what could not be saved
    wrong: dict[int, dict[str, str]] = {}  # by model, why not
    if request.method == "POST":
        for model in models:
            sides = {side: request.POST.get(f"{side}-{model.pk}", "").strip() for side in _SIDES}
            if not any(sides.values()):
                continue
            amounts = {side: _amount(text) for side, text in sides.items()}
            into, out = amounts["input"], amounts["output"]
            if into is None or out is None:
                typed[model.pk] = sides
                wrong[model.pk] = {side: _why_no_amount(sides[side]) for side in sides if amounts[side] is None}
                continue
            price = ModelPrice(model=model, input=into, output=out, source="typed in the guide")
            with transaction.atomic():
                price.save()
                AuditEvent.write(
                    "modelprice.add", request.user, price, request_ip(request), input=str(into), output=str(out)
                )
        if not wrong:
            return None
    found, _unknown = price_import.propose_changes(models)
    listed = {
        one.model.pk: {side: one.new[0].classes[side] for side in _SIDES if side not in one.new[0].unlisted}
        for one in found
        if one.new
    }
    rows = []
    for model in models:
        now = (
            model.prices.filter(purpose="sale", channel=None, valid_from__lte=clock.now(), above_tokens=0)
            .order_by("-valid_from")
            .first()
        )
        shown: dict[str, Any] = typed.get(model.pk) or (listed.get(model.pk, {}) if now is None else {})
        rows.append(
            (model, now, [(side, shown.get(side, ""), wrong.get(model.pk, {}).get(side, "")) for side in _SIDES])
        )
    return rows


def _amount(text: str) -> Decimal | None:
    """Return a typed price in USD, None when it is none. An empty field is no price; zero is typed."""
    try:
        amount: Decimal = _PRICE.clean(text)
    except forms.ValidationError:
        return None
    return amount


def _why_no_amount(text: str) -> str:
    return _("Type amounts such as 2.50.") if text else _("Type a price, too; 0 if it is free.")

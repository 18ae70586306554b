"""Amounts that people type: bounded alike in every form, column and sum."""

from __future__ import annotations

import importlib
import pkgutil
from decimal import Decimal
from typing import Any

import pytest
from django import forms
from django.apps import apps
from django.db import models
from django.test import Client

import portal.pages
import relay.admin
from portal.lib import money
from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.models import LedgerEntry, Token
from relay.models.fields import UsdField
from relay.tokens.lifecycle import create_token
from tests.support.money import books_balance, wallet
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared
HUGE = ("5000000000", "999999999999", "1000000000", "1e30", "NaN", "-1", "9" * 5000)
NO_MONEY = {"price_multiplier", "cost_multiplier"}


def forms_of(package: Any) -> list[type[forms.BaseForm]]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    pending, found = [forms.BaseForm], list[type[forms.BaseForm]]()
    while pending:
        for kind in pending.pop().__subclasses__():
            pending.append(kind)
            if kind.__module__.startswith(("portal.", "relay.", "accounts.")):
                found.append(kind)
    return found


def test_every_amount_in_a_form_has_the_one_bound() -> None:
    kinds = {kind for package in (portal.pages, relay.admin) for kind in forms_of(package)}
    fields = [
        (kind.__name__, name, field)
        for kind in kinds
        for name, field in getattr(kind, "base_fields", {}).items()
        if isinstance(field, forms.DecimalField) and name not in NO_MONEY
    ]
    declared = [(kind, name, field) for kind, name, field in fields if isinstance(field, UsdField)]
    of_models = {(kind, name) for kind, name, field in fields if not isinstance(field, UsdField)}
    assert len(declared) >= 8 and not of_models
    for kind, name, field in declared:
        for text in HUGE:
            with pytest.raises(forms.ValidationError):
                field.clean(text)
                pytest.fail(f"{kind}.{name} takes {text[:20]}")
        assert money.nano(field.clean(str(field.most))) <= money.LARGEST


def test_every_amount_in_a_column_can_be_counted() -> None:
    for model in apps.get_app_config("relay").get_models():
        for field in model._meta.get_fields():
            if (
                isinstance(field, models.DecimalField)
                and field.name not in {*NO_MONEY, "low_balance"}
                and field.editable
            ):
                whole = field.max_digits - field.decimal_places
                assert money.nano(Decimal(10**whole - 1)) <= money.LARGEST, f"{model.__name__}.{field.name}"
                assert whole >= len(str(money.MOST_USD)), f"{model.__name__}.{field.name}"


@pytest.mark.parametrize("amount", HUGE, ids=lambda text: text[:12])
def test_no_page_breaks_on_an_amount(people: People, staff: Client, amount: str) -> None:
    token = create_token(people.owner, "t", actor=None)[0]
    client = signed_in(people.owner)
    for name in ("quota", "day", "week", "month"):
        assert client.post(f"/tokens/{token.pk}/limits/", {name: amount}).status_code == 422, name
    user = f"/admin/accounts/user/{people.owner.pk}"
    for path, form in (
        (f"{user}/top-up/", {"amount": amount, "reason": "x"}),
        (f"{user}/deduct/", {"amount": amount, "reason": "x"}),
        ("/admin/relay/token/add/", {"user": people.owner.pk, "name": "t", "enabled": "on", "quota": amount}),
        ("/admin/relay/redemptionbatch/add/", {"name": "t", "count": "1", "usd": amount}),
    ):
        assert staff.post(path, form).status_code in {200, 422}, path
    assert not LedgerEntry.objects.exists() and Token.objects.count() == 1


def test_a_wallet_never_holds_more_than_its_column(people: People, staff: Client) -> None:
    path = f"/admin/accounts/user/{people.owner.pk}/top-up/"
    answers = [staff.post(path, {"amount": money.MOST_USD, "reason": f"{number}"}).status_code for number in range(12)]
    assert answers == [302] * 4 + [200] * 8 or answers == [302] * 4 + [422] * 8
    assert wallet(people.owner).granted == 4 * money.MOST_USD * NANO
    movements.deduct(people.owner, NANO, actor=people.staff, reason="x")
    books_balance()

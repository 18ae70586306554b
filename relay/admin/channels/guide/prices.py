"""The step of the set-up guide that gives models their prices."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from django import forms
from django.contrib import messages
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.admin.base import request_ip
from accounts.models import AuditEvent
from portal.lib import clock
from portal.lib.texts import whole_number
from relay.admin.channels.model_list import make_free, unpriced
from relay.admin.money.below_cost import warn_below_cost
from relay.billing import price_import
from relay.catalog.margins import below_cost, margins
from relay.catalog.price_texts import PriceNow, prices_now
from relay.models import Channel, Model, ModelPrice
from relay.models.fields import UsdField

# A model, its price in force in words (empty: none), and the fields of its form: class, value, what is wrong with it.
PriceRow = tuple[Model, str, list[tuple[str, Any, str]]]
_TOKENS: Final = ("input", "output")
_UNITS: Final = ("per_call", "per_image")
_CLASSES: Final = _TOKENS + _UNITS
_FIELDS: Final = tuple(f"{name}-" for name in _CLASSES)  # beginnings of the names of the form's fields
_PRICE: Final = UsdField(decimal_places=9)
MOST_PRICES: Final = 60  # models that are priced at once, those without a price first


def price_form(request: HttpRequest, channel: Channel) -> dict[str, Any] | None:
    """Save what was typed. Returns what the step's page shows, None when it is done."""
    models = Model.objects.filter(served_by__channel=channel)
    if request.method == "POST" and request.POST.get("free"):
        count = make_free(request, models)
        said = ngettext("%(n)d model is free now.", "%(n)d models are free now.", count) % {"n": count}
        messages.success(request, said)
        return None
    # A form is about the models that were shown, whatever comes first by now.
    named = {whole_number(name.rpartition("-")[2]) for name in request.POST if name.startswith(_FIELDS)}
    shown = list(models.filter(pk__in=named - {None}).order_by("name"))
    if not shown:
        priced = Exists(ModelPrice.objects.filter(model=OuterRef("pk")))
        shown = sorted(models.order_by(priced, "name")[:MOST_PRICES], key=lambda model: model.name)
    rows = _save_prices(request, shown, models, local=not channel.vendor.needs_key)
    if rows is None:
        return None
    without = len(unpriced(models))
    return {
        "rows": rows,
        "more": max(0, models.count() - len(shown)),
        "without": without,
        "saved": request.method == "POST" and without,
    }


def _save_prices(
    request: HttpRequest, models: list[Model], every: QuerySet[Model], *, local: bool = False
) -> list[PriceRow] | None:
    """Save the prices that were typed for models. Returns the rows of the form to show, None when none lacks one.

    `every`: all models of the channel, of which the form shows some.

    A model is priced by tokens, by unit, or by both: who types one price of tokens types the other, too. `local`: the
    channel is a server of one's own that takes no key, so that zero is offered where no list price is known.
    """
    typed: dict[int, dict[str, str]] = {}  # by model, what could not be saved
    wrong: dict[int, dict[str, str]] = {}  # by model, why not
    if request.method == "POST":
        for model in models:
            texts = {name: request.POST.get(f"{name}-{model.pk}", "").strip() for name in _CLASSES}
            if not any(texts.values()):
                continue
            bad = {
                name: _("Type amounts such as 2.50.")
                for name in _CLASSES
                if texts[name] and _amount(texts[name]) is None
            }
            if any(texts[name] for name in _TOKENS) or not any(texts[name] for name in _UNITS):
                bad |= {name: _("Type a price, too; 0 if it is free.") for name in _TOKENS if not texts[name]}
            if bad:
                typed[model.pk], wrong[model.pk] = texts, bad
                continue
            amounts = {name: _amount(text) for name, text in texts.items() if text}
            price = ModelPrice(model=model, source="typed in the guide", **amounts)
            with transaction.atomic():
                price.save()
                said = {name: str(amount) for name, amount in amounts.items()}
                AuditEvent.write("modelprice.add", request.user, price, request_ip(request), **said)
            warn_below_cost(request, str(model), below_cost(margins(clock.now(), model=model.pk)))
        if not wrong and not unpriced(every):
            return None
    if not wrong and request.method == "POST":  # what is left without a price
        models = unpriced(every)[: len(models)] or models
    now = prices_now((model.pk for model in models), clock.now())
    return [
        _row(model, now[model.pk], typed.get(model.pk), wrong.get(model.pk, {}), offer)
        for model, offer in _offers(models, now, local)
    ]


def _offers(models: list[Model], now: dict[int, PriceNow], local: bool) -> list[tuple[Model, dict[str, Any]]]:
    """Return what is filled in for each model that has no price: its list price, or zero on a server of one's own."""
    found, _unknown = price_import.propose_changes([model for model in models if not now[model.pk].known])
    listed = {
        one.model.pk: {
            name: amount
            for name, amount in one.new[0].classes.items()
            if name in _CLASSES and name not in one.new[0].unlisted and (amount or name in _TOKENS)
        }
        for one in found
        if one.new
    }
    nothing = dict.fromkeys(_TOKENS, 0) if local else {}
    return [(model, nothing if local else listed.get(model.pk, {})) for model in models]


def _row(
    model: Model, now: PriceNow, typed: dict[str, str] | None, wrong: dict[str, str], offer: dict[str, Any]
) -> PriceRow:
    shown: dict[str, Any] = typed or offer
    words = now.words(unpriced="refuse") if now.known else ""
    return model, words, [(name, shown.get(name, ""), wrong.get(name, "")) for name in _CLASSES]


def _amount(text: str) -> Decimal | None:
    """Return a typed price in USD, None when it is none. An empty field is no price; zero is typed."""
    try:
        amount: Decimal = _PRICE.clean(text)
    except forms.ValidationError:
        return None
    return amount

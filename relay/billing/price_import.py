"""Imports list prices from the package genai-prices: compares them with the prices in force and applies them.

Works offline: the prices are data in the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.db import transaction

from accounts.models import AuditEvent
from portal.lib import clock
from relay.models import Channel, Model, ModelPrice
from relay.models.price import CLASSES, PricePurpose
from relay.providers.vendors import VENDORS

SOURCE: Final = "genai-prices"
# Price classes of this portal, and the fields of genai-prices for them.
_CLASSES: Final = {
    "input": "input_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "output": "output_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
    "image_input": "input_image_mtok",
}
_ZERO: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """One tier of a list price."""

    above_tokens: int  # applies to prompts of more tokens than this
    classes: dict[str, Decimal]  # USD per 1M tokens or per unit, by price class
    unlisted: frozenset[str] = field(default=frozenset(), compare=False)  # which of them the list does not name: zero


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed change of a model's price to its list price."""

    model: Model
    vendor: str  # as genai-prices calls it
    name: str  # of the model, as the vendor calls it
    old: tuple[ListedPrice, ...]  # the price in force by tier, empty when the model has none
    new: tuple[ListedPrice, ...]  # the list price by tier

    def lines(self) -> list[str]:
        """Describe the change, one line for each price class that differs."""
        found = []
        old = {row.above_tokens: row.classes for row in self.old}
        for row in self.new:
            before = old.get(row.above_tokens, {})
            tier = f" above {row.above_tokens:,} tokens" if row.above_tokens else ""
            for name in CLASSES:
                was, now = before.get(name), row.classes.get(name)
                if was != now:
                    note = " (the list has no price for it)" if name in row.unlisted else ""
                    found.append(f"{name.replace('_', ' ')}{tier}: {_show_usd(was)} → {_show_usd(now)}{note}")
        found += [
            f"above {tokens:,} tokens: no longer priced apart"
            for tokens in old
            if tokens not in {row.above_tokens for row in self.new}
        ]
        return found


def _show_usd(value: Decimal | None) -> str:
    return "—" if value is None else f"${value.normalize():f}"


def propose_changes(models: Iterable[Model] | None = None) -> tuple[list[Proposal], list[Model]]:
    """Compare models (all when None) with the list prices.

    Returns proposed changes, and the models without a list price.

    Changes are proposed for prices that people typed, too.
    """
    from genai_prices.data import providers  # takes 0.2 s and is needed only here

    vendors: dict[str, Any] = {provider.id: provider for provider in providers}
    now = clock.now()
    found, unknown = [], []
    for model in Model.objects.order_by("name") if models is None else models:
        match = _find_entry(vendors, model)
        rows = _tiers_of(match[1], now) if match is not None else ()
        if match is None or not rows:
            unknown.append(model)
            continue
        old = in_force(model, now)
        if old != rows:
            found.append(Proposal(model, match[0], match[1].id, old, rows))
    return found, unknown


def in_force(model: Model, now: datetime) -> tuple[ListedPrice, ...]:
    """Return the price that users of a model pay at `now`, by tier; empty when it has none."""
    rows = list(
        ModelPrice.objects.filter(model=model, channel=None, purpose=PricePurpose.SALE, valid_from__lte=now).order_by(
            "-valid_from", "above_tokens"
        )
    )
    newest = [row for row in rows if row.valid_from == rows[0].valid_from]
    return tuple(
        ListedPrice(
            row.above_tokens,
            {name: Decimal(value).normalize() for name in CLASSES if (value := getattr(row, name)) is not None},
        )
        for row in newest
    )


def apply_proposals(chosen: Sequence[Proposal], *, actor: Any, ip: str | None = None) -> int:
    """Put list prices in force from now on, as new rows, and audit it. Returns the number of models."""
    now = clock.now()
    with transaction.atomic():
        for proposal in chosen:
            for row in proposal.new:
                ModelPrice.objects.create(
                    model=proposal.model,
                    valid_from=now,
                    above_tokens=row.above_tokens,
                    source=f"{SOURCE}: {proposal.vendor} {proposal.name}"[:80],
                    **row.classes,
                )
            AuditEvent.write("price.import", actor, proposal.model, ip, changes=proposal.lines()[:30])
    return len(chosen)


def add_list_prices(models: Iterable[Model], *, actor: Any = None) -> int:
    """Give models without any price their list price, where it is known. Returns the number of models.

    A list price for input or output alone is left to a person, who sees that the other one would be free.
    """
    unpriced = [model for model in models if not model.prices.exists()]
    found = propose_changes(unpriced)[0] if unpriced else []
    return apply_proposals([one for one in found if not any(row.unlisted for row in one.new)], actor=actor)


def search_order() -> list[str]:
    """Return the vendors of genai-prices to search when those of a model's channels do not list it, in order."""
    places = [(place, name) for vendor in VENDORS.values() for name, place in vendor.price_search.items()]
    return [name for _place, name in sorted(places)]


def _find_entry(vendors: dict[str, Any], model: Model) -> tuple[str, Any] | None:
    """Find the vendor and its entry for a model, None when no vendor lists it.

    Vendors of the model's channels are searched first, and upstream names before the public name.
    """
    names, preferred = [], []
    for channel in Channel.objects.filter(models=model).order_by("-priority", "pk"):
        known = VENDORS.get(channel.provider)
        if known is not None and known.price_list and known.price_list not in preferred:
            preferred.append(known.price_list)
        names += [served.upstream_name for served in channel.served.filter(model=model) if served.upstream_name]
    for vendor in dict.fromkeys((*preferred, *search_order())):
        for name in dict.fromkeys((*names, model.name, model.name.rpartition("/")[2])):
            for entry in vendors[vendor].models if vendor in vendors else ():
                if entry.id == name or entry.is_match(name):
                    return vendor, entry
    return None


def _tiers_of(entry: Any, now: datetime) -> tuple[ListedPrice, ...]:
    prices = entry.get_prices(now)
    base: dict[str, Decimal] = {}
    tiers: dict[int, dict[str, Decimal]] = {}
    for ours, theirs in _CLASSES.items():
        value = getattr(prices, theirs, None)
        if value is None:
            continue
        base[ours] = Decimal(getattr(value, "base", value)).normalize()
        for tier in getattr(value, "tiers", ()):
            tiers.setdefault(tier.start, {})[ours] = Decimal(tier.price).normalize()
    hours = getattr(prices, "input_audio_hours", None) or getattr(prices, "audio_hours", None)
    if hours is not None:
        base["per_second"] = (Decimal(getattr(hours, "base", hours)) / 3600).quantize(Decimal("1e-9")).normalize()
    calls = getattr(prices, "requests_kcount", None)
    if calls is not None:
        base["per_call"] = (Decimal(getattr(calls, "base", calls)) / 1000).normalize()
    if not base:
        return ()
    sides = {"input", "output"}
    unlisted = frozenset(sides - base.keys()) if sides & base.keys() else frozenset()  # neither: priced by unit
    for classes in (base, *tiers.values()):
        classes.setdefault("input", base.get("input", _ZERO))
        classes.setdefault("output", base.get("output", _ZERO))
    return (
        ListedPrice(0, base, unlisted),
        *(ListedPrice(start, {**base, **classes}, unlisted) for start, classes in sorted(tiers.items())),
    )

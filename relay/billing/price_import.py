"""Compares the prices in force with the vendors' list prices, and applies those."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeVar

from django.conf import settings
from django.db import transaction

from accounts.models import AuditEvent
from portal.lib import clock
from relay.billing.list_prices import ListedPrice, Listing, look_up
from relay.models import ChannelModel, Model, ModelPrice
from relay.models.price import CLASSES, PricePurpose
from relay.providers.vendors import VENDORS

T = TypeVar("T")

SOURCE: Final = "genai-prices"
_AT_ONCE: Final = 500  # ids in one query: databases limit its parameters


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed change of a model's price to its list price."""

    model: Model
    listing: Listing
    old: tuple[ListedPrice, ...]  # the price in force by tier, empty when the model has none

    @property
    def new(self) -> tuple[ListedPrice, ...]:
        """The list price by tier."""
        return self.listing.tiers

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
    now = clock.now()
    chosen = list(Model.objects.order_by("name") if models is None else models)
    listings, old = _listings_of(chosen, now), in_force(chosen, now)
    found, unknown = [], []
    for model in chosen:
        listing = listings.get(model.pk)
        if listing is None:
            unknown.append(model)
        elif old.get(model.pk, ()) != listing.tiers:
            found.append(Proposal(model, listing, old.get(model.pk, ())))
    return found, unknown


def in_force(models: Iterable[Model], now: datetime) -> dict[int, tuple[ListedPrice, ...]]:
    """Return the prices that users of models pay at `now`, by tier, by id of the model. Left out: those without one."""
    found: dict[int, list[ModelPrice]] = {}
    for ids in _portions([model.pk for model in models]):
        for row in ModelPrice.objects.filter(
            model__in=ids, channel=None, purpose=PricePurpose.SALE, valid_from__lte=now
        ).order_by("-valid_from", "above_tokens"):
            rows = found.setdefault(row.model_id, [])
            if not rows or row.valid_from == rows[0].valid_from:
                rows.append(row)
    return {
        model: tuple(
            ListedPrice(
                row.above_tokens,
                {name: Decimal(value).normalize() for name in CLASSES if (value := getattr(row, name)) is not None},
            )
            for row in rows
        )
        for model, rows in found.items()
    }


def apply_proposals(chosen: Sequence[Proposal], *, actor: Any, ip: str | None = None) -> int:
    """Put list prices in force from now on, as new rows, and audit it. Returns the number of models."""
    now = clock.now()
    with transaction.atomic():
        ModelPrice.objects.bulk_create(
            [
                ModelPrice(
                    model=proposal.model,
                    valid_from=now,
                    above_tokens=row.above_tokens,
                    source=f"{SOURCE}: {proposal.listing.vendor} {proposal.listing.name}"[:80],
                    **row.classes,
                )
                for proposal in chosen
                for row in proposal.new
            ],
            batch_size=_AT_ONCE,
        )
        AuditEvent.objects.bulk_create(
            [AuditEvent.entry("price.import", actor, one.model, ip, changes=one.lines()[:30]) for one in chosen],
            batch_size=_AT_ONCE,
        )
    return len(chosen)


def for_new_models(proposals: Iterable[Proposal]) -> tuple[list[Proposal], list[Model]]:
    """Return the proposals that need nobody's judgement, and the models of the others.

    Those are for models that have, and had, no price at all, from lists that name both input and output.
    """
    found = list(proposals)
    priced = _priced([one.model.pk for one in found])
    plain = [one for one in found if not one.old and one.listing.complete and one.model.pk not in priced]
    taken = {one.model.pk for one in plain}
    return plain, [one.model for one in found if one.model.pk not in taken]


def listings_for(provider: str, names: Sequence[tuple[str, str]]) -> dict[str, Listing]:
    """Return the list prices of models that a channel of a vendor is about to serve, by public name.

    `names` are pairs of public name and upstream name. Left out: models that have a price already or are sold without
    one, those without a list price, and those whose list names input or output alone, which a person has to see. Takes
    about 1 ms for a name: it is called before the transaction that adds the models.
    """
    now = clock.now()
    there: dict[str, Model] = {}
    for some in _portions([public for public, _upstream in names]):
        there.update((model.name, model) for model in Model.objects.filter(name__in=some))
    priced = _priced([model.pk for model in there.values()])
    sources = _sources([model for model in there.values() if model.pk not in priced])
    found = {}
    for public, upstream in names:
        model = there.get(public)
        if model is not None and (model.pk in priced or settings.CONFIG.unpriced != "refuse"):
            continue
        preferred, known = sources.get(model.pk, ([], [])) if model is not None else ([], [])
        listing = look_up(
            [*preferred, *_list_of(provider)], [*known, *([upstream] if upstream else []), *_public_names(public)], now
        )
        if listing is not None and listing.complete:
            found[public] = listing
    return found


def add_list_prices(
    models: Sequence[Model], listings: Mapping[str, Listing], *, actor: Any = None, ip: str | None = None
) -> int:
    """Give models without any price the list price that was looked up for their name. Returns the number of models."""
    priced = _priced([model.pk for model in models])
    return apply_proposals(
        [Proposal(one, listings[one.name], ()) for one in models if one.pk not in priced and one.name in listings],
        actor=actor,
        ip=ip,
    )


def _priced(models: Sequence[int]) -> set[int]:
    """Those of the models that have any price, by id."""
    return {
        pk
        for ids in _portions(models)
        for pk in ModelPrice.objects.filter(model__in=ids).order_by().values_list("model", flat=True).distinct()
    }


def _listings_of(models: Sequence[Model], now: datetime) -> dict[int, Listing]:
    sources = _sources(models)
    found = {}
    for model in models:
        preferred, known = sources.get(model.pk, ([], []))
        listing = look_up(preferred, [*known, *_public_names(model.name)], now)
        if listing is not None:
            found[model.pk] = listing
    return found


def _sources(models: Sequence[Model]) -> dict[int, tuple[list[str], list[str]]]:
    """The vendors of the channels that serve models, and the names that these have there, by id of the model."""
    found: dict[int, tuple[list[str], list[str]]] = {}
    for ids in _portions([model.pk for model in models]):
        for row in (
            ChannelModel.objects.filter(model__in=ids)
            .order_by("-channel__priority", "channel")
            .values_list("model", "channel__provider", "upstream_name")
        ):
            vendors, names = found.setdefault(row[0], ([], []))
            vendors += _list_of(row[1])
            names += [row[2]] if row[2] else []
    return found


def _list_of(provider: str) -> list[str]:
    """The name of a vendor's own list in genai-prices, none if it has none there."""
    vendor = VENDORS.get(provider)
    return [vendor.price_list] if vendor is not None and vendor.price_list else []


def _public_names(name: str) -> tuple[str, str]:
    return name, name.rpartition("/")[2]


def _portions(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))

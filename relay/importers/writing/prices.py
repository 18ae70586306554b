"""Prices: what users pay for a model, of all channels or of one. Prices that are in force here are never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from portal.lib import clock
from relay.importers.description import Level, SourcePrice
from relay.importers.mapping import Known, NewRow
from relay.importers.run import Run, batched
from relay.models import ModelPrice
from relay.models.price import CLASSES, PricePurpose

_STEP: Final = Decimal("0.000000001")
_MOST: Final = Decimal(999_999_999)
_REQUIRED: Final = ("input", "output")
_NO_COSTS: Final = (
    "What upstreams charge is not known from it: margins count it as the price, so that groups who pay less show as "
    "below cost, until channels have a cost multiplier or costs of their own."
)


@dataclass(frozen=True, slots=True)
class _Place:
    """What a price is for, by ids here. 0: it would be made by a dry run."""

    model: int
    channel: int | None
    purpose: str


def carry(run: Run) -> None:
    models = {known.seen["name"]: known.object_id for known in run.rows.of("model").values() if "name" in known.seen}
    names = {model.name: model.id for model in run.source.models() if not model.left_out}
    met: set[str] = set()
    costs_told = False
    for batch in batched(run.source.prices()):
        new: list[tuple[SourcePrice, _Place]] = []
        known: list[tuple[SourcePrice, _Place, Known]] = []
        for price in batch:
            place = _place(run, price, models, names)
            if why := price.left_out or _impossible(price):
                run.report.leave_out("price", price, why)
            elif price.id in met:  # of a channel that has the model twice, and serves it as the first one says
                run.report.leave_out("price", price, "Its channel has another price of the model, which holds.")
            elif place is not None:
                met.add(price.id)
                run.report.remarks("price", price, price.remarks)
                before = run.rows.find("price", price.id)
                if before is None:
                    new.append((price, place))
                else:
                    known.append((price, place, before))
        if not costs_told and any(place.purpose == PricePurpose.SALE for _price, place in new):
            costs_told = True
            run.report.tell("source", None, _NO_COSTS, Level.NOTE)
        _create(run, new)
        _follow(run, known)


def _place(run: Run, price: SourcePrice, models: Mapping[str, int], names: Mapping[str, str]) -> _Place | None:
    model = models.get(price.name)
    if model is None:
        model = run.rows.here("model", names.get(price.name, ""))
    if model is None:
        return None  # of a model that is not carried over, which was told there
    channel = run.rows.here("channel", price.channel) if price.channel else None
    if price.channel and channel is None:
        return None
    return _Place(model, channel, PricePurpose.COST if price.is_cost else PricePurpose.SALE)


def _create(run: Run, prices: Sequence[tuple[SourcePrice, _Place]]) -> None:
    priced = set(
        ModelPrice.objects.filter(model__in=[place.model for _price, place in prices])
        .values_list("model_id", "channel_id", "purpose")
        .distinct()
    )
    new = []
    for price, place in prices:
        if (place.model, place.channel, place.purpose) in priced:
            run.report.counts["price"].unchanged += 1
            text = "The model has a price here, which stays: calls may cost something else than they did."
            run.report.tell("price", price, text)
        else:
            run.report.counts["price"].new += 1
            new.append((price, place))
    if not run.applies or not new:
        return
    with run.batch():
        run.rows.add("price", [_write(run, price, place) for price, place in new])


def _follow(run: Run, prices: Sequence[tuple[SourcePrice, _Place, Known]]) -> None:
    """A price that has changed there is a new one from now on, unless somebody has set another one here."""
    changed = []
    for price, place, known in prices:
        if known.seen.get("tiers") == _tiers(price):
            run.report.counts["price"].unchanged += 1
            continue
        newest = (
            ModelPrice.objects.filter(model=place.model, channel=place.channel, purpose=place.purpose)
            .order_by("-valid_from")
            .values_list("valid_from", flat=True)
            .first()
        )
        if newest is not None and newest.isoformat() != known.seen.get("valid_from"):
            run.report.counts["price"].unchanged += 1
            run.report.tell("price", price, "Its price was changed there and here: the one that is here stays.")
        else:
            run.report.counts["price"].changed += 1
            changed.append((price, place, known))
    if not run.applies or not changed:
        return
    with run.batch():
        for price, place, known in changed:
            note = _write(run, price, place)
            run.rows.update(known, note.seen)


def _write(run: Run, price: SourcePrice, place: _Place) -> NewRow:
    begins = clock.now().replace(microsecond=0)
    last = (
        ModelPrice.objects.filter(model=place.model, channel=place.channel, purpose=place.purpose)
        .order_by("-valid_from")
        .values_list("valid_from", flat=True)
        .first()
    )
    if last is not None and last >= begins:
        begins = clock.now()
    first = 0
    for above, classes in sorted(price.tiers, key=lambda tier: tier[0]):
        row = ModelPrice(
            model_id=place.model,
            channel_id=place.channel,
            purpose=place.purpose,
            valid_from=begins,
            above_tokens=above,
            source=run.report.installation,
            **_columns(classes),
        )
        row.save()
        first = first or row.pk
    return NewRow(price.id, first, seen={"tiers": _tiers(price), "valid_from": _text(begins)})


def _text(moment: datetime) -> str:
    return moment.isoformat()


def _impossible(price: SourcePrice) -> str:
    """Why a price cannot be one here: left out it is missing, and with a part of it left out it were too low."""
    for _above, classes in price.tiers:
        for name, usd in classes.items():
            if not 0 <= usd <= _MOST:
                return f"What it charges for {name.replace('_', ' ')} is no price that is possible here: {usd:.9g}."
    return ""


def _columns(classes: Mapping[str, Decimal]) -> dict[str, Any]:
    """The columns of a tier: nine decimals, rounded up."""
    found: dict[str, Any] = dict.fromkeys(_REQUIRED, Decimal(0))
    for name, usd in classes.items():
        if name not in CLASSES:
            raise KeyError(name)
        found[name] = usd.quantize(_STEP, "ROUND_CEILING") if usd.as_tuple().exponent < -9 else usd  # type: ignore[operator]  # finite
    return found


def _tiers(price: SourcePrice) -> list[Any]:
    return [
        [above, {name: f"{usd.normalize():f}" for name, usd in sorted(classes.items())}]
        for above, classes in sorted(price.tiers, key=lambda tier: tier[0])
    ]

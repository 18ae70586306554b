"""What users pay for models now, in words. Every page and list that names a price takes its words from here.

Amounts are USD: per 1M tokens for the classes of tokens, per unit for calls, images, seconds, characters and searches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Context, Decimal
from typing import Final

from django.conf import settings
from django.db.models import Exists, F, OuterRef, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from portal.lib import clock
from relay.billing.price_ranges import PriceRange, Tier, price_ranges, with_general
from relay.models import ChannelModel, Model, ModelPrice
from relay.models.price import CLASSES, UNIT_CLASSES, PricePurpose

ONE: Final = Decimal(1)
# An amount of each price class, in words.
_WORDS: Final[Mapping[str, str]] = {
    "input": gettext_noop("%(usd)s in"),
    "cached_input": gettext_noop("%(usd)s cached"),
    "cached_audio_input": gettext_noop("%(usd)s cached audio"),
    "cache_write": gettext_noop("%(usd)s written to the cache"),
    "cache_write_1h": gettext_noop("%(usd)s written to the cache for an hour"),
    "output": gettext_noop("%(usd)s out"),
    "reasoning": gettext_noop("%(usd)s reasoning"),
    "audio_input": gettext_noop("%(usd)s audio in"),
    "audio_output": gettext_noop("%(usd)s audio out"),
    "image_input": gettext_noop("%(usd)s images in"),
    "per_call": gettext_noop("%(usd)s per call"),
    "per_image": gettext_noop("%(usd)s per image"),
    "per_second": gettext_noop("%(usd)s per second"),
    "per_character": gettext_noop("%(usd)s per character"),
    "per_search": gettext_noop("%(usd)s per web search"),
}
_SIDES: Final = ("input", "output")
_NOTHING: Final = Decimal(0)
_SMALLEST: Final = Decimal("1e-9")
_CONTEXT: Final = Context(prec=40)


@dataclass(frozen=True, slots=True)
class PriceNow:
    """The price in force of one model on the channels that can serve it, which may have prices of their own."""

    tiers: tuple[PriceRange, ...] = ()  # by length of prompt, ascending; empty: requests find no price

    @property
    def known(self) -> bool:
        """Whether requests find a price."""
        return bool(self.tiers)

    def amounts(self, classes: Iterable[str], factor: Decimal = ONE) -> dict[str, float]:
        """Return the amounts of those of these classes that have one, for prompts of any length; the highest ones."""
        highest = self.tiers[0].highest if self.tiers else {}
        return {name: float(highest[name] * factor) for name in classes if name in highest}

    def sides(self, factor: Decimal = ONE) -> tuple[str, str] | None:
        """Return the prices of input and output per 1M tokens. None when tokens cost nothing, or depend on more."""
        if not self.tiers or not factor or not any(self.tiers[0].highest.get(side) for side in _SIDES):
            return None
        into, out = (_span(self.tiers[0], side, factor) for side in _SIDES)
        return into, out

    def notes(self, factor: Decimal = ONE) -> str:
        """Return everything that `sides` leaves out: units, longer prompts, and why there are several prices."""
        found = [_unit_words(self.tiers[0], factor)] if self.tiers else []
        found += [
            _("above %(n)s tokens: %(price)s") % {"n": f"{tier.above_tokens:,}", "price": range_words(tier, factor)}
            for tier in self.tiers[1:]
        ]
        if any(tier.differs for tier in self.tiers):
            found.append(_("depending on the channel"))
        return "; ".join(filter(None, found))

    def words(self, factor: Decimal = ONE, unpriced: str = "refuse") -> str:
        """Return all of it in one line. `unpriced`: the setting UNPRICED, for models without any price."""
        if not self.tiers:
            return unpriced_words(unpriced)
        notes = self.notes(factor)
        if self.sides(factor) is None and _unit_words(self.tiers[0], factor):
            return notes
        return "; ".join(filter(None, (range_words(self.tiers[0], factor, units=False), notes)))


NO_PRICE: Final = PriceNow()


def prices_now(models: Iterable[int], now: datetime, channels: Collection[int] | None = None) -> dict[int, PriceNow]:
    """Return what users pay for models at `now`, by their ids. Takes 2 queries, however many models there are.

    `channels`: those that can serve the user who asks; None: what everybody may be charged. A model that none of them
    serves has its own price.
    """
    ids = list(models)
    tiers: dict[tuple[int, int | None], list[ModelPrice]] = {}
    sale = ModelPrice.objects.filter(model__in=ids, purpose=PricePurpose.SALE, valid_from__lte=now)
    for row in sale.order_by("-valid_from"):
        found = tiers.setdefault((row.model_id, row.channel_id), [])
        if not found or found[0].valid_from == row.valid_from:
            found.append(row)
    links: dict[int, list[int]] = {}
    rows = ChannelModel.objects.filter(model__in=ids, enabled=True, channel__enabled=True)
    for model, channel in rows.values_list("model", "channel"):
        if channels is None or channel in channels:
            links.setdefault(model, []).append(channel)
    lists: dict[tuple[int, int | None], list[Tier]] = {
        key: [(row.above_tokens, classes_of(row)) for row in found] for key, found in tiers.items()
    }
    fallback = _fallback(settings.CONFIG.unpriced)
    result = {}
    for pk in ids:
        general = lists.get((pk, None), [])
        served = [with_general(lists.get((pk, channel), []), general) for channel in links.get(pk, ())]
        if not any(served):
            served = [general]
        elif fallback is not None:  # is what channels without a price charge where others have one
            served = [one or fallback for one in served]
        result[pk] = PriceNow(price_ranges(served))
    return result


def _fallback(unpriced: str) -> list[Tier] | None:
    if unpriced == "refuse":
        return None
    into, out = (Decimal(part) for part in ("0/0" if unpriced == "free" else unpriced).split("/"))
    return [(0, {"input": into, "output": out})]


def current_prices(now: datetime | None = None, model: str = "pk") -> QuerySet[ModelPrice]:
    """Return prices of the model of an outer query, the one in force first, for a Subquery. `model`: its column."""
    return ModelPrice.objects.filter(
        model=OuterRef(model),
        channel=None,
        purpose=PricePurpose.SALE,
        valid_from__lte=now or clock.now(),
        above_tokens=0,
    ).order_by("-valid_from")


def without_price(models: QuerySet[Model]) -> QuerySet[Model]:
    """Return the models whose requests find no price, as `PriceNow.known` says."""
    now = clock.now()
    links = _priced_links(now).filter(model=OuterRef("pk"))
    return models.exclude(Exists(current_prices(now))).exclude(Exists(links))


def _priced_links(now: datetime) -> QuerySet[ChannelModel]:
    """The models of channels for which users pay prices of the channel."""
    return ChannelModel.objects.filter(
        enabled=True,
        channel__enabled=True,
        channel__prices__model=F("model"),
        channel__prices__purpose=PricePurpose.SALE,
        channel__prices__valid_from__lte=now,
    )


def classes_of(row: ModelPrice) -> dict[str, Decimal]:
    """Return the amounts of a row by price class, without the classes that have none of their own."""
    return {name: Decimal(value).normalize() for name in CLASSES if (value := getattr(row, name)) is not None}


def price_words(
    classes: Mapping[str, Decimal], factor: Decimal = ONE, *, every: bool = False, units: bool = True
) -> str:
    """Return a price in words, such as “$2.50 in, $10.00 out per 1M tokens; $0.05 per call”, or “free”.

    `every` names all classes of tokens, not input and output alone. Zero tokens go unsaid where units cost something.
    """
    return range_words(PriceRange(0, classes, classes), factor, every=every, units=units)


def range_words(tier: PriceRange, factor: Decimal = ONE, *, every: bool = False, units: bool = True) -> str:
    """Return the prices of several channels in words, as `price_words` does: “$2.50–$3.00 in, …”."""
    said = _unit_words(tier, factor) if units else ""
    names: Sequence[str] = [name for name in CLASSES if name not in UNIT_CLASSES and (every or name in _SIDES)]
    names = [name for name in names if name in tier.highest]
    if factor and any(tier.highest[name] for name in names):
        tokens = ", ".join(_(_WORDS[name]) % {"usd": _span(tier, name, factor)} for name in names)
        return "; ".join(filter(None, (_("%(prices)s per 1M tokens") % {"prices": tokens}, said)))
    return said or _("free")


def unpriced_words(setting: str) -> str:
    """Return what models without a price cost, by the setting UNPRICED: refuse, free, or two prices such as 5/15."""
    if setting == "refuse":
        return _("no price yet, so it cannot be used")
    if setting == "free":
        return _("free")
    into, out = (Decimal(part) for part in setting.split("/"))
    return price_words({"input": into, "output": out})


def unit_words(classes: Mapping[str, Decimal], factor: Decimal = ONE) -> str:
    """Return what is charged per unit in words, empty when nothing is."""
    return _unit_words(PriceRange(0, classes, classes), factor)


def _unit_words(tier: PriceRange, factor: Decimal) -> str:
    return ", ".join(
        _(_WORDS[name]) % {"usd": _span(tier, name, factor)}
        for name in UNIT_CLASSES
        if tier.highest.get(name) and factor
    )


def _span(tier: PriceRange, name: str, factor: Decimal) -> str:
    """The amount of a class, or the lowest and the highest."""
    low, high = (usd(side.get(name, _NOTHING), factor) for side in (tier.lowest, tier.highest))
    return low if low == high else f"{low}–{high}"


def usd(amount: Decimal, factor: Decimal = ONE) -> str:
    """Format a price with all its digits, at least two behind the point; never less than what is charged."""
    nano = (amount * factor).quantize(_SMALLEST, ROUND_CEILING, _CONTEXT)
    whole, _point, rest = f"{nano:,.9f}".partition(".")
    return f"${whole}.{rest.rstrip('0').ljust(2, '0')}"

"""What users pay for models now, in words. Every page and list that names a price takes its words from here.

Amounts are USD: per 1M tokens for the classes of tokens, per unit for calls, images, seconds and characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Context, Decimal
from typing import Final

from django.db.models import Exists, F, OuterRef, QuerySet, Subquery
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from portal.lib import clock
from relay.billing.list_prices import ListedPrice
from relay.models import ChannelModel, Model, ModelPrice
from relay.models.price import CLASSES, UNIT_CLASSES, PricePurpose

ONE: Final = Decimal(1)
# An amount of each price class, in words.
_WORDS: Final[Mapping[str, str]] = {
    "input": gettext_noop("%(usd)s in"),
    "cached_input": gettext_noop("%(usd)s cached"),
    "cache_write": gettext_noop("%(usd)s written to the cache"),
    "output": gettext_noop("%(usd)s out"),
    "reasoning": gettext_noop("%(usd)s reasoning"),
    "audio_input": gettext_noop("%(usd)s audio in"),
    "audio_output": gettext_noop("%(usd)s audio out"),
    "image_input": gettext_noop("%(usd)s images in"),
    "per_call": gettext_noop("%(usd)s per call"),
    "per_image": gettext_noop("%(usd)s per image"),
    "per_second": gettext_noop("%(usd)s per second"),
    "per_character": gettext_noop("%(usd)s per character"),
}
_SIDES: Final = ("input", "output")
_SMALLEST: Final = Decimal("1e-9")
_CONTEXT: Final = Context(prec=40)


@dataclass(frozen=True, slots=True)
class PriceNow:
    """The price in force of one model."""

    tiers: tuple[ListedPrice, ...] = ()  # by length of prompt, ascending; empty: the model has no price of its own
    by_channel: bool = False  # some channel that serves it has a price of its own

    @property
    def known(self) -> bool:
        """Whether requests find a price."""
        return bool(self.tiers) or self.by_channel

    def sides(self, factor: Decimal = ONE) -> tuple[str, str] | None:
        """Return the prices of input and output per 1M tokens. None when tokens cost nothing, or depend on more."""
        if not self.tiers or not factor or not any(self.tiers[0].classes[side] for side in _SIDES):
            return None
        into, out = (usd(self.tiers[0].classes[side], factor) for side in _SIDES)
        return into, out

    def notes(self, factor: Decimal = ONE) -> str:
        """Return everything that `sides` leaves out: units, longer prompts, channels with prices of their own."""
        found = [unit_words(self.tiers[0].classes, factor)] if self.tiers else []
        found += [
            _("above %(n)s tokens: %(price)s")
            % {"n": f"{tier.above_tokens:,}", "price": price_words(tier.classes, factor)}
            for tier in self.tiers[1:]
        ]
        if self.by_channel:
            found.append(_("other prices on some channels"))
        return "; ".join(filter(None, found))

    def words(self, factor: Decimal = ONE, unpriced: str = "refuse") -> str:
        """Return all of it in one line. `unpriced`: the setting UNPRICED, for models without any price."""
        if not self.tiers:
            return _("depends on the channel") if self.by_channel else unpriced_words(unpriced)
        notes = self.notes(factor)
        if self.sides(factor) is None and unit_words(self.tiers[0].classes, factor):
            return notes
        return "; ".join(filter(None, (price_words(self.tiers[0].classes, factor, units=False), notes)))


NO_PRICE: Final = PriceNow()


def prices_now(models: Iterable[int], now: datetime) -> dict[int, PriceNow]:
    """Return what users pay for models at `now`, by their ids. Takes 2 queries, however many models there are."""
    ids = list(models)
    sale = ModelPrice.objects.filter(model__in=ids, purpose=PricePurpose.SALE, valid_from__lte=now)
    rows = (
        sale.filter(channel=None)
        .annotate(newest=Subquery(current_prices(now, "model").values("valid_from")[:1]))
        .filter(valid_from=F("newest"))
        .order_by("model", "above_tokens")
    )
    tiers: dict[int, list[ListedPrice]] = {}
    for row in rows:
        tiers.setdefault(row.model_id, []).append(ListedPrice(row.above_tokens, classes_of(row)))
    varied = set(_priced_links(now).filter(model__in=ids).values_list("model", flat=True))
    return {pk: PriceNow(tuple(tiers.get(pk, ())), pk in varied) for pk in ids}


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
    said = unit_words(classes, factor) if units else ""
    names: Sequence[str] = [name for name in CLASSES if name not in UNIT_CLASSES and (every or name in _SIDES)]
    amounts = {name: classes[name] for name in names if name in classes}
    if any(amounts.values()) and factor:
        tokens = ", ".join(_(_WORDS[name]) % {"usd": usd(value, factor)} for name, value in amounts.items())
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
    return ", ".join(
        _(_WORDS[name]) % {"usd": usd(classes[name], factor)} for name in UNIT_CLASSES if classes.get(name) and factor
    )


def usd(amount: Decimal, factor: Decimal = ONE) -> str:
    """Format a price with all its digits, at least two behind the point; never less than what is charged."""
    nano = (amount * factor).quantize(_SMALLEST, ROUND_CEILING, _CONTEXT)
    whole, _point, rest = f"{nano:,.9f}".partition(".")
    return f"${whole}.{rest.rstrip('0').ljust(2, '0')}"

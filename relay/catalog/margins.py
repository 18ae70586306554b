"""Which prices are below what upstreams charge, as far as both are known before requests are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from django.db.models import F, Max, OuterRef, QuerySet, Subquery

from relay.billing.price_ranges import amount_of
from relay.models import ChannelModel, ModelPrice
from relay.models.price import CLASSES, PricePurpose

ONE: Final = Decimal(1)
_NOTHING: Final = Decimal(0)
_FREE: Final = Decimal("Infinity")  # no multiplier makes anything of nothing
Classes = Mapping[str, Decimal]
Tiers = Sequence[tuple[int, Classes]]  # length of prompts above which each applies, ascending


@dataclass(frozen=True, slots=True)
class Margin:
    """What a channel charges for a model, compared with what users pay for it."""

    model: int
    channel: int
    model_name: str
    channel_name: str
    own_price: bool  # users pay a price of this channel
    groups: frozenset[int] | None  # whose members the channel serves; None: everybody's
    factor: Decimal  # of the price: what the upstream charges at most, of any class; infinite where the price is zero

    def serves(self, group: int) -> bool:
        return self.groups is None or group in self.groups


def margins(now: datetime, *, model: int | None = None, channel: int | None = None) -> list[Margin]:
    """Return the margin of every model on every channel that serves it, or of one model or channel, at `now`.

    Models that have no price are left out, and where nothing is charged the factor is zero. Takes 4 queries.
    """
    links = ChannelModel.objects.filter(enabled=True, channel__enabled=True, model__enabled=True)
    links = links.filter(model=model) if model is not None else links
    links = links.filter(channel=channel) if channel is not None else links
    tiers = _tiers(now, model)
    groups: dict[int, set[int]] = {}
    limited = links.filter(channel__groups_limited=True)
    for pk, group in limited.values_list("channel", "channel__groups").distinct().order_by():
        groups.setdefault(pk, set()).update([] if group is None else [group])
    found = []
    for model_id, channel_id, model_name, channel_name, only, times in links.order_by("model__name", "pk").values_list(
        "model", "channel", "model__name", "channel__name", "channel__groups_limited", "channel__cost_multiplier"
    ):
        listed = tiers.get((model_id, None, PricePurpose.SALE), ())
        own = tiers.get((model_id, channel_id, PricePurpose.SALE))
        charged = tiers.get((model_id, channel_id, PricePurpose.COST))
        sold = own or listed
        if not sold:
            continue
        factor = _highest(sold, charged, ONE) if charged else _highest(sold, listed, times)
        among = frozenset(groups.get(channel_id, ())) if only else None
        found.append(Margin(model_id, channel_id, model_name, channel_name, own is not None, among, factor))
    return found


def below_cost(found: Iterable[Margin], multiplier: Decimal = ONE, group: int | None = None) -> list[Margin]:
    """Return those at which users who pay `multiplier` times the price pay less than the upstream charges.

    `group`: as a member of which they pay it.
    """
    return [one for one in found if one.factor > multiplier and (group is None or one.serves(group))]


def _highest(sold: Tiers, charged: Tiers, times: Decimal) -> Decimal:
    """How many times the price the upstream charges at most, over all classes and lengths of prompts."""
    worst = _NOTHING
    for above in {above for above, _classes in (*sold, *charged)}:
        price, cost = _tier(sold, above), _tier(charged, above)
        for name in CLASSES:
            asked = amount_of(cost, name) * times
            if asked:
                paid = amount_of(price, name)
                worst = max(worst, asked / paid if paid else _FREE)
    return worst


def _tier(tiers: Tiers, above: int) -> Classes:
    found: Classes = {}
    for start, classes in tiers:
        if start <= above:
            found = classes
    return found


def _tiers(now: datetime, model: int | None) -> dict[tuple[int, int | None, str], list[tuple[int, Classes]]]:
    """The prices in force, by model, channel and purpose."""
    rows = ModelPrice.objects.filter(valid_from__lte=now)
    rows = rows if model is None else rows.filter(model=model)
    same = ModelPrice.objects.filter(valid_from__lte=now, model=OuterRef("model"), purpose=OuterRef("purpose"))
    found: dict[tuple[int, int | None, str], list[tuple[int, Classes]]] = {}
    for some, others in (
        (rows.filter(channel=None), same.filter(channel=None)),
        (rows.exclude(channel=None), same.filter(channel=OuterRef("channel"))),
    ):
        for row in _newest(some, others):
            classes = {name: value for name in CLASSES if (value := getattr(row, name)) is not None}
            found.setdefault((row.model_id, row.channel_id, row.purpose), []).append((row.above_tokens, classes))
    return found


def _newest(rows: QuerySet[ModelPrice], same: QuerySet[ModelPrice]) -> QuerySet[ModelPrice]:
    newest = same.order_by().values("purpose").annotate(newest=Max("valid_from")).values("newest")
    return rows.annotate(newest=Subquery(newest[:1])).filter(valid_from=F("newest")).order_by("above_tokens")

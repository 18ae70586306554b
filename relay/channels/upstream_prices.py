"""What another relay charges for its models, taken as what its channel costs. Synchronous.

Once taken, these prices are kept up to date with the channel's list of models. A price that somebody types stands
above them, and is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import httpx
import msgspec
from asgiref.sync import async_to_sync
from django.db import transaction

from accounts.models import AuditEvent
from portal.lib import clock
from portal.lib.crypto import Undecryptable
from portal.lib.net import Allowance
from portal.services.outside import NotAnswering
from relay.channels.connection import client_of, waiting_for_upstream
from relay.channels.probe import Signed, signed_with, url_of
from relay.models import AllowedUpstream, ApiKey, Channel, ModelPrice
from relay.models.price import CLASSES, PricePurpose
from relay.providers.relays.prices import PriceList, PriceSource, Tiers, read_prices

SOURCE: Final = "the relay itself"  # of a price


def fetch_prices(channel: Channel, key: ApiKey | None) -> PriceList:
    """What the upstream of a channel charges, by its names of models; empty when it does not say."""
    try:
        signed = signed_with(channel, key)
        with waiting_for_upstream(channel):
            return async_to_sync(_fetch)(channel, channel.vendor.prices, signed, AllowedUpstream.allowances())
    except (Undecryptable, NotAnswering):
        return {}


async def _fetch(
    channel: Channel, sources: Sequence[PriceSource], signed: Signed, allowed: Sequence[Allowance]
) -> PriceList:
    try:
        async with client_of(channel, allowed, signed.signer) as client:
            for source in sources:
                response = await client.get(url_of(channel, source.path), headers=signed.headers)
                if response.status_code != 200:
                    continue
                try:
                    answer = msgspec.json.decode(response.content)
                except (msgspec.DecodeError, ValueError, RecursionError):
                    continue
                if found := read_prices(source, answer):
                    return found
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError):
        pass
    return {}


def take_prices(channel: Channel, prices: PriceList, actor: Any = None, ip: str | None = None) -> tuple[int, int]:
    """Take prices as what the channel costs, for the models that it serves, and audit it.

    Returns how many models have another price now, and of how many the price is known. Without an actor, only prices
    that were taken before are changed.
    """
    now, changed, known = clock.now(), 0, 0
    rows: list[ModelPrice] = []
    events: list[AuditEvent] = []
    with transaction.atomic():
        for link in channel.served.select_related("model"):
            tiers = prices.get(link.upstream_name or link.model.name)
            if tiers is None:
                continue
            known += 1
            current, source = _in_force(channel, link.model_id, now)
            if current == tiers or (actor is None and source != SOURCE):
                continue
            changed += 1
            rows += [
                ModelPrice(
                    model=link.model,
                    channel=channel,
                    purpose=PricePurpose.COST,
                    valid_from=now,
                    above_tokens=above,
                    source=SOURCE,
                    **classes,
                )
                for above, classes in tiers.items()
            ]
            base = tiers[0]
            shown = {name: f"{usd.normalize():f}" for name, usd in base.items()}
            events.append(AuditEvent.entry("price.import", actor, link.model, ip, channel=channel.name, costs=shown))
        ModelPrice.objects.bulk_create(rows, batch_size=200)
        AuditEvent.objects.bulk_create(events, batch_size=200)
    return changed, known


def _in_force(channel: Channel, model: int, now: datetime) -> tuple[Tiers, str]:
    """What a model costs at a channel now, and where that is from."""
    found: Tiers = {}
    source, since = "", None
    for row in ModelPrice.objects.filter(
        channel=channel, model=model, purpose=PricePurpose.COST, valid_from__lte=now
    ).order_by("-valid_from", "above_tokens"):
        if since is not None and row.valid_from != since:
            break
        since, source = row.valid_from, row.source
        found[row.above_tokens] = {
            name: Decimal(value) for name in CLASSES if (value := getattr(row, name)) is not None
        }
    return found, source


def refresh_prices(channel: Channel) -> int:
    """Keep prices up to date that were taken before. Returns of how many models they changed."""
    taken = ModelPrice.objects.filter(channel=channel, purpose=PricePurpose.COST, source=SOURCE).exists()
    if not taken or not channel.vendor.prices:
        return 0
    prices = fetch_prices(channel, channel.keys.filter(enabled=True, auto_disabled="").first())
    return take_prices(channel, prices)[0]

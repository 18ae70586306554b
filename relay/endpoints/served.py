"""What serves a request that was begun by a worker which is gone: its channel and key, in service or not."""

from __future__ import annotations

from dataclasses import dataclass

from relay.gateway.attempt import Attempt
from relay.gateway.charging.charge import RequestCharge
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.record import Record
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.load import load_withdrawn
from relay.gateway.snapshot.routes import Candidate, Keys, Routes
from relay.gateway.snapshot.views import KeyView, ModelView


@dataclass(frozen=True, slots=True)
class Begun:
    """What a request was begun with."""

    model: str  # its public name
    channel_id: int
    key_id: int


@dataclass(frozen=True, slots=True)
class Served:
    """What serves it, in service or not."""

    candidate: Candidate
    model: ModelView | None  # by whose prices it is charged, None: it is not offered any more
    reachable: bool = True  # requests can be sent there


def candidate_of(begun: Begun) -> tuple[ModelView, Candidate] | None:
    """The model, and the channel and key that it was begun with; None: they are not in service any more."""
    models = snapshot_cache.snapshot.models
    own = models.get(begun.model)
    for model in (*([own] if own is not None else []), *models.values()):
        route = Routes.of(model.routes).through(begun.channel_id)
        number = Keys.number_of(route.channel, begun.key_id) if route is not None else None
        if route is not None and number is not None and route.channel.keys[number].usable:
            return model, Candidate(route, route.channel.keys[number])
    return None


async def serving(begun: Begun) -> Served | None:
    """What serves a request, also when it has gone out of service meanwhile. None: its channel is gone."""
    own, found = snapshot_cache.snapshot.models.get(begun.model), candidate_of(begun)
    if found is not None and found[0] is (own or found[0]):  # not at the price of another model
        return Served(found[1], found[0])
    route = await snapshot_cache.in_thread(load_withdrawn, begun.model, begun.channel_id, begun.key_id)
    if route is None:
        return None
    reachable = bool(route.channel.keys) and not route.channel.refusal
    key = route.channel.keys[0] if reachable else KeyView(begun.key_id, 1, {})
    return Served(Candidate(route, key), own, reachable)


async def settling_attempt(
    run: Runtime, exchange: Exchange, model: ModelView, candidate: Candidate, request: GatewayRequest
) -> Attempt:
    """An attempt at the channel that serves the request, for which nothing is held any more. Raises RelayError."""
    caller = exchange.caller
    assert caller is not None  # noqa: S101  # whoever settles a request has found who pays for it
    multiplier = snapshot_cache.snapshot.terms(caller).multiplier
    charge = RequestCharge(run.reservations, caller, model, multiplier, run.fallback_price, exchange.wall)
    charge.grant = await run.reservations.reserve(exchange, caller, 0, 0)
    record = Record(exchange, run.reservations, request, model.name, charge)
    return Attempt(run, record, candidate, model.id, exchange.wall)

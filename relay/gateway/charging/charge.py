"""The charge of one request: its price, the amount to reserve, the final cost, and who pays."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from portal.lib import money
from relay.billing.prices import Price, PriceList, affordable_output, ceiling, cost
from relay.errors import InsufficientQuota, ModelNotPriced
from relay.gateway.charging.reservations import Grant, Reservations
from relay.gateway.exchange import Ended, Exchange, GatewayRequest, Interrupt
from relay.gateway.routing.selection import Candidate
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ModelView, Route
from relay.protocols.usage import Usage

STREAM_STEP: Final = 4096  # tokens that are reserved ahead, for streams without an output limit
ASSUMED_OUTPUT: Final = 32_768  # tokens of a non-streaming answer, for models whose output limit is unknown
_MIN_OUTPUT: Final = 16  # tokens; a request that can pay for less is refused
_PROMPT_LOW: Final = 0.6  # the estimate of a prompt may be too high: refuse only below this share of its cost
_FREE: Final = Price()


def fallback_price(setting: str) -> Price | None:
    """The price of models without one, from the setting UNPRICED; None: requests for them are refused."""
    if setting == "refuse":
        return None
    if setting == "free":
        return _FREE
    into, out = (money.nano(Decimal(part)) for part in setting.split("/"))
    return Price(input=into, output=out)


class RequestCharge:
    """The charge of one request, from the reservation to the final cost. Amounts are in nano-USD."""

    __slots__ = (
        "_caller",
        "_fallback",
        "_highest_price",
        "_model",
        "_need",
        "_now",
        "_prompt_cost",
        "_reservations",
        "billing",
        "clamp",
        "cost",
        "grant",
        "multiplier",
        "price_id",
        "upstream_cost",
    )

    def __init__(
        self,
        reservations: Reservations,
        caller: Caller,
        model: ModelView,
        multiplier: int,
        fallback: Price | None,
        now: float,
    ) -> None:
        """`fallback`: the price of models without one, None: they are refused. Raises ModelNotPriced."""
        if fallback is None and not model.priced:
            raise ModelNotPriced(
                f"The model “{model.name}” has no price yet, so it cannot be used. Ask the portal's administrator to "
                "set one.",
                param="model",
            )
        self._reservations, self._caller, self._model, self._fallback, self._now = (
            reservations,
            caller,
            model,
            fallback,
            now,
        )
        self.multiplier = multiplier  # of the price, in parts per million
        self.grant: Grant | None = None  # what the request may spend, None before `reserve`
        self.clamp: int | None = None  # tokens of the answer that can be paid for, None: no limit
        self.cost = self.upstream_cost = 0  # final, set by `finish`
        self.price_id: int | None = None
        self.billing = "nothing"  # a value of relay.models.usage.Billing
        self._need = self._prompt_cost = 0  # the highest possible cost, of the request and of its prompt
        self._highest_price = _FREE  # of the routes that may serve

    @property
    def reserved(self) -> int:
        return self._need if self._caller.limited else 0

    @property
    def payer(self) -> str:
        return ("house" if self._caller.house else "wallet") if self.cost else ""

    def price(self, route: Route | None, prompt_tokens: int) -> Price | None:
        """The price that users pay when this route serves."""
        if (
            route is not None
            and route.price is not None
            and (found := route.price.at(self._now, prompt_tokens)) is not None
        ):
            return found
        listed = self._model.price
        return (listed.at(self._now, prompt_tokens) if listed is not None else None) or self._fallback

    def _at(self, prices: PriceList | None, prompt_tokens: int) -> Price | None:
        return prices.at(self._now, prompt_tokens) if prices is not None else None

    async def reserve(self, exchange: Exchange, request: GatewayRequest) -> None:
        """Reserve the highest possible cost of the request. Raises ModelNotPriced, InsufficientQuota, RelayUnavailable.

        If the balance covers only part of it, the answer is clamped, unless the request is `exact`.
        """
        prompt_tokens, limit, choices, units = (
            request.prompt_tokens,
            request.output_limit,
            request.choices,
            request.units,
        )
        caller, multiplier = self._caller, self.multiplier
        # The route that will serve is not known yet.
        own: list[Price] = []
        if self._model.varied:
            own = [
                found
                for route in caller.routes(self._model)
                if route.price is not None and (found := self.price(route, prompt_tokens)) is not None
            ]
        listed = self.price(None, prompt_tokens)
        if listed is not None:
            own.append(listed)
        if not own:
            raise ModelNotPriced(
                f"The model “{self._model.name}” has no price yet, so it cannot be used. Ask the portal's "
                "administrator to set one.",
                param="model",
            )
        if not caller.limited:
            self._highest_price = own[0]
            self.grant = await self._reservations.reserve(exchange, caller, 0, 0)
            return
        longest = self._model.max_output_tokens
        limit = min(limit, longest) if limit is not None and longest is not None else limit
        unlimited = min(longest or STREAM_STEP, STREAM_STEP) if request.stream else longest or ASSUMED_OUTPUT
        assumed = unlimited if limit is None else limit
        worst = (
            own[0]
            if len(own) == 1
            else max(own, key=lambda price: ceiling(price, prompt_tokens, assumed * choices, multiplier, units))
        )
        self._highest_price = worst
        self._prompt_cost = ceiling(worst, prompt_tokens, 0, multiplier, units)
        self._need = ceiling(worst, prompt_tokens, assumed * choices, multiplier, units)
        least = ceiling(worst, int(prompt_tokens * _PROMPT_LOW), min(assumed, _MIN_OUTPUT) * choices, multiplier, units)
        minimum = self._need if request.exact else min(self._need, least)
        self.grant = grant = await self._reservations.reserve(exchange, self._caller, self._need, minimum)
        exchange.at_end.append(grant.drop)  # no grant outlives its request
        if grant.reservation is not None and grant.amount < self._need:
            affordable = affordable_output(
                self._highest_price, grant.amount - self._prompt_cost, self.multiplier, choices
            )
            self.clamp = max(min(assumed, affordable), min(assumed, _MIN_OUTPUT))
            self._need = grant.amount

    def meter(self, exchange: Exchange, limit: int | None) -> Meter | None:
        """A meter for a stream without an output limit, which stops it when its reservation is used up."""
        if limit is not None or self.clamp is not None or self.grant is None or self.grant.reservation is None:
            return None
        return Meter(self, exchange)

    def finish(self, candidate: Candidate | None, usage: Usage, source: str, unfinished: bool, at_fault: bool) -> None:
        """Compute the cost of a request that has ended.

        `unfinished`: its answer is incomplete. `at_fault`: the portal itself failed, so the request is free.
        """
        if candidate is None or source == "none":
            return
        route = candidate.route
        price = self.price(route, usage.input)
        if price is None:  # the price was removed while the request ran
            price = self._highest_price
        self.price_id = price.id or None
        self.cost = cost(price, usage, self.multiplier)
        self.upstream_cost = self._upstream_cost(route, usage, price)
        self.billing = "usage" if source == "reported" else "estimate"
        if at_fault:
            self.cost, self.billing = 0, "free"
        elif unfinished:
            self.billing = route.channel.disconnect_policy
            if self.billing == "free":
                self.cost = 0
            elif self.billing == "reserved":
                self.cost = max(self.cost, self._need)

    def _upstream_cost(self, route: Route, usage: Usage, sold: Price) -> int:
        own = self._at(route.cost, usage.input)
        if own is not None:
            return cost(own, usage)
        listed = self._at(self._model.price, usage.input)
        if listed is sold and route.channel.cost_multiplier == self.multiplier:
            return self.cost
        return cost(listed, usage, route.channel.cost_multiplier) if listed is not None else 0


class Meter:
    """Compares what a stream has delivered with its reservation, and extends that as the stream grows."""

    def __init__(self, charge: RequestCharge, exchange: Exchange) -> None:
        self._charge, self._exchange = charge, exchange
        self._covered = self._tokens()
        self._spent = False

    def _tokens(self) -> int:
        grant = self._charge.grant
        return affordable_output(
            self._charge._highest_price,
            (grant.amount if grant else 0) - self._charge._prompt_cost,
            self._charge.multiplier,
        )

    async def check(self, delivered: float) -> None:
        """Extend the reservation if necessary.

        Raises Ended when the `delivered` tokens use up all that can be reserved.
        """
        if delivered < 0.8 * self._covered:
            return
        grant = self._charge.grant
        if not self._spent and grant is not None:
            tokens = STREAM_STEP + max(0, round(delivered) - self._covered)
            more = ceiling(self._charge._highest_price, 0, tokens, self._charge.multiplier)
            self._spent = not await self._charge._reservations.extend(
                self._exchange, grant, self._charge._caller.budgets, more
            )
            self._covered = self._tokens()
            self._charge._need = grant.amount
        if delivered >= self._covered:
            raise Ended(Interrupt.SPENT)


def spent_error() -> InsufficientQuota:
    """The client's error for a stream that used up its balance, quota or budget."""
    return InsufficientQuota(
        "The answer was cut off here: the balance, quota or budget that pays for it is used up. Top up, then ask again."
    )

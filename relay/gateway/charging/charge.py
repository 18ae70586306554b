"""The money of one request: at which price, what it may cost, what it did cost, and who pays."""

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

STREAM_STEP: Final = 4096  # tokens of answer that are paid for ahead, in streams that name no limit
ASSUMED_OUTPUT: Final = 32_768  # tokens of a plain answer of a model whose limit is not known
_LEAST_OUTPUT: Final = 16  # tokens of answer without which a request is not worth sending
_PROMPT_LOW: Final = 0.6  # an estimate may be so much too high; nobody is refused by it who can pay the real cost
_FREE: Final = Price()


def fallback_price(setting: str) -> Price | None:
    """The price of models that have none, from the setting UNPRICED; None: they are refused."""
    if setting == "refuse":
        return None
    if setting == "free":
        return _FREE
    into, out = (money.nano(Decimal(part)) for part in setting.split("/"))
    return Price(input=into, output=out)


class RequestCharge:
    """`reserved`, `cost`, `upstream_cost`: nano-USD. `billing`: a value of relay.models.usage.Billing."""

    __slots__ = (
        "_caller",
        "_fallback",
        "_model",
        "_need",
        "_now",
        "_prompt_cost",
        "_reservations",
        "_worst",
        "billing",
        "clamp",
        "cost",
        "grant",
        "multiplier",
        "price_id",
        "upstream_cost",
    )

    def __init__(self, reservations: Reservations, caller: Caller, model: ModelView, multiplier: int, fallback: Price | None, now: float) -> None:
        """Raises ModelNotPriced."""
        if fallback is None and not model.priced:
            raise ModelNotPriced(f"The model “{model.name}” has no price yet, so it cannot be used. Ask the portal's administrator to set one.", param="model")
        self._reservations, self._caller, self._model, self._fallback, self._now = reservations, caller, model, fallback, now
        self.multiplier = multiplier
        self.grant: Grant | None = None
        self.clamp: int | None = None
        self.cost = self.upstream_cost = 0
        self.price_id: int | None = None
        self.billing = "nothing"
        self._need = self._prompt_cost = 0
        self._worst = _FREE

    @property
    def reserved(self) -> int:
        return self._need if self._caller.limited else 0

    @property
    def payer(self) -> str:
        return ("house" if self._caller.house else "wallet") if self.cost else ""

    def price(self, route: Route | None, prompt_tokens: int) -> Price | None:
        """What users pay when this route serves."""
        if route is not None and route.price is not None and (found := route.price.at(self._now, prompt_tokens)) is not None:
            return found
        listed = self._model.price
        return (listed.at(self._now, prompt_tokens) if listed is not None else None) or self._fallback

    def _at(self, prices: PriceList | None, prompt_tokens: int) -> Price | None:
        return prices.at(self._now, prompt_tokens) if prices is not None else None

    async def reserve(self, exchange: Exchange, request: GatewayRequest) -> None:
        """Hold back what the request may cost. Where that is more than there is, the answer is clamped, unless the request is `exact`.

        Raises ModelNotPriced, InsufficientQuota, RelayUnavailable.
        """
        prompt_tokens, limit, choices, units = request.prompt_tokens, request.output_limit, request.choices, request.units
        caller, multiplier = self._caller, self.multiplier
        # Which route will serve is not known yet.
        own: list[Price] = []
        if self._model.varied:
            own = [found for route in caller.routes(self._model) if route.price is not None and (found := self.price(route, prompt_tokens)) is not None]
        listed = self.price(None, prompt_tokens)
        if listed is not None:
            own.append(listed)
        if not own:
            raise ModelNotPriced(f"The model “{self._model.name}” has no price yet, so it cannot be used. Ask the portal's administrator to set one.", param="model")
        if not caller.limited:
            self._worst = own[0]
            self.grant = await self._reservations.reserve(exchange, caller, 0, 0)
            return
        longest = self._model.max_output_tokens
        limit = min(limit, longest) if limit is not None and longest is not None else limit
        unlimited = min(longest or STREAM_STEP, STREAM_STEP) if request.stream else longest or ASSUMED_OUTPUT
        assumed = unlimited if limit is None else limit
        worst = own[0] if len(own) == 1 else max(own, key=lambda price: ceiling(price, prompt_tokens, assumed * choices, multiplier, units))
        self._worst = worst
        self._prompt_cost = ceiling(worst, prompt_tokens, 0, multiplier, units)
        self._need = ceiling(worst, prompt_tokens, assumed * choices, multiplier, units)
        least = ceiling(worst, int(prompt_tokens * _PROMPT_LOW), min(assumed, _LEAST_OUTPUT) * choices, multiplier, units)
        minimum = self._need if request.exact else min(self._need, least)
        self.grant = grant = await self._reservations.reserve(exchange, self._caller, self._need, minimum)
        exchange.at_end.append(grant.drop)  # whatever happens, nothing stays promised
        if grant.reservation is not None and grant.amount < self._need:
            affordable = affordable_output(self._worst, grant.amount - self._prompt_cost, self.multiplier, choices)
            self.clamp = max(min(assumed, affordable), min(assumed, _LEAST_OUTPUT))
            self._need = grant.amount

    def meter(self, exchange: Exchange, limit: int | None) -> Meter | None:
        """For streams whose length nothing limits: watches that they do not run past what is paid for."""
        if limit is not None or self.clamp is not None or self.grant is None or self.grant.reservation is None:
            return None
        return Meter(self, exchange)

    def finish(self, candidate: Candidate | None, usage: Usage, source: str, unfinished: bool, at_fault: bool) -> None:
        """Work out the cost of a request that has ended. `unfinished`: its answer is not whole. `at_fault`: because the portal failed."""
        if candidate is None or source == "none":
            return
        route = candidate.route
        price = self.price(route, usage.input)
        if price is None:  # the price was taken away while the request ran
            price = self._worst
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
    """Follows what a stream has delivered, and holds more money back as it grows."""

    def __init__(self, charge: RequestCharge, exchange: Exchange) -> None:
        self._bill, self._exchange = charge, exchange
        self._covered = self._tokens()
        self._spent = False

    def _tokens(self) -> int:
        grant = self._bill.grant
        return affordable_output(self._bill._worst, (grant.amount if grant else 0) - self._bill._prompt_cost, self._bill.multiplier)

    async def check(self, delivered: float) -> None:
        """Raises Ended when so many tokens are all that could be paid for."""
        if delivered < 0.8 * self._covered:
            return
        grant = self._bill.grant
        if not self._spent and grant is not None:
            tokens = STREAM_STEP + max(0, round(delivered) - self._covered)
            more = ceiling(self._bill._worst, 0, tokens, self._bill.multiplier)
            self._spent = not await self._bill._reservations.extend(self._exchange, grant, self._bill._caller.budgets, more)
            self._covered = self._tokens()
            self._bill._need = grant.amount
        if delivered >= self._covered:
            raise Ended(Interrupt.SPENT)


def spent() -> InsufficientQuota:
    """What the client of a stream hears that used up what was there to pay for it."""
    return InsufficientQuota("The answer was cut off here: the balance, quota or budget that pays for it is used up. Top up, then ask again.")

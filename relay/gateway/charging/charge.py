"""The charge of one request: its price, the amount to reserve, the final cost, and who pays."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

from portal.lib import money
from relay.billing.prices import Price, PriceList, affordable_output, ceiling, cost
from relay.billing.stated_cost import reported_cost
from relay.errors import InsufficientQuota, ModelNotPriced
from relay.gateway.charging.answer_lengths import ASSUMED_OUTPUT, USUAL_WINDOW, answer_lengths, thinking_beside
from relay.gateway.charging.reservations import Grant, Reservations
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.routing.selection import Candidate
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ModelView, Route
from relay.protocols.usage import Usage

STREAM_STEP: Final = 4096  # tokens that are reserved ahead, for streams without an output limit
_LEAST_STEP: Final = 64  # tokens by which the reservation of a stream grows that exceeds its output limit
_EXTEND_AT: Final = 0.8  # share of its reservation from which a stream without a limit reserves more
_ESTIMATE_ERROR: Final = 1.5  # by which an estimate of text may exceed its tokens: English has nearly five characters
_BYTES_PER_TOKEN: Final = 3  # at least, by the estimate of `relay.protocols.token_estimate`
_MIN_OUTPUT: Final = 16  # tokens; a request that can pay for less is refused
# What an upstream says a request costs is not believed beyond this factor of what its prices make it, and this much
# more (a cent, in nano-USD: hosted tools are charged by the call).
_COST_FACTOR: Final = 20
_COST_SLACK: Final = 10_000_000
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
        "_choices",
        "_fallback",
        "_highest_price",
        "_kept",
        "_limit",
        "_need",
        "_now",
        "_promised",
        "_prompt_cost",
        "_reservations",
        "billing",
        "clamp",
        "cost",
        "grant",
        "model",
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
        self._reservations, self._caller, self._fallback, self._now = reservations, caller, fallback, now
        self.model = model
        self.multiplier = multiplier  # of the price, in parts per million
        self.grant: Grant | None = None  # what the request may spend, None before `reserve`
        self.clamp: int | None = None  # tokens of the answer that can be paid for, None: no limit
        self.cost = self.upstream_cost = 0  # final, set by `finish`
        self.price_id: int | None = None
        self.billing = "nothing"  # a value of relay.models.usage.Billing
        self._need = self._prompt_cost = 0  # the highest possible cost, of the request and of its prompt
        self._kept = 0  # what is held beside that, for a prompt that has more tokens than estimated
        self._highest_price = _FREE  # of the routes that may serve
        self._choices = 1
        self._limit: int | None = None  # tokens of each answer, as the upstream is told it; None: it is told none
        self._promised = 0  # tokens that all answers together may have; 0: no limit

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
        listed = self.model.price
        return (listed.at(self._now, prompt_tokens) if listed is not None else None) or self._fallback

    def _at(self, prices: PriceList | None, prompt_tokens: int) -> Price | None:
        return prices.at(self._now, prompt_tokens) if prices is not None else None

    async def reserve(self, exchange: Exchange, request: GatewayRequest) -> None:
        """Reserve the highest possible cost of the request. Raises ModelNotPriced, InsufficientQuota, RelayUnavailable.

        If the balance covers only part of it, the answer is clamped, unless the request is `exact` or `whole`.
        """
        prompt_tokens, limit, choices, units = (
            request.prompt_tokens,
            request.output_limit,
            request.choices,
            request.units,
        )
        caller, multiplier = self._caller, self.multiplier
        own = self._prices(prompt_tokens)
        if not own:
            raise ModelNotPriced(
                f"The model “{self.model.name}” has no price yet, so it cannot be used. Ask the portal's "
                "administrator to set one.",
                param="model",
            )
        self._limit, self._choices = None if request.exact else limit, choices
        if not caller.limited:
            self._highest_price = own[0]
            self.grant = await self._reservations.reserve(exchange, caller, 0, 0)
            return
        longest = self.model.max_output_tokens
        limit = min(limit, longest) if limit is not None and longest is not None else limit
        usual = min(longest or STREAM_STEP, STREAM_STEP) if request.stream else longest or ASSUMED_OUTPUT
        assumed = usual if limit is None else limit
        thinking = 0
        if self._limit is not None:
            channels = [route.channel for route in caller.routes(self.model)]
            thinking = thinking_beside(self._limit, request.thinking, self.model, channels, self._now)
        unlimited = self._limit == 0 and thinking > 0  # some upstreams read 0 as no limit
        held = (assumed + thinking) * choices
        worst = (
            own[0]
            if len(own) == 1
            else max(own, key=lambda price: ceiling(price, prompt_tokens, held, multiplier, units))
        )
        self._highest_price = worst
        self._prompt_cost = ceiling(worst, prompt_tokens, 0, multiplier, units)
        self._need = ceiling(worst, prompt_tokens, held, multiplier, units)
        least = ceiling(worst, int(prompt_tokens * _PROMPT_LOW), min(assumed, _MIN_OUTPUT) * choices, multiplier, units)
        minimum = self._need if request.exact or request.whole or unlimited else min(self._need, least)
        spare = self._uncertainty(request)
        self.grant = grant = await self._reservations.reserve(exchange, self._caller, self._need, minimum, spare)
        exchange.at_end.append(grant.drop)  # no grant outlives its request
        if grant.reservation is not None and grant.amount < self._need:
            affordable = affordable_output(
                self._highest_price, grant.amount - self._prompt_cost, self.multiplier, choices
            )
            self.clamp = self._limit = max(min(assumed, affordable), min(assumed, _MIN_OUTPUT))
            self._need = grant.amount
        elif grant.reservation is not None:
            self._kept = grant.amount - self._need
            self._prompt_cost += self._kept
        if limit is not None or self.clamp is not None:
            self._promised = (assumed if self.clamp is None else self.clamp) * choices

    async def check_money(self, exchange: Exchange) -> None:
        """Raise InsufficientQuota if not even the shortest request can be paid for, RelayUnavailable."""
        costs = (ceiling(price, 1, 1, self.multiplier) for price in self._prices(0))
        if least := min(costs, default=0):
            (await self._reservations.reserve(exchange, self._caller, least, least)).drop()

    def _prices(self, prompt_tokens: int) -> list[Price]:
        """The prices of all routes that may serve: which one will is not known yet."""
        found: list[Price] = []
        if self.model.varied:
            found = [
                price
                for route in self._caller.routes(self.model)
                if route.price is not None and (price := self.price(route, prompt_tokens)) is not None
            ]
        listed = self.price(None, prompt_tokens)
        return found if listed is None else [*found, listed]

    def _uncertainty(self, request: GatewayRequest) -> int:
        """What the prompt may cost beyond its estimate, in nano-USD, also at the price of longer prompts."""
        if request.most_prompt is None:
            return 0
        most, window = request.most_prompt(), self.model.context_window
        if most is None:
            most = window or USUAL_WINDOW
        elif window:
            most = min(most, window)
        if most <= request.prompt_tokens:
            return 0
        dearest = 0
        for price in self._prices(most):
            dearest = max(dearest, ceiling(price, most, 0, self.multiplier, request.units))
        return max(0, dearest - self._prompt_cost)

    def take_kept(self, most: int) -> None:
        """Let the answer have what is held for a prompt longer than estimated, up to `most`."""
        taken = min(most, self._kept)
        self._kept -= taken
        self._prompt_cost -= taken

    async def hold_input(self, exchange: Exchange, tokens: int) -> bool:
        """Hold the cost of more input than `reserve` was told of; returns False when it cannot be paid."""
        grant = self.grant
        if grant is None or grant.reservation is None or tokens <= 0:
            return True
        more, before = ceiling(self._highest_price, tokens, 0, self.multiplier), grant.amount
        await self._reservations.extend(exchange, grant, self._caller.budgets, more)
        self._prompt_cost += more
        self._need = grant.amount - self._kept
        return grant.amount - before >= _PROMPT_LOW * more

    def least(self, delivered: float = 0.0) -> int:
        """What a short answer needs, or one that has delivered so many tokens."""
        tokens = max(_MIN_OUTPUT, math.ceil(delivered))
        return int(self._prompt_cost * _PROMPT_LOW) + ceiling(self._highest_price, 0, tokens, self.multiplier)

    async def hold_more(self, exchange: Exchange, more: int) -> bool:
        """Hold so much more for the answer; returns False when it cannot be paid."""
        grant = self.grant
        if grant is None or grant.reservation is None:
            return True
        wanted = grant.amount + more
        await self._reservations.extend(exchange, grant, self._caller.budgets, more)
        self._need = grant.amount
        return grant.amount >= wanted

    def give_up(self, most: int, keep: int) -> int:
        """Give back up to `most` of what is held for the answer, but for `keep`; returns how much."""
        grant = self.grant
        if grant is None or grant.reservation is None:
            return 0
        given = grant.give_back(min(most, grant.amount - keep))
        self._need = grant.amount
        self._kept = min(self._kept, grant.amount)
        covered = affordable_output(self._highest_price, grant.amount - self._prompt_cost, self.multiplier)
        self._promised = min(self._promised, covered)
        return given

    def sold_at(self, candidate: Candidate | None, prompt_tokens: int) -> Price:
        """The price of an answer of this candidate, also where the price was removed while the request ran."""
        found = self.price(candidate.route, prompt_tokens) if candidate is not None else None
        return found if found is not None else self._highest_price

    def meter(self, exchange: Exchange) -> Meter | None:
        """A meter for a stream, which stops it when what pays for it is used up; None where nothing limits that.

        Also for streams with an output limit: not every upstream keeps to it.
        """
        if self.grant is None or self.grant.reservation is None:
            return None
        return Meter(self, exchange)

    def finish(self, candidate: Candidate | None, usage: Usage, source: str, unfinished: bool, at_fault: bool) -> None:
        """Compute the cost of a request that has ended.

        `unfinished`: its answer is incomplete. `at_fault`: the portal itself failed, so the request is free.
        """
        if candidate is None or source == "none":
            return
        route = candidate.route
        price = self.sold_at(candidate, usage.input)
        self.price_id = price.id or None
        self.cost = cost(price, usage, self.multiplier)
        self.upstream_cost = self._upstream_cost(route, usage, price)
        if self._limit is not None and source == "reported":
            limit = self._limit * self._choices
            answer_lengths.learn(route.channel.id, self.model.id, usage.output, limit, self._now)
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
        """What the upstream charges: what it says itself if that can be true, otherwise by the prices known here."""
        computed = self._computed_cost(route, usage, sold)
        if not route.channel.cost_member or not usage.report.raw:
            return computed
        stated = reported_cost(usage.report.raw, route.channel.cost_member)
        if stated is None or (computed and stated > _COST_FACTOR * computed + _COST_SLACK):
            return computed
        return stated

    def _computed_cost(self, route: Route, usage: Usage, sold: Price) -> int:
        own = self._at(route.cost, usage.input)
        if own is not None:
            return cost(own, usage)
        listed = self._at(self.model.price, usage.input)
        if listed is sold and route.channel.cost_multiplier == self.multiplier:
            return self.cost
        return cost(listed, usage, route.channel.cost_multiplier) if listed is not None else 0


def weight(data: bytes) -> int:
    """The bytes of a stream as a meter counts them: four of ASCII make a token at most, three of other scripts."""
    return len(data) * 3 // 4 if data.isascii() else len(data)


class Meter:
    """Compares what a stream has delivered with its reservation, and extends that as the stream grows.

    Counting the delivered tokens costs about a microsecond for each event, so it is not done before so many bytes have
    been passed on (`count`) that they could be too many tokens.
    """

    __slots__ = ("_charge", "_covered", "_exchange", "_spent", "_step", "room")

    def __init__(self, charge: RequestCharge, exchange: Exchange) -> None:
        self._charge, self._exchange = charge, exchange
        self._step = STREAM_STEP
        if charge._promised:
            self._step = min(STREAM_STEP, max(_LEAST_STEP, charge._promised // 4))
        self._covered = self._tokens()
        self._spent = False
        self.room = 0  # bytes of the upstream, by their `weight`, that may pass before the next check
        self._set_room(0.0)

    def _tokens(self) -> int:
        """The tokens that are paid for, but at least those that the upstream was told it may send.

        The estimate of a prompt may be too high: what it leaves for the answer may then be less.
        """
        charge = self._charge
        free = (charge.grant.amount if charge.grant else 0) - charge._prompt_cost
        return max(affordable_output(charge._highest_price, free, charge.multiplier), charge._promised)

    @property
    def _threshold(self) -> float:
        """The delivered tokens from which more is reserved."""
        return self._covered if self._charge._promised or self._spent else _EXTEND_AT * self._covered

    def _set_room(self, delivered: float) -> None:
        self.room = max(0, int((self._threshold - delivered) * _BYTES_PER_TOKEN))

    def refresh(self, delivered: float) -> None:
        """Take over that the charge has given up a part of what it held."""
        self._covered = self._tokens()
        self._set_room(delivered)

    def count(self, size: int) -> bool:
        """Count bytes of the upstream that are passed on, by their weight; returns whether to call `check`."""
        self.room -= size
        return self.room < 0

    async def check(self, delivered: float) -> bool:
        """Extend the reservation if necessary; returns whether it covers the `delivered` tokens."""
        grant = self._charge.grant
        if delivered > self._threshold and not self._spent and grant is not None:
            tokens = self._step + max(0, round(delivered) - self._covered)
            more = ceiling(self._charge._highest_price, 0, tokens, self._charge.multiplier)
            self._spent = not await self._charge._reservations.extend(
                self._exchange, grant, self._charge._caller.budgets, more
            )
            if self._spent and self._charge._kept:  # the balance has nothing else: the prompt's estimate has to do
                self._charge.take_kept(more)
                self._spent = False
            self._covered = self._tokens()
            self._charge._need = grant.amount - self._charge._kept
        self._set_room(delivered)
        return delivered <= self._covered

    def may_be_covered(self, delivered: float) -> bool:
        """Whether a stream whose limit is covered may be, though by the estimate it exceeds that."""
        return bool(self._charge._promised) and delivered <= _ESTIMATE_ERROR * self._covered + _MIN_OUTPUT

    def covers(self, usage: Usage | None) -> bool:
        """Whether the reservation covers the answer of a reported usage."""
        return usage is not None and usage.output <= self._covered


def spent_error() -> InsufficientQuota:
    """The client's error for a stream that used up its balance, quota or budget."""
    return InsufficientQuota(
        "The answer was cut off here: the balance, quota or budget that pays for it is used up. Top up, then ask again."
    )

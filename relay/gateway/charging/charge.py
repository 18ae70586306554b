"""The charge of one request: its price, the amount to reserve, the final cost, and who pays."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

from portal.lib import money
from relay.billing.prices import Price, affordable_output, ceiling, cost
from relay.billing.stated_cost import reported_cost
from relay.errors import InsufficientQuota, ModelNotPriced
from relay.gateway.charging.answer_lengths import ASSUMED_OUTPUT, USUAL_WINDOW, answer_lengths, thinking_beside
from relay.gateway.charging.reservations import Grant, Reservations
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Candidate
from relay.gateway.snapshot.views import ModelView, Route
from relay.protocols.usage import NO_USAGE, Usage

# What an upstream says a request costs is not believed beyond this factor of what its prices make it, and this much
# more (a cent, in nano-USD: hosted tools are charged by the call).
_COST_FACTOR: Final = 20
_COST_SLACK: Final = 10_000_000
STREAM_STEP: Final = 4096  # tokens that are reserved ahead, for streams without an output limit
MIN_OUTPUT: Final = 16  # tokens; a request that can pay for less is refused
_PROMPT_LOW: Final = 0.6  # the estimate of a prompt may be too high: refuse only below this share of its cost
_FREE: Final = Price()
# What is counted in tokens and calls alone: pictures, seconds and characters of such answers are not.
_IN_TOKENS: Final = frozenset(
    (
        "chat.completions", "completions", "responses", "responses.compact", "messages", "generate_content",
        "interactions",
    )
)  # fmt: skip


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
        "_fixed",
        "_highest_price",
        "_hour_writes",
        "_kept",
        "_least_output",
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
        # The price of any prompt where neither the route nor the length decides, as for most models.
        listed = model.price
        self._fixed = listed.at(now, 0) if listed is not None and len(listed.versions) == 1 else None
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
        self._hour_writes = True
        self._limit: int | None = None  # tokens of each answer, as the upstream is told it; None: it is told none
        self._promised = 0  # tokens that all answers together may have; 0: no limit
        self._least_output = MIN_OUTPUT  # tokens of an answer that is worth beginning

    @property
    def reserved(self) -> int:
        return self._need if self._caller.limited else 0

    @property
    def payer(self) -> str:
        return ("house" if self._caller.house else "wallet") if self.cost else ""

    def price(self, route: Route | None, prompt_tokens: int) -> Price | None:
        """The price that users pay when this route serves."""
        if route is not None and route.price is not None:
            found = route.price.at(self._now, prompt_tokens)
            if found is not None:
                return found
        if self._fixed is not None:
            return self._fixed
        listed = self.model.price
        return (listed.at(self._now, prompt_tokens) if listed is not None else None) or self._fallback

    async def reserve(self, exchange: Exchange, request: GatewayRequest) -> None:
        """Reserve the highest possible cost of the request.

        Raises ModelNotPriced, InsufficientQuota, RelayUnavailable; the request's own error where its price depends on a
        length that cannot be told.

        If the balance covers only part of it, the answer is clamped, unless the request is `exact` or `whole`.
        """
        prompt_tokens, limit, choices, units = (
            request.prompt_tokens,
            request.output_limit,
            request.choices,
            request.units,
        )
        caller, multiplier = self._caller, self.multiplier
        self._hour_writes = request.hour_writes
        own = self._prices(prompt_tokens)
        if not own:
            raise ModelNotPriced(
                f"The model “{self.model.name}” has no price yet, so it cannot be used. Ask the portal's "
                "administrator to set one.",
                param="model",
            )
        if request.endpoint in _IN_TOKENS and any([price.has_units and price.is_by_units for price in own]):
            raise ModelNotPriced(
                f"The price of the model “{self.model.name}” is per image, second or character, of which nothing is "
                "counted here. Use the endpoint for what it makes, or ask the portal's administrator for a price per "
                "token or per call.",
                param="model",
            )
        if request.unmeasured is not None and any(price.second or price.dearest_input for price in own):
            raise request.unmeasured
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
            routes = caller.routes(self.model)
            thinking = thinking_beside(self._limit, request.thinking, self.model, routes, self._now)
        unlimited = self._limit == 0 and thinking > 0  # some upstreams read 0 as no limit
        held = (assumed + thinking) * choices
        parts = _dearer_parts(request, own)
        worst = (
            own[0]
            if len(own) == 1
            else max(own, key=lambda price: ceiling(price, prompt_tokens, held, multiplier, units, parts))
        )
        self._highest_price = worst
        self._prompt_cost = prompt_cost = ceiling(worst, prompt_tokens, 0, multiplier, units, parts)
        self._need = ceiling(worst, prompt_tokens, held, multiplier, units, parts)
        self._least_output = request.least_output or MIN_OUTPUT
        certain = ceiling(worst, 0, 0, multiplier, units) if worst.has_units else 0
        low = 1.0 if request.least_output else _PROMPT_LOW
        least = ceiling(worst, 0, min(assumed, self._least_output) * choices, multiplier, units)
        least += int((prompt_cost - certain) * low)
        minimum = self._need if request.exact or request.whole or unlimited else min(self._need, least)
        spare = self._uncertainty(request, parts)
        self.grant = grant = await self._reservations.reserve(exchange, self._caller, self._need, minimum, spare)
        exchange.at_end.append(grant.drop)  # no grant outlives its request
        if grant.reservation is not None and grant.amount < self._need:
            affordable = affordable_output(
                self._highest_price, grant.amount - self._prompt_cost, self.multiplier, choices
            )
            self.clamp = self._limit = max(min(assumed, affordable), min(assumed, MIN_OUTPUT))
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
        if self._fixed is not None and not self.model.varied:  # nearly always
            return [self._fixed if self._hour_writes else self._fixed.short]
        found: list[Price] = []
        if self.model.varied:
            found = [
                price
                for route in self._caller.routes(self.model).tariffs
                if route.price is not None and (price := self.price(route, prompt_tokens)) is not None
            ]
        listed = self.price(None, prompt_tokens)
        if listed is not None:
            found.append(listed)
        return found if self._hour_writes else [price.short for price in found]

    def _uncertainty(self, request: GatewayRequest, parts: Usage | None) -> int:
        """What the prompt may cost beyond its estimate, in nano-USD, also at the price of longer prompts.

        `parts`: those of it that can be audio and images. Where there are any, there can be more of them.
        """
        if request.most_prompt is None:
            return 0
        most, window = request.most_prompt(), self.model.context_window
        if most is None:
            most = window or USUAL_WINDOW
        elif window:
            most = min(most, window)
        if most <= request.prompt_tokens:
            return 0
        dearest, parts = 0, None if parts is not None and (parts.audio_input or parts.image_input) else parts
        for price in self._prices(most):
            found = ceiling(price, most, 0, self.multiplier, request.units, parts)
            if found > dearest:
                dearest = found
        return dearest - self._prompt_cost if dearest > self._prompt_cost else 0

    def take_kept(self, most: int) -> None:
        """Let the answer have what is held for a prompt longer than estimated, up to `most`."""
        taken = min(most, self._kept)
        self._kept -= taken
        self._prompt_cost -= taken

    async def hold_input(self, exchange: Exchange, tokens: int, parts: Usage) -> bool:
        """Hold the cost of the whole input, if it is more than `reserve` was told of; returns False when it cannot be
        paid.

        `parts`: tokens of it that can be audio and images.
        """
        grant = self.grant
        if grant is None or grant.reservation is None:
            return True
        whole = ceiling(self._highest_price, tokens, 0, self.multiplier, NO_USAGE, parts)
        more, before = whole - self._prompt_cost, grant.amount
        if more <= 0:
            return True
        await self._reservations.extend(exchange, grant, self._caller.budgets, more)
        self._prompt_cost += more
        self._need = grant.amount - self._kept
        return grant.amount - before >= _PROMPT_LOW * more

    def least(self, delivered: float = 0.0) -> int:
        """What a short answer needs, or one that has delivered so many tokens, at the highest price of any class."""
        tokens = max(self._least_output, math.ceil(delivered))
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
            answer = usage.output - usage.report.rejected
            answer_lengths.learn(route.channel.id, self.model.id, answer, limit, self._now)
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
        if route.cost is not None and (own := route.cost.at(self._now, usage.input)) is not None:
            return cost(own, usage)
        prices, listed = self.model.price, self._fixed
        if listed is None and prices is not None:
            listed = prices.at(self._now, usage.input)
        if listed is sold and route.channel.cost_multiplier == self.multiplier:
            return self.cost
        return cost(listed, usage, route.channel.cost_multiplier) if listed is not None else 0


def spent_error() -> InsufficientQuota:
    """The client's error for a stream of which nothing more can be paid."""
    return InsufficientQuota(
        "The answer was cut off here: what is left of the balance, quota or budget that pays for it does not cover any "
        "more. Top up, then ask again."
    )


def short_error() -> InsufficientQuota:
    """The client's error for what was not begun, since what is left does not cover it."""
    return InsufficientQuota(
        "What is left of the balance, quota or budget does not cover what comes next. Top up, then go on."
    )


def _dearer_parts(request: GatewayRequest, prices: list[Price]) -> Usage | None:
    """The tokens of a prompt that can be audio and images; None: any can, or it makes no difference."""
    if request.dearer_input is None or not any([price.dearest_input > price.input for price in prices]):
        return None
    return request.dearer_input()

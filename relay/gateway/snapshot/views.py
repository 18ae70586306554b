"""Immutable views of channels, models and groups. Pure; `relay.gateway.snapshot.load` builds them from the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final

import httpx

from relay.billing.prices import ONE, PriceList
from relay.gateway.limits.windows import Check, Limits
from relay.protocols.usage import ReasoningCount
from relay.providers.apis import ModelApis, apis_of_model
from relay.providers.credentials.contract import Signer
from relay.providers.overrides.rules import Overrides
from relay.providers.parameters import Policy
from relay.providers.plans.contract import PlanSigner

NO_LIMITS: Final = Limits()
_NO_POLICY: Final[Policy] = {}
Pair = tuple[int, int]  # ids of a channel and one of its keys


Signing = tuple[Mapping[str, str], Signer | PlanSigner | None]  # headers, and what signs requests that they do not


class UnusableKey(ValueError):
    """A key cannot be decrypted, or is none of its vendor's."""


class KeyView:
    """An upstream's API key. It is decrypted when it is first used."""

    __slots__ = ("_sealed", "_signing", "checks", "id", "name", "weight")

    def __init__(
        self,
        id: int,
        weight: int,
        headers: Mapping[str, str] | Sealed,
        name: str = "",
        checks: tuple[Check, ...] = (),
        signer: Signer | PlanSigner | None = None,
    ) -> None:
        """`id` 0: the channel needs no key. `headers`: of requests with this key, or what gives them when asked."""
        self.id, self.weight, self.name, self.checks = id, weight, name, checks
        self._sealed = headers if isinstance(headers, Sealed) else None
        self._signing: Signing | None = None if isinstance(headers, Sealed) else (headers, signer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyView) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((self.id, self.name))

    def _compared(self) -> tuple[object, ...]:
        return self.id, self.weight, self.name, self.checks, self._sealed, self._signing

    @property
    def usable(self) -> bool:
        """Whether requests can be signed with it."""
        if self._signing is None and self._sealed is not None:
            self._signing, self._sealed = self._sealed.open(), None
        return self._signing is not None

    @property
    def headers(self) -> Mapping[str, str]:
        """Of requests with this key. Raises UnusableKey."""
        return self._signed[0]

    @property
    def signer(self) -> Signer | PlanSigner | None:
        """Of requests that `headers` alone do not sign. Raises UnusableKey."""
        return self._signed[1]

    @property
    def _signed(self) -> Signing:
        if self._signing is None and not self.usable:
            raise UnusableKey
        assert self._signing is not None  # noqa: S101  # it is usable
        return self._signing


class Sealed:
    """What is needed to sign requests with a key, still encrypted."""

    __slots__ = ()

    def open(self) -> Signing | None:
        """Decrypt it; None: it cannot be used, which has been logged."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class DisabledKey:
    """A key that was disabled automatically. Times are seconds since 1970."""

    id: int
    name: str
    kind: str  # the word of a failure class
    reason: str
    at: float  # when it was disabled
    next_test: float  # 0: none is planned
    weight: int = 1


@dataclass(frozen=True, slots=True)
class PoolView:
    """Channels that share a strategy."""

    id: int
    name: str
    strategy: str


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The timeouts of requests to a channel, in seconds."""

    connect: float
    first_byte: float
    idle: float
    total: float


@dataclass(frozen=True, slots=True)
class ChannelView:
    """An enabled channel."""

    id: int
    name: str
    provider: str  # the name of its vendor
    urls: Mapping[str, httpx.URL]  # of the APIs it serves, by their names
    keys: tuple[KeyView, ...]  # enabled ones
    priority: int
    weight: int
    groups: frozenset[int] | None  # ids of the groups it is reserved for, None: open to all
    proxy: str  # URL, empty: none
    sends_done: bool  # its streams end with a marker
    stream_usage: bool  # it reports the usage of a stream on request
    timeouts: Timeouts
    refusal: str  # why its address may not be used, empty: it may
    stream_urls: Mapping[str, httpx.URL] = field(default_factory=dict)  # for streamed answers, where they are others
    output_field: str = "max_completion_tokens"  # its name for the output limit of chat completions
    cost_multiplier: int = ONE  # of the model's price, in parts per million
    disconnect_policy: str = "delivered"  # what an unfinished answer is charged
    checks: tuple[Check, ...] = ()  # the channel's own limits
    pool: PoolView | None = None
    key_strategy: str = "random"
    retry_unanswered: str = "broken"  # whether a request that may have been billed is retried elsewhere
    disabled_keys: tuple[DisabledKey, ...] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict)  # what to do with parameters, by family of APIs
    overrides: Overrides | None = None  # what it changes in requests, None: nothing
    strips_nulls: bool = False  # parameters that are null are not sent
    stores: bool = False  # it can store responses
    least_output: int = 1  # the smallest output limit it accepts, in tokens
    late_system: bool = False  # it accepts system messages behind others
    cache_marks: frozenset[str] = frozenset()  # the members that it takes of the ends of cached prefixes
    cache_seconds: float = 300.0  # for which a prompt that is not used stays in its cache at least
    reasoning: ReasoningCount = "inside"  # how it counts reasoning tokens
    limits_thinking: bool = True  # an output limit holds for what its models think as well
    cost_member: str = ""  # the member of its usage that says what a request costs, empty: none
    model_apis: ModelApis = ()  # the APIs of models by their names, where not all models have all of them
    may_be_relay: bool = False  # another relay may be behind it, which is told that this one was passed
    owner: int | None = None  # the id of the only user whom it serves, None: it is nobody's own
    refused_limits: Mapping[str, str] = field(default_factory=dict)  # a limit of the output it does not take, by API
    # Of `relay.gateway.snapshot.routes.kind_of`, once it is known of this view.
    known_kind: list[int] = field(default_factory=list, init=False, repr=False, compare=False)

    def policy(self, api: str) -> Policy:
        return self.policies.get(api.partition(".")[0], _NO_POLICY)

    def of_model(self, upstream_name: str) -> ChannelView:
        """The channel as it serves the model that its upstream calls so: with the APIs that this model has."""
        apis = apis_of_model(self.model_apis, upstream_name)
        if apis >= self.urls.keys():
            return self
        return replace(self, urls={api: url for api, url in self.urls.items() if api in apis})


@dataclass(frozen=True, slots=True)
class Route:
    """A channel that serves a model."""

    channel: ChannelView
    upstream_name: str  # the channel's name for the model
    price: PriceList | None = None  # for users, None: the model's
    cost: PriceList | None = None  # what the upstream charges, None: the model's list price


@dataclass(frozen=True, slots=True)
class ModelView:
    """A public model."""

    id: int
    name: str
    owned_by: str
    created: int
    is_open: bool
    context_window: int | None
    max_output_tokens: int | None
    users: Mapping[int, float]  # when the permission of each user ends, in seconds since 1970; infinity: never
    groups: Mapping[int, float]  # the same for groups
    routes: tuple[Route, ...]  # `relay.gateway.snapshot.routes.Routes` where there may be many
    price: PriceList | None = None
    varied: bool = False  # some route has a price of its own
    overridden: bool = False  # some route's channel changes the bodies of requests
    checks: tuple[Check, ...] = ()
    strategy: str = ""
    sticky: bool = True
    keeps_cache: bool = False  # a request fails rather than leave the channel that has its conversation cached
    native_only: bool = False  # a request fails rather than be converted to another API
    abilities: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()  # further names by which clients may ask for it
    display_name: str = ""  # empty: its name
    reasoning_levels: tuple[str, ...] = ()  # values of `reasoning_effort`, the least first; empty: not known
    retires_on: date | None = None  # when its vendor takes it out of service

    @property
    def priced(self) -> bool:
        """Whether the model or one of its routes has a price."""
        return self.price is not None or self.varied

    def priced_at(self, now: float, routes: Iterable[Route]) -> bool:
        """Whether users pay a price at `now` (seconds since 1970) on one of the routes. Prices may begin later."""
        return any(prices.at(now, 0) for prices in (self.price, *(route.price for route in routes)) if prices)


@dataclass(frozen=True, slots=True)
class PlanView:
    """A user's own plan at a vendor, which serves nobody else. It is in no list of channels or models."""

    user: int  # id of its owner
    on: bool  # its owner has turned it on
    api: bool  # and allows it for tokens under /v1, not in the playground alone
    models: Mapping[str, ModelView]  # by name; each has one route, which belongs to the owner
    signed_out: bool = False  # nobody is signed in for it: its requests are refused

    def serves(self, user: int, playground: bool) -> bool:
        """Whether a request of a user may be answered by it."""
        return self.user == user and self.on and (self.api or playground)


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group of users."""

    id: int
    name: str
    multiplier: int  # of prices, in parts per million
    limits: Limits  # of the group as a whole
    member: Limits  # of each member without limits of their own

"""Configuration in memory: immutable views of channels, models and callers. Pure; `relay.gateway.snapshot.load` fills them from the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx

from relay.billing.prices import ONE, PriceList
from relay.gateway.limits.windows import Check, Limits
from relay.providers.parameters import Policy

NO_LIMITS: Final = Limits()
_NO_POLICY: Final[Policy] = {}
Pair = tuple[int, int]  # ids of a channel and one of its keys


@dataclass(frozen=True, slots=True)
class KeyView:
    """An upstream key. `headers` are those of a request that presents it; `id` 0 stands for a channel that needs none."""

    id: int
    weight: int
    headers: Mapping[str, str] = field(repr=False)
    name: str = ""
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class DisabledKey:
    """A key that was taken out of service by itself: `kind` is the word of a failure class, `at` seconds since 1970."""

    id: int
    name: str
    kind: str
    reason: str
    at: float
    next_test: float


@dataclass(frozen=True, slots=True)
class PoolView:
    """Channels that share a strategy."""

    id: int
    name: str
    strategy: str


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    connect: float
    first_byte: float
    idle: float
    total: float


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel that is enabled. `urls`: where its APIs are, by name; what is not in it, it does not serve.

    `refusal` is why its address may not be used, empty when it may. `policies`: what becomes of parameters, by family of APIs.
    """

    id: int
    name: str
    provider: str
    urls: Mapping[str, httpx.URL]
    keys: tuple[KeyView, ...]
    priority: int
    weight: int
    groups: frozenset[int]
    proxy: str
    sends_done: bool
    stream_usage: bool
    timeouts: Timeouts
    refusal: str
    output_field: str = "max_completion_tokens"
    cost_multiplier: int = ONE
    disconnect_policy: str = "delivered"
    checks: tuple[Check, ...] = ()
    pool: PoolView | None = None
    key_strategy: str = "random"
    retry_unanswered: str = "broken"
    disabled_keys: tuple[DisabledKey, ...] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict)
    strips_nulls: bool = False
    stores: bool = False
    least_output: int = 1

    def policy(self, api: str) -> Policy:
        return self.policies.get(api.partition(".")[0], _NO_POLICY)


@dataclass(frozen=True, slots=True)
class Route:
    """A channel that serves a model, and what it calls the model. `price` and `cost`: what users pay and the upstream charges, if it differs here."""

    channel: ChannelView
    upstream_name: str
    price: PriceList | None = None
    cost: PriceList | None = None


@dataclass(frozen=True, slots=True)
class ModelView:
    """A public model. `users` and `groups` map ids to the second at which their permission ends (infinity: never)."""

    id: int
    name: str
    owned_by: str
    created: int
    is_open: bool
    context_window: int | None
    max_output_tokens: int | None
    users: Mapping[int, float]
    groups: Mapping[int, float]
    routes: tuple[Route, ...]
    price: PriceList | None = None
    varied: bool = False  # some route has a price of its own
    checks: tuple[Check, ...] = ()
    strategy: str = ""
    sticky: bool = True
    abilities: tuple[str, ...] = ()

    @property
    def priced(self) -> bool:
        """Whether there is a price for it anywhere."""
        return self.price is not None or self.varied


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group. `multiplier` in parts per million; `member`: limits of each member that has none of its own."""

    id: int
    name: str
    multiplier: int
    limits: Limits
    member: Limits

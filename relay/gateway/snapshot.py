"""Configuration in memory: immutable views of channels, models and callers. Pure; `relay.gateway.load` fills them from the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import httpx

from portal.lib.net import Address, Allowance, Network, inside


@dataclass(frozen=True, slots=True)
class KeyView:
    """An upstream key. `headers` are those of a request that presents it; `id` 0 stands for a channel that needs none."""

    id: int
    weight: int
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds."""

    connect: float
    first_byte: float
    idle: float
    total: float


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel that is enabled. `refusal` is why its address may not be used, empty when it may."""

    id: int
    name: str
    provider: str
    chat_url: httpx.URL
    keys: tuple[KeyView, ...]
    priority: int
    weight: int
    groups: frozenset[int]
    proxy: str
    sends_done: bool
    stream_usage: bool
    timeouts: Timeouts
    refusal: str


@dataclass(frozen=True, slots=True)
class Route:
    """A channel that serves a model, and what it calls the model."""

    channel: ChannelView
    upstream_name: str


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


@dataclass(frozen=True, slots=True)
class Snapshot:
    models: Mapping[str, ModelView]
    allowed: tuple[Allowance, ...]


class CallerState(Enum):
    ACTIVE = "active"
    EXPIRED = "expired"
    TOKEN_DISABLED = "token_disabled"  # noqa: S105
    USER_DISABLED = "user_disabled"


@dataclass(frozen=True, slots=True)
class Caller:
    """A relay token and its owner. `models` None: every model the owner may use; otherwise ids."""

    digest: str
    token_id: int
    user_id: int
    is_staff: bool
    groups: frozenset[int]
    token_enabled: bool
    user_enabled: bool
    expires_at: float
    models: frozenset[int] | None
    networks: tuple[Network, ...]

    def state(self, now: float) -> CallerState:
        if not self.token_enabled:
            return CallerState.TOKEN_DISABLED
        if not self.user_enabled:
            return CallerState.USER_DISABLED
        return CallerState.EXPIRED if self.expires_at <= now else CallerState.ACTIVE

    def may_come_from(self, address: Address | None) -> bool:
        return not self.networks or (address is not None and inside(address, self.networks))

    def may_use(self, model: ModelView, now: float) -> bool:
        """Open, or permitted to the user or one of the user's groups; and on the token's list, if it has one."""
        if self.models is not None and model.id not in self.models:
            return False
        if model.is_open or model.users.get(self.user_id, 0.0) > now:
            return True
        return any(model.groups.get(group, 0.0) > now for group in self.groups)

    def routes(self, model: ModelView) -> tuple[Route, ...]:
        """The model's routes over channels that are for everyone or for one of the caller's groups."""
        return tuple(route for route in model.routes if not route.channel.groups or route.channel.groups & self.groups)

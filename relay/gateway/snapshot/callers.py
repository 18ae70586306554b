"""Who is calling: a token with its user, and the terms they are served on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from portal.lib.net import Address, Network, inside
from relay.billing.ledger.lines import BudgetLine
from relay.gateway.limits.windows import Check, Limits
from relay.gateway.snapshot.views import NO_LIMITS, ModelView, Route


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which conditions somebody calls: the price multiplier of the best group, and the limits of everything but the model."""

    caller: Caller
    multiplier: int
    checks: tuple[Check, ...]


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
    limited: bool = False  # whether balance, quota or a budget limits what it may spend
    house: bool = True  # the portal pays: the user's balance is unlimited
    budgets: tuple[BudgetLine, ...] = ()
    limits: Limits = NO_LIMITS
    user_limits: Limits = NO_LIMITS
    purpose: str = ""  # of relay.gateway.access.authorization.PURPOSES; empty: everything

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

"""Callers: a token with its user, and the terms that apply to them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from portal.lib.net import Address, Network, inside
from relay.billing.ledger.lines import BudgetLine
from relay.gateway.limits.windows import Check, Limits
from relay.gateway.snapshot.routes import Routes
from relay.gateway.snapshot.views import NO_LIMITS, ModelView


@dataclass(frozen=True, slots=True)
class Terms:
    """The conditions that apply to a caller."""

    caller: Caller
    multiplier: int  # of the price, of the cheapest group, in parts per million
    checks: tuple[Check, ...]  # all limits but the model's


class CallerState(Enum):
    """Whether a token may be used."""

    ACTIVE = "active"
    EXPIRED = "expired"
    TOKEN_DISABLED = "token_disabled"  # noqa: S105
    USER_DISABLED = "user_disabled"


@dataclass(frozen=True, slots=True)
class Caller:
    """A token and its owner."""

    digest: str  # of the token
    token_id: int
    user_id: int
    is_staff: bool  # staff who may view channels now: may choose one, and see which one answered
    groups: frozenset[int]  # ids
    token_enabled: bool
    user_enabled: bool
    expires_at: float  # seconds since 1970, infinity: never
    models: frozenset[int] | None  # ids that the token is limited to; None: every model the owner may use
    networks: tuple[Network, ...]  # empty: any address
    limited: bool = False  # a balance, quota or budget limits what it may spend
    house: bool = True  # the portal pays: the user's balance is unlimited
    budgets: tuple[BudgetLine, ...] = ()
    limits: Limits = NO_LIMITS
    user_limits: Limits = NO_LIMITS
    token_name: str = ""
    playground: bool = False  # the request comes from the owner's own page
    anybody: bool = False  # a token that stands for whoever reaches the relay, also from other machines
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
        """Whether a model is open, or permitted to the user or a group, and on the token's list, if there is one."""
        if self.models is not None and model.id not in self.models:
            return False
        if model.is_open or model.users.get(self.user_id, 0.0) > now:
            return True
        return any(model.groups.get(group, 0.0) > now for group in self.groups)

    def routes(self, model: ModelView) -> Routes:
        """The model's routes through channels that are open to all, to one of the caller's groups, or are theirs."""
        return Routes.of(model.routes).open_to(self.user_id, self.groups)

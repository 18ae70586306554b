"""Configuration in memory: immutable views of channels, models and callers. Pure; `relay.gateway.snapshot.load` fills them from the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

import httpx

from portal.lib.net import Address, Allowance, Network, inside
from relay.billing.ledger.lines import BudgetLine
from relay.billing.prices import ONE, PriceList
from relay.gateway.limits.windows import Check, Limits, Subject, checks
from relay.providers.failures import Rule
from relay.providers.parameters import Policy

NO_LIMITS: Final = Limits()
_MOST_TERMS: Final = 50_000
_MOST_MEMBERS: Final = 5_000
_NO_POLICY: Final[Policy] = {}


@dataclass(frozen=True, slots=True)
class KeyView:
    """An upstream key. `headers` are those of a request that presents it; `id` 0 stands for a channel that needs none."""

    id: int
    weight: int
    headers: Mapping[str, str] = field(repr=False)
    name: str = ""
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class BenchedKey:
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
    benched: tuple[BenchedKey, ...] = ()
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


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which conditions somebody calls: the price multiplier of the best group, and the limits of everything but the model."""

    caller: Caller
    multiplier: int
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    models: Mapping[str, ModelView]
    allowed: tuple[Allowance, ...]
    groups: Mapping[int, GroupView] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    remedies: Mapping[str, str] = field(default_factory=dict)  # the administrator's words about error codes
    _terms: dict[str, Terms] = field(default_factory=dict)
    _members: dict[str, ModelView | None] = field(default_factory=dict)

    def member(self, name: str) -> ModelView | None:
        """One of a family of models, which is written with a star at the end: `gpt-4-gizmo-*`. The longest that fits; its star is carried upstream."""
        if name not in self._members:
            if len(self._members) > _MOST_MEMBERS:
                self._members.clear()
            families = [model for model in self.models.values() if model.name.endswith("*") and name.startswith(model.name[:-1]) and len(name) >= len(model.name)]
            family = max(families, key=lambda model: len(model.name), default=None)
            if family is None:
                return None  # names that clients make up are not remembered
            rest = name[len(family.name) - 1 :]
            self._members[name] = replace(family, name=name, routes=tuple(replace(route, upstream_name=route.upstream_name.replace("*", rest)) for route in family.routes))
        return self._members[name]

    def terms(self, caller: Caller) -> Terms:
        """Worked out once for each caller and snapshot."""
        found = self._terms.get(caller.digest)
        if found is None or found.caller is not caller:
            if len(self._terms) > _MOST_TERMS:
                self._terms.clear()
            found = self._terms[caller.digest] = self._work_out(caller)
        return found

    def _work_out(self, caller: Caller) -> Terms:
        groups = [self.groups[group] for group in sorted(caller.groups) if group in self.groups]
        subjects = [Subject(f"token:{caller.token_id}", "this token", caller.limits)] if caller.limits else []
        member = _most_generous([group.member for group in groups])
        own = caller.user_limits
        user = Limits(*(mine if mine is not None else theirs for mine, theirs in zip(_fields(own), _fields(member), strict=True)))
        if user:
            subjects.append(Subject(f"user:{caller.user_id}", "your account", user))
        subjects += [Subject(f"group:{group.id}", "your group", group.limits) for group in groups if group.limits]
        return Terms(caller, min((group.multiplier for group in groups), default=ONE), checks(subjects))


def _fields(limits: Limits) -> tuple[int | None, ...]:
    return (limits.rpm, limits.tpm, limits.rpd, limits.concurrency)


def _most_generous(all_limits: list[Limits]) -> Limits:
    """Of each kind the largest; a group that leaves a kind open limits nobody by it."""
    if not all_limits:
        return Limits()
    columns = zip(*(_fields(limits) for limits in all_limits), strict=True)
    return Limits(*(None if None in column else max(value for value in column if value is not None) for column in columns))


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
    purpose: str = ""  # of relay.gateway.access.authentication.PURPOSES; empty: everything

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

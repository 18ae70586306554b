"""Values that pass between the workers and the ledger: scopes, reservations, charges. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """A budget of a user or token, as the snapshot has it."""

    token_id: int | None  # None: the budget of the user
    period: str  # a value of relay.models.ledger.Period
    limit: int  # nano-USD


@dataclass(frozen=True, slots=True)
class SpendScope:
    """Whose accounts a request is charged to: those of its user and token that contain its day."""

    user_id: int
    token_id: int
    day: int  # ordinal in the portal's time zone

    @property
    def values(self) -> tuple[int, int, int, int]:
        """The parameters of the SQL condition `relay.billing.ledger.requests._SCOPE`."""
        return (self.user_id, self.token_id, self.day, self.day)


@dataclass(frozen=True, slots=True)
class Reserved:
    """The outcome of a reservation. Amounts in nano-USD. "The account" is the one with the least left."""

    granted: int  # added to the reservation, 0 when less than the minimum was free
    free: int  # left in the account beyond all reservations
    balance: int  # left in the account, reservations included
    kind: str  # of the account: wallet, quota or budget; empty: no account limits spending
    period: str  # of a budget, else empty
    tight: bool  # the account is nearly used up, so nothing is reserved in advance
    of_token: bool = False  # the account is the token's alone, not the user's


class Charge(msgspec.Struct):
    """What one finished request costs. Amounts in nano-USD."""

    request_id: str
    cost: int
    covered: int  # how much of it the reservation covers
    house: bool  # the portal pays, since the wallet is unlimited
    at: float  # seconds since 1970


class Charged(msgspec.Struct):
    """The outcome of a charge. Amounts in nano-USD."""

    from_reservation: int
    shortfall: int  # what nothing was left to pay for; the portal bears it


@dataclass(slots=True)
class ReserveOrder:
    """The arguments of `relay.billing.ledger.requests.reserve`. Amounts in nano-USD."""

    reservation: str  # its id; a reservation that exists grows
    owner: str  # the worker
    scope: SpendScope
    budgets: Sequence[BudgetLine]  # that apply to the scope
    need: int  # for the request at hand
    headroom: int  # for further requests, reserved unless an account is nearly used up
    minimum: int  # the least that is of use when `need` is not free
    more: int = 0  # headroom beside that, as much of it as the share of what is free allows

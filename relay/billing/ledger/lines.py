"""What workers and the ledger say to each other. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """A budget as a worker knows it. `token_id` None: of the user. `limit` in nano-USD."""

    token_id: int | None
    period: str
    limit: int


@dataclass(frozen=True, slots=True)
class SpendScope:
    """Who is spending: the accounts that a request moves."""

    user_id: int
    token_id: int
    day: int

    @property
    def values(self) -> tuple[int, int, int, int]:
        return (self.user_id, self.token_id, self.day, self.day)


@dataclass(frozen=True, slots=True)
class Reserved:
    """The outcome of a reservation, in nano-USD.

    `granted`: how much was added, 0 when not even the minimum was there. `free`: what is left beyond it in the tightest account, whose
    `kind` and `period` are named, and whose `balance` includes what is reserved. `tight`: the account is near its end.
    """

    granted: int
    free: int
    balance: int
    kind: str
    period: str
    tight: bool


@dataclass(slots=True)
class Charge:
    """The cost of one finished request. `covered`: what its reservation holds for it. `house`: the portal pays (unlimited wallet)."""

    request_id: str
    cost: int
    covered: int
    house: bool
    at: float


@dataclass(slots=True)
class Charged:
    """What a charge came to: taken from the reservation, and not covered by anything."""

    from_reservation: int
    shortfall: int

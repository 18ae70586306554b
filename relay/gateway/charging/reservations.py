"""Money on the event loop: what this worker holds back, and what of it is promised to running requests.

A request may only start when what it can cost at most is held back in the database. Asking the database for every request would cost a
commit each; so a worker holds a little more than it needs while a wallet is far from its end, hands it out from memory, and gives it back
when nobody has used it for a second. Near the end of a wallet (`tight`) it holds exactly what running requests need.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from portal.lib import money
from portal.lib.days import Days
from portal.lib.processes import new_owner
from relay.billing.ledger.lines import BudgetLine, Charge, Charged, Reserved, ReserveOrder, SpendScope
from relay.billing.ledger.requests import RESERVATION_SECONDS
from relay.billing.ledger.rows import RowWrite
from relay.billing.ledger.writer import Settlement, UsageRow, writer
from relay.errors import InsufficientQuota
from relay.gateway.exchange import Exchange
from relay.gateway.snapshot.callers import Caller

_HEADROOM: Final = 16  # requests' worth that is held beyond the one that asks
_IDLE: Final = 1.0
_PATIENCE: Final = 5.0  # seconds that a request waits while others hold what it needs
_POLL: Final = (0.05, 0.5)  # seconds between its tries, first and longest; what this worker gives back wakes it at once
_SCOPES: Final = {"wallet": "balance", "quota": "quota of this token", "budget": "budget of this {period}"}


@dataclass(slots=True, eq=False)
class WorkerReservation:
    """One reservation of this worker. Amounts in nano-USD; touched on the event loop only."""

    id: str
    owner: str
    scope: SpendScope
    amount: int = 0  # what the database holds for it
    granted: int = 0  # of that, to running requests
    running: int = 0  # requests that have not been settled
    asking: int = 0  # orders to hold more that have not been answered
    need: int = 0  # of the last request
    used_at: float = 0.0
    tight: bool = True
    closed: bool = False
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)  # requests that wait for others to give something back

    @property
    def spare(self) -> int:
        return self.amount - self.granted

    @property
    def idle(self) -> bool:
        return not self.running and not self.asking


@dataclass(slots=True, eq=False)
class Grant:
    """What one request may spend. Settled or dropped exactly once; `reservation` None: it needs no reservation."""

    reservations: Reservations
    scope: SpendScope
    house: bool
    reservation: WorkerReservation | None = None
    amount: int = 0
    over: bool = False

    def settlement(self, request_id: str, cost: int, at: float) -> Settlement | None:
        """The order to charge the request, for the writer to carry out together with its record. None when there is nothing to charge."""
        reservation = self.reservation
        if self.over:
            return None
        self.over = True
        if reservation is None:
            return Settlement("", self.scope, Charge(request_id, cost, 0, self.house, at), _nothing) if cost else None
        reservation.used_at = time.monotonic()
        covered = min(cost, self.amount + max(0, reservation.spare))
        reservation.granted += covered - self.amount
        self.amount = covered
        if not cost:
            self._end(0)
            return None
        self.reservations.trim(reservation)
        return Settlement(reservation.id, self.scope, Charge(request_id, cost, covered, self.house, at), self._settled)

    def drop(self) -> None:
        """The request ended without costing anything."""
        if not self.over:
            self.over = True
            if self.reservation is not None:
                self._end(0)

    def _settled(self, charged: Charged | None) -> None:
        if charged is None and self.reservation is not None:
            self.reservations.close(self.reservation)
        self._end(charged.from_reservation if charged else self.amount)

    def _end(self, spent: int) -> None:
        reservation = self.reservation
        if reservation is not None:
            reservation.granted -= self.amount
            reservation.amount -= spent
            reservation.running -= 1
            self.amount = 0
            self.reservations.trim(reservation)


def _nothing(charged: Charged | None) -> None:
    return None


class Reservations:
    """The reservations of one worker."""

    def __init__(self, zone: str) -> None:
        self.days = Days(zone)
        self.owner = new_owner()
        self._reservations: dict[tuple[int, int], WorkerReservation] = {}
        self._closed: set[WorkerReservation] = set()
        self._faults = writer.faults
        self._prolong_at = time.monotonic() + RESERVATION_SECONDS / 4

    async def reserve(self, exchange: Exchange, caller: Caller, need: int, minimum: int) -> Grant:
        """Make sure of `need` nano-USD, or of what there is from `minimum` up. Raises InsufficientQuota, RelayUnavailable."""
        day = self.days.of(exchange.wall)
        if not caller.limited or need <= 0:
            return Grant(self, SpendScope(caller.user_id, caller.token_id, day), caller.house)
        reservation = self._reservations.get((caller.token_id, day)) or self._open(SpendScope(caller.user_id, caller.token_id, day))
        grant = Grant(self, reservation.scope, caller.house, reservation)
        reservation.running += 1
        try:
            if reservation.spare >= need:
                reservation.granted += need
                grant.amount = need
            else:
                await self._ask(exchange, grant, caller.budgets, need, minimum)
        except BaseException:
            # It may have been given what it asked for in the very moment in which it was cancelled.
            grant.over = True
            grant._end(0)
            raise
        reservation.used_at = time.monotonic()
        return grant

    async def extend(self, exchange: Exchange, grant: Grant, budgets: Sequence[BudgetLine], more: int) -> bool:
        """More for a running request; False when nothing is left."""
        reservation = grant.reservation
        if reservation is None:
            return True
        if reservation.spare >= more:
            reservation.granted += more
            grant.amount += more
            return True
        before = grant.amount
        await exchange.answered(self._order(grant, budgets, more, 1))
        return grant.amount > before

    async def _ask(self, exchange: Exchange, grant: Grant, budgets: Sequence[BudgetLine], need: int, minimum: int) -> None:
        """Ask the database. What is held back for running requests is waited for a little, before less than needed is taken."""
        until, pause = time.monotonic() + _PATIENCE, _POLL[0]
        while True:
            last = time.monotonic() >= until
            result = await exchange.answered(self._order(grant, budgets, need, minimum if last else need))
            if not grant.amount and result.kind and not last and result.balance < need:
                result = await exchange.answered(self._order(grant, budgets, need, minimum))
            if grant.amount or not result.kind:
                return
            if result.balance < minimum or last:
                raise refusal(result, need, minimum)
            await self._given_back(grant, pause)
            pause = min(2 * pause, _POLL[1])

    async def _given_back(self, grant: Grant, seconds: float) -> None:
        """Wait until this worker gives something back, or for so long."""
        reservation = grant.reservation
        assert reservation is not None  # noqa: S101
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        reservation.waiters.append(waiter)
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        finally:
            if not waiter.done():
                reservation.waiters.remove(waiter)

    def _order(self, grant: Grant, budgets: Sequence[BudgetLine], need: int, minimum: int) -> asyncio.Future[Reserved]:
        reservation = grant.reservation
        assert reservation is not None  # noqa: S101
        reservation.asking += 1
        reservation.need = need

        def on_reserved(result: Reserved | None, wanted: bool) -> None:
            reservation.asking -= 1
            if result is None:
                self.close(reservation)
                return
            reservation.amount += result.granted
            reservation.tight = result.tight
            if wanted:
                taken = min(result.granted, need)
                reservation.granted += taken
                grant.amount += taken
            else:
                self.trim(reservation)

        headroom = max(0, _HEADROOM * need - max(0, reservation.spare))
        return writer.reserve(ReserveOrder(reservation.id, reservation.owner, reservation.scope, budgets, need, headroom, minimum), on_reserved)

    def submit(self, row: UsageRow, grant: Grant | None, cost: int, exchange: Exchange, wait: bool, rows: Sequence[RowWrite] = ()) -> asyncio.Future[None] | None:
        """Hand a record to the writer, with what its request is charged and what is written together with it."""
        return writer.submit(row, grant.settlement(exchange.request_id, cost, exchange.wall) if grant is not None else None, wait, rows)

    # -- giving back -------------------------------------------------------------------------------------------------

    def trim(self, reservation: WorkerReservation) -> None:
        """Give back what a hold need not keep."""
        if reservation.closed:
            if reservation.idle and reservation in self._closed:
                self._closed.discard(reservation)
                writer.release(reservation.id, reservation.scope)
            return
        # Near the end of a wallet nothing is kept. Otherwise what a burst of requests has left over goes back, in one piece.
        keep, most = (0, 0) if reservation.tight else (_HEADROOM * reservation.need, 4 * _HEADROOM * reservation.need)
        if reservation.spare > most:
            back = reservation.spare - keep
            reservation.amount -= back
            writer.release(reservation.id, reservation.scope, back)
            if reservation.waiters:
                reservation.waiters.popleft().set_result(None)

    def close(self, reservation: WorkerReservation) -> None:
        """Hand out nothing more of a hold; what is left of it is given back when its last request has ended."""
        if reservation.closed:
            return
        reservation.closed = True
        self._closed.add(reservation)
        key = (reservation.scope.token_id, reservation.scope.day)
        if self._reservations.get(key) is reservation:
            del self._reservations[key]
        self.trim(reservation)

    def tidy(self) -> None:
        """Called about twice a second: close what is idle, tell the database that this worker lives."""
        now = time.monotonic()
        if writer.faults != self._faults:
            self._faults = writer.faults
            for reservation in list(self._reservations.values()):
                self.close(reservation)
            # What was not given back because of the fault belongs to a name that nobody prolongs any more.
            self.owner = new_owner()
        for reservation in [reservation for reservation in self._reservations.values() if reservation.idle and now - reservation.used_at > _IDLE]:
            self.close(reservation)
        if now >= self._prolong_at:
            self._prolong_at = now + RESERVATION_SECONDS / 4
            for owner in {reservation.owner for reservation in (*self._reservations.values(), *self._closed)}:
                writer.prolong(owner)

    def close_all(self) -> None:
        """At the end of the process: give everything back that nobody needs any more."""
        for reservation in [*self._reservations.values(), *self._closed]:
            reservation.running = reservation.asking = 0
            self.close(reservation)
            self.trim(reservation)

    def _open(self, scope: SpendScope) -> WorkerReservation:
        reservation = self._reservations[scope.token_id, scope.day] = WorkerReservation(secrets.token_hex(16), self.owner, scope)
        return reservation


def refusal(result: Reserved, need: int, minimum: int) -> InsufficientQuota:
    """Why a request cannot be paid for, with what is missing: `minimum` would do for a short answer, `need` covers the longest."""
    what = _SCOPES[result.kind].format(period=result.period)
    left, missing = max(0, result.balance), money.show(need - max(0, result.free))
    if result.free < result.balance and need <= result.balance:
        error = InsufficientQuota(
            f"The rest of the {what} is held back for requests that are still running: this one needs up to {money.show(need)}, {missing} more than is free. "
            "Try again when they have ended.",
            retry_after=2,
        )
        error.retry = True
        return error
    remedy = {
        "wallet": "Top up, or ask the portal's administrator.",
        "quota": "Its owner can raise the quota on the portal.",
        "budget": "It is renewed when the period ends; its limit can be raised on the portal.",
    }[result.kind]
    up_to = f" (up to {money.show(need)} for the longest answer)" if need > minimum else ""
    missing = money.show(max(1, minimum - left))
    return InsufficientQuota(f"The {what} does not cover this request: {money.show(left)} is left, at least {money.show(minimum)} is needed{up_to}, {missing} is missing. {remedy}")

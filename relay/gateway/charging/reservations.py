"""Money on the event loop: what this worker holds back, and what of it is promised to running requests.

A request may only start when what it can cost at most is held back in the database. Asking the database for every request would cost a
commit each; so a worker holds a little more than it needs while a wallet is far from its end, hands it out from memory, and gives it back
when nobody has used it for a second. Near the end of a wallet (`lean`) it holds exactly what running requests need.
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
from relay.billing.ledger.lines import BudgetLine, Charge, Charged, Reserved, Scope
from relay.billing.ledger.requests import LEASE_SECONDS
from relay.billing.ledger.rows import Statement
from relay.billing.ledger.writer import ReserveOrder, Row, Settlement, writer
from relay.errors import InsufficientQuota
from relay.gateway.exchange import Exchange
from relay.gateway.snapshot.callers import Caller

_WISH: Final = 16  # requests' worth that is held beyond the one that asks
_IDLE: Final = 1.0
_PATIENCE: Final = 5.0  # seconds that a request waits while others hold what it needs
_POLL: Final = (0.05, 0.5)  # seconds between its tries, first and longest; what this worker gives back wakes it at once
_SCOPES: Final = {"wallet": "balance", "quota": "quota of this token", "budget": "budget of this {period}"}


@dataclass(slots=True, eq=False)
class Hold:
    """One reservation of this worker. Amounts in nano-USD; touched on the event loop only."""

    id: str
    owner: str
    scope: Scope
    amount: int = 0  # what the database holds for it
    promised: int = 0  # of that, to running requests
    running: int = 0  # requests that have not been settled
    asking: int = 0  # orders to hold more that have not been answered
    need: int = 0  # of the last request
    used_at: float = 0.0
    lean: bool = True
    closed: bool = False
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)  # requests that wait for others to give something back

    @property
    def spare(self) -> int:
        return self.amount - self.promised

    @property
    def idle(self) -> bool:
        return not self.running and not self.asking


@dataclass(slots=True, eq=False)
class Promise:
    """What one request may spend. Settled or dropped exactly once; `hold` None: it needs no reservation."""

    funds: Funds
    scope: Scope
    house: bool
    hold: Hold | None = None
    amount: int = 0
    over: bool = False

    def settlement(self, request_id: str, cost: int, at: float) -> Settlement | None:
        """The order to charge the request, for the writer to carry out together with its record. None when there is nothing to charge."""
        hold = self.hold
        if self.over:
            return None
        self.over = True
        if hold is None:
            return Settlement("", self.scope, Charge(request_id, cost, 0, self.house, at), _nothing) if cost else None
        hold.used_at = time.monotonic()
        covered = min(cost, self.amount + max(0, hold.spare))
        hold.promised += covered - self.amount
        self.amount = covered
        if not cost:
            self._end(0)
            return None
        self.funds.trim(hold)
        return Settlement(hold.id, self.scope, Charge(request_id, cost, covered, self.house, at), self._settled)

    def drop(self) -> None:
        """The request ended without costing anything."""
        if not self.over:
            self.over = True
            if self.hold is not None:
                self._end(0)

    def _settled(self, charged: Charged | None) -> None:
        if charged is None and self.hold is not None:
            self.funds.close(self.hold)
        self._end(charged.from_hold if charged else self.amount)

    def _end(self, spent: int) -> None:
        hold = self.hold
        if hold is not None:
            hold.promised -= self.amount
            hold.amount -= spent
            hold.running -= 1
            self.amount = 0
            self.funds.trim(hold)


def _nothing(charged: Charged | None) -> None:
    return None


class Funds:
    """The reservations of one worker."""

    def __init__(self, zone: str) -> None:
        self.days = Days(zone)
        self.owner = new_owner()
        self._holds: dict[tuple[int, int], Hold] = {}
        self._closed: set[Hold] = set()
        self._faults = writer.faults
        self._prolong_at = time.monotonic() + LEASE_SECONDS / 4

    async def reserve(self, exchange: Exchange, caller: Caller, need: int, minimum: int) -> Promise:
        """Make sure of `need` nano-USD, or of what there is from `minimum` up. Raises InsufficientQuota, RelayUnavailable."""
        day = self.days.of(exchange.wall)
        if not caller.limited or need <= 0:
            return Promise(self, Scope(caller.user_id, caller.token_id, day), caller.house)
        hold = self._holds.get((caller.token_id, day)) or self._open(Scope(caller.user_id, caller.token_id, day))
        promise = Promise(self, hold.scope, caller.house, hold)
        hold.running += 1
        try:
            if hold.spare >= need:
                hold.promised += need
                promise.amount = need
            else:
                await self._ask(exchange, promise, caller.budgets, need, minimum)
        except BaseException:
            # It may have been given what it asked for in the very moment in which it was cancelled.
            promise.over = True
            promise._end(0)
            raise
        hold.used_at = time.monotonic()
        return promise

    async def extend(self, exchange: Exchange, promise: Promise, budgets: Sequence[BudgetLine], more: int) -> bool:
        """More for a running request; False when nothing is left."""
        hold = promise.hold
        if hold is None:
            return True
        if hold.spare >= more:
            hold.promised += more
            promise.amount += more
            return True
        before = promise.amount
        await exchange.answered(self._order(promise, budgets, more, 1))
        return promise.amount > before

    async def _ask(self, exchange: Exchange, promise: Promise, budgets: Sequence[BudgetLine], need: int, minimum: int) -> None:
        """Ask the database. What is held back for running requests is waited for a little, before less than needed is taken."""
        until, pause = time.monotonic() + _PATIENCE, _POLL[0]
        while True:
            last = time.monotonic() >= until
            result = await exchange.answered(self._order(promise, budgets, need, minimum if last else need))
            if not promise.amount and result.kind and not last and result.balance < need:
                result = await exchange.answered(self._order(promise, budgets, need, minimum))
            if promise.amount or not result.kind:
                return
            if result.balance < minimum or last:
                raise refusal(result, need, minimum)
            await self._given_back(promise, pause)
            pause = min(2 * pause, _POLL[1])

    async def _given_back(self, promise: Promise, seconds: float) -> None:
        """Wait until this worker gives something back, or for so long."""
        hold = promise.hold
        assert hold is not None  # noqa: S101
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        hold.waiters.append(waiter)
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        finally:
            if not waiter.done():
                hold.waiters.remove(waiter)

    def _order(self, promise: Promise, budgets: Sequence[BudgetLine], need: int, minimum: int) -> asyncio.Future[Reserved]:
        hold = promise.hold
        assert hold is not None  # noqa: S101
        hold.asking += 1
        hold.need = need

        def on_reserved(result: Reserved | None, wanted: bool) -> None:
            hold.asking -= 1
            if result is None:
                self.close(hold)
                return
            hold.amount += result.granted
            hold.lean = result.lean
            if wanted:
                taken = min(result.granted, need)
                hold.promised += taken
                promise.amount += taken
            else:
                self.trim(hold)

        wish = max(0, _WISH * need - max(0, hold.spare))
        return writer.reserve(ReserveOrder(hold.id, hold.owner, hold.scope, budgets, need, wish, minimum), on_reserved)

    def submit(self, row: Row, promise: Promise | None, cost: int, request_id: str, at: float, wait: bool, documents: Sequence[Statement] = ()) -> asyncio.Future[None] | None:
        """Hand a record to the writer, with what its request is charged and what is written together with it."""
        return writer.submit(row, promise.settlement(request_id, cost, at) if promise is not None else None, wait, documents)

    # -- giving back -------------------------------------------------------------------------------------------------

    def trim(self, hold: Hold) -> None:
        """Give back what a hold need not keep."""
        if hold.closed:
            if hold.idle and hold in self._closed:
                self._closed.discard(hold)
                writer.release(hold.id, hold.scope)
            return
        # Near the end of a wallet nothing is kept. Otherwise what a burst of requests has left over goes back, in one piece.
        keep, most = (0, 0) if hold.lean else (_WISH * hold.need, 4 * _WISH * hold.need)
        if hold.spare > most:
            back = hold.spare - keep
            hold.amount -= back
            writer.release(hold.id, hold.scope, back)
            if hold.waiters:
                hold.waiters.popleft().set_result(None)

    def close(self, hold: Hold) -> None:
        """Hand out nothing more of a hold; what is left of it is given back when its last request has ended."""
        if hold.closed:
            return
        hold.closed = True
        self._closed.add(hold)
        key = (hold.scope.token_id, hold.scope.day)
        if self._holds.get(key) is hold:
            del self._holds[key]
        self.trim(hold)

    def tidy(self) -> None:
        """Called about twice a second: close what is idle, tell the database that this worker lives."""
        now = time.monotonic()
        if writer.faults != self._faults:
            self._faults = writer.faults
            for hold in list(self._holds.values()):
                self.close(hold)
            # What was not given back because of the fault belongs to a name that nobody prolongs any more.
            self.owner = new_owner()
        for hold in [hold for hold in self._holds.values() if hold.idle and now - hold.used_at > _IDLE]:
            self.close(hold)
        if now >= self._prolong_at:
            self._prolong_at = now + LEASE_SECONDS / 4
            for owner in {hold.owner for hold in (*self._holds.values(), *self._closed)}:
                writer.prolong(owner)

    def close_all(self) -> None:
        """At the end of the process: give everything back that nobody needs any more."""
        for hold in [*self._holds.values(), *self._closed]:
            hold.running = hold.asking = 0
            self.close(hold)
            self.trim(hold)

    def _open(self, scope: Scope) -> Hold:
        hold = self._holds[scope.token_id, scope.day] = Hold(secrets.token_hex(16), self.owner, scope)
        return hold


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

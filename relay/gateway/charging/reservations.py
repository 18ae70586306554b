"""The reservations of one worker in the ledger, and the grants it makes from them to running requests.

A request may start only when its highest possible cost is reserved in the database. A reservation per request would
cost a commit each, so a worker reserves some headroom while the balance is large, grants from it in memory, and
releases what has been unused for a second. Near the end of a balance (`tight`) it reserves exactly what running
requests need.
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
from relay.billing.ledger.pending import Settlement, UsageRow
from relay.billing.ledger.requests import RESERVATION_SECONDS
from relay.billing.ledger.rows import RowWrite
from relay.billing.ledger.writer import writer
from relay.errors import InsufficientQuota
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot.callers import Caller

# Further requests of the same cost that are reserved together with one. When more are running, so many: each that ends
# is followed by another, as a rule.
_HEADROOM: Final = 16
_IDLE_SECONDS: Final = 1.0  # after which an unused reservation is released
_WAIT_SECONDS: Final = 5.0  # that a request waits while other requests hold the amount it needs
_POLL_SECONDS: Final = (0.05, 0.5)  # between its tries, first and longest; a release in this worker wakes it at once
_SCOPES: Final = {"wallet": "balance", "quota": "quota of this token", "budget": "budget of this {period}"}


@dataclass(slots=True, eq=False)
class WorkerReservation:
    """One reservation of this worker. Amounts in nano-USD; used on the event loop only."""

    id: str
    owner: str  # the worker, in the ledger
    scope: SpendScope
    amount: int = 0  # reserved in the database
    granted: int = 0  # of that, to running requests
    running: int = 0  # requests that have not been settled
    pending_orders: int = 0  # orders to reserve more that have not been answered
    ordered: int = 0  # the headroom in them
    need: int = 0  # of the last request
    used_at: float = 0.0  # `time.monotonic()` seconds
    tight: bool = True  # the balance is near its end: no headroom
    closed: bool = False  # makes no more grants
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)  # requests that wait for a release

    @property
    def spare(self) -> int:
        return self.amount - self.granted

    @property
    def headroom(self) -> int:
        """How much is to be held for further requests."""
        return max(_HEADROOM, self.running) * self.need

    @property
    def idle(self) -> bool:
        return not self.running and not self.pending_orders


@dataclass(slots=True, eq=False)
class Grant:
    """The amount that one request may spend, in nano-USD. Settled or dropped exactly once."""

    reservations: Reservations
    scope: SpendScope
    house: bool  # the portal pays
    reservation: WorkerReservation | None = None  # None: the caller has no limit
    amount: int = 0
    over: bool = False  # settled or dropped

    def settlement(self, request_id: str, cost: int, at: float) -> Settlement | None:
        """The order to charge the request, which the writer executes together with its record; None for no charge."""
        reservation = self.reservation
        if self.over:
            return None
        self.over = True
        if reservation is None:
            return Settlement("", self.scope, Charge(request_id, cost, 0, self.house, at), _nothing) if cost else None
        reservation.used_at = time.monotonic()
        spare = reservation.amount - reservation.granted
        covered = min(cost, self.amount + spare if spare > 0 else self.amount)
        reservation.granted += covered - self.amount
        self.amount = covered
        if not cost:
            self._end(0)
            return None
        self.reservations.trim(reservation)
        return Settlement(reservation.id, self.scope, Charge(request_id, cost, covered, self.house, at), self._settled)

    def give_back(self, most: int) -> int:
        """Give up to this amount back to the worker's reservation, where others can take it; returns how much."""
        given = max(0, min(most, self.amount))
        if self.reservation is not None:
            self.amount -= given
            self.reservation.granted -= given
        return given

    def take_spare(self, most: int) -> None:
        """Take up to this amount of what is free in the worker's reservation."""
        reservation = self.reservation
        if reservation is not None:
            taken = max(0, min(most, reservation.spare))
            self.amount += taken
            reservation.granted += taken

    def sibling(self) -> Grant:
        """A grant of nothing yet, from the same reservation."""
        if self.reservation is not None:
            self.reservation.running += 1
        return Grant(self.reservations, self.scope, self.house, self.reservation)

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

    async def reserve(self, exchange: Exchange, caller: Caller, need: int, minimum: int, spare: int = 0) -> Grant:
        """Grant `need` nano-USD, or less but at least `minimum`. Raises InsufficientQuota, RelayUnavailable.

        `spare` is granted beside `need`, as much of it as is free.
        """
        day = self.days.of(exchange.wall)
        if need > 0:
            writer.admit_user(caller.user_id)
        if not caller.limited or need <= 0:
            return Grant(self, SpendScope(caller.user_id, caller.token_id, day), caller.house)
        reservation = self._reservations.get((caller.token_id, day)) or self._open(
            SpendScope(caller.user_id, caller.token_id, day)
        )
        grant = Grant(self, reservation.scope, caller.house, reservation)
        reservation.running += 1
        try:
            if reservation.spare >= need + spare:
                reservation.granted += need + spare
                grant.amount = need + spare
            else:
                await self._reserve_more(exchange, grant, caller.budgets, (need, minimum, spare))
        except BaseException:
            # The grant may have been made at the moment when the request was cancelled.
            grant.over = True
            grant._end(0)
            raise
        reservation.used_at = time.monotonic()
        return grant

    def empty_grant(self, exchange: Exchange, caller: Caller) -> Grant:
        """A grant of nothing yet, for `extend` and `take_spare`."""
        scope = SpendScope(caller.user_id, caller.token_id, self.days.of(exchange.wall))
        if not caller.limited:
            return Grant(self, scope, caller.house)
        reservation = self._reservations.get((caller.token_id, scope.day)) or self._open(scope)
        return Grant(self, scope, caller.house, reservation).sibling()

    async def extend(self, exchange: Exchange, grant: Grant, budgets: Sequence[BudgetLine], more: int) -> bool:
        """Grant `more` nano-USD to a running request; returns False when nothing is left."""
        reservation = grant.reservation
        if reservation is None:
            return True
        if reservation.spare >= more:
            reservation.granted += more
            grant.amount += more
            return True
        before = grant.amount
        await exchange.wait_for_writer(self._order(grant, budgets, more, 1))
        return grant.amount > before

    async def _reserve_more(
        self, exchange: Exchange, grant: Grant, budgets: Sequence[BudgetLine], amounts: tuple[int, int, int]
    ) -> None:
        """Reserve in the database: `amounts` are those of `reserve`.

        Waits a while for the reservations of other requests before it accepts less than what is needed. A request that
        does not wait accepts less only where nothing is held.
        """
        need, minimum, spare = amounts
        patient = exchange.waits_for_money
        until, pause, most = time.monotonic() + _WAIT_SECONDS, _POLL_SECONDS[0], need + spare
        while True:
            last = patient and time.monotonic() >= until
            result = await exchange.wait_for_writer(self._order(grant, budgets, most, minimum if last else need))
            all_there_is = result.balance < need and (patient or result.free >= result.balance)
            if not grant.amount and result.kind and not last and all_there_is:
                result = await exchange.wait_for_writer(self._order(grant, budgets, most, minimum))
            if grant.amount or not result.kind:
                return
            if result.balance < minimum or last or not patient:
                error = quota_error(result, need, minimum)
                if result.kind == "budget":
                    error.renewed_at = self.days.end_of(result.period, exchange.wall)
                raise error
            await self._wait_for_release(grant, pause)
            pause = min(2 * pause, _POLL_SECONDS[1])

    async def _wait_for_release(self, grant: Grant, seconds: float) -> None:
        """Wait until this worker releases an amount, at most this long."""
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
        reservation.pending_orders += 1
        reservation.need = need
        missing = max(0, reservation.headroom - max(0, reservation.spare) - reservation.ordered)
        reservation.ordered += missing

        def on_reserved(result: Reserved | None, wanted: bool) -> None:
            reservation.pending_orders -= 1
            reservation.ordered -= missing
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

        headroom = min(missing, _HEADROOM * need)
        return writer.reserve(
            ReserveOrder(
                reservation.id,
                reservation.owner,
                reservation.scope,
                budgets,
                need,
                headroom,
                minimum,
                missing - headroom,
            ),
            on_reserved,
        )

    def submit(
        self,
        row: UsageRow,
        grant: Grant | None,
        cost: int,
        exchange: Exchange,
        wait: bool,
        rows: Sequence[RowWrite] = (),
    ) -> asyncio.Future[None] | None:
        """Pass a record to the writer, with its charge and the rows that are written in the same commit."""
        return writer.submit(
            row, grant.settlement(exchange.request_id, cost, exchange.wall) if grant is not None else None, wait, rows
        )

    def withdraw(self, row: UsageRow) -> bool:
        """As `UsageWriter.withdraw`."""
        return writer.withdraw(row)

    # -- releasing ---------------------------------------------------------------------------------------------------

    def trim(self, reservation: WorkerReservation) -> None:
        """Release the part of a reservation that exceeds its headroom; all of it once it is closed and idle."""
        if reservation.closed:
            if reservation.idle and reservation in self._closed:
                self._closed.discard(reservation)
                writer.release(reservation.id, reservation.scope)
            return
        # Near the end of a balance there is no headroom. Otherwise the remainder of a burst is released in one piece.
        keep = 0 if reservation.tight else reservation.headroom
        spare = reservation.amount - reservation.granted
        if spare > 4 * keep:
            back = spare - keep
            reservation.amount -= back
            writer.release(reservation.id, reservation.scope, back)
            if reservation.waiters:
                reservation.waiters.popleft().set_result(None)

    def close(self, reservation: WorkerReservation) -> None:
        """Stop granting from a reservation; the remainder is released when its last request has ended."""
        if reservation.closed:
            return
        reservation.closed = True
        self._closed.add(reservation)
        key = (reservation.scope.token_id, reservation.scope.day)
        if self._reservations.get(key) is reservation:
            del self._reservations[key]
        self.trim(reservation)

    def tidy(self) -> None:
        """Called about twice a second: closes idle reservations, and renews the lease on all of them."""
        now = time.monotonic()
        if writer.faults != self._faults:
            self._faults = writer.faults
            for reservation in list(self._reservations.values()):
                self.close(reservation)
            # Releases that were lost in the fault belong to the old name, whose lease now runs out.
            self.owner = new_owner()
        for reservation in [
            reservation
            for reservation in self._reservations.values()
            if reservation.idle and now - reservation.used_at > _IDLE_SECONDS
        ]:
            self.close(reservation)
        if now >= self._prolong_at:
            self._prolong_at = now + RESERVATION_SECONDS / 4
            for owner in {reservation.owner for reservation in (*self._reservations.values(), *self._closed)}:
                writer.prolong(owner)

    def close_all(self) -> None:
        """At the end of the process: release everything."""
        for reservation in [*self._reservations.values(), *self._closed]:
            reservation.running = reservation.pending_orders = 0
            self.close(reservation)
            self.trim(reservation)

    def _open(self, scope: SpendScope) -> WorkerReservation:
        reservation = self._reservations[scope.token_id, scope.day] = WorkerReservation(
            secrets.token_hex(16), self.owner, scope
        )
        return reservation


def quota_error(result: Reserved, need: int, minimum: int) -> InsufficientQuota:
    """The error for a request that cannot be paid for: `minimum` covers a short answer, `need` the longest."""
    what = _SCOPES[result.kind].format(period=result.period)
    if result.kind == "budget":
        what += " of this token" if result.of_token else " of this account"
    left, missing = max(0, result.balance), money.show(need - max(0, result.free))
    if result.free < result.balance and minimum <= result.balance:
        error = InsufficientQuota(
            f"The rest of the {what} is held back for requests that are still running: this one needs up to "
            f"{money.show(need)}, {missing} more than is free. "
            "Try again when they have ended.",
            retry_after=2,
        )
        error.retry = True
        return error
    raised = "the token's owner can raise it on its page" if result.of_token else "the administrator can raise it"
    remedy = {
        "wallet": "Top up, or ask the portal's administrator.",
        "quota": "Its owner can raise the quota on the portal.",
        "budget": f"It is renewed when the period ends; {raised}.",
    }[result.kind]
    up_to = f" (up to {money.show(need)} for the longest answer)" if need > minimum else ""
    missing = money.show(max(1, minimum - left))
    return InsufficientQuota(
        f"The {what} does not cover this request: {money.show(left)} is left, at least {money.show(minimum)} is "
        f"needed{up_to}, {missing} is missing. {remedy}"
    )

"""Checks running requests four times a second: timeouts, keep-alive comments, disconnected clients.

An answer whose client has left is read on for some seconds, so that its usage is known: as many at a time as
`_MAX_LEFT`, beyond which the upstream is closed at once and the usage estimated.

One timer for all requests costs nothing per chunk; a timer per read would cost more than the read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final

from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import CallerState
from relay.gateway.snapshot.snapshot import Snapshot
from relay.tokens.lifecycle import changed_by_owner

TICK: Final = 0.25
_QUICK: Final = 0.1  # seconds; requests younger than this do not listen for a disconnect
_MAX_LEFT: Final = 256  # answers that are read on at the same time after their clients have left


class Watchdog:
    """The running requests of one event loop."""

    def __init__(self, keepalive: float = 15.0) -> None:
        self.running: set[Exchange] = set()
        self.keepalive = keepalive
        self._left: set[Exchange] = set()  # whose clients have left, and whose answers are read on
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.working: set[asyncio.Task[Any]] = set()  # that the stop of the process waits for

    def add(self, exchange: Exchange) -> None:
        self.running.add(exchange)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def remove(self, exchange: Exchange) -> None:
        self.running.discard(exchange)
        self._left.discard(exchange)
        for callback in exchange.at_end:
            callback()
        exchange.at_end.clear()  # the callbacks refer to the exchange: breaks the cycle
        exchange.progress = exchange.rows_for = exchange.early_head = exchange.farewell = None
        if exchange.listener is not None:
            exchange.listener.cancel()
        exchange.listener = exchange.task = None

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick) if self.running else None
        now = time.monotonic()
        for exchange in list(self.running):
            if exchange.listener is None and now - exchange.started > _QUICK:
                exchange.listen(self.on_leave)
            if exchange.early_at and now >= exchange.early_at:
                exchange.start_early()
            told = exchange.ended_by is not None and exchange.left and exchange.begun
            if told and exchange.streaming and exchange.waiting is None:
                exchange.interrupt(Interrupt.TOTAL)  # stuck in a send: the upstream is to be read on
            elif exchange.gone_at and now >= exchange.gone_at and exchange.waiting is not Interrupt.DATABASE:
                exchange.interrupt(Interrupt.CLIENT_GONE)
            elif exchange.waiting is not None:
                if now - exchange.wait_since >= exchange.wait_limit:
                    exchange.interrupt(exchange.waiting)
                elif exchange.total_at and now >= exchange.total_at and exchange.waiting is not Interrupt.DATABASE:
                    exchange.interrupt(Interrupt.TOTAL)
                elif exchange.quiet_since and now - exchange.quiet_since >= self.keepalive:
                    exchange.quiet_since = now
                    self.spawn(exchange.keep_alive())
            elif exchange.total_at and now >= exchange.total_at:
                exchange.interrupt(Interrupt.TOTAL)  # stuck in a send: the client does not read

    def on_leave(self, exchange: Exchange) -> None:
        """The client of a request has left: ends the request, or lets its answer be read on for a while."""
        if len(self._left) < _MAX_LEFT and exchange.leave():
            self._left.add(exchange)
        else:
            exchange.interrupt(Interrupt.CLIENT_GONE)

    def dismiss(self, exchange: Exchange, reason: Interrupt) -> None:
        """End a request as if its client had left: nothing that its user does elsewhere makes an answer free."""
        if not exchange.asked:
            exchange.end(reason)
        elif not (exchange.left or exchange.recorded or exchange.interrupted is not None):
            exchange.ended_by = reason
            self.on_leave(exchange)
            if exchange in self._left:
                self.spawn(exchange.say_farewell())

    def end_lost_plans(self, snapshot: Snapshot) -> None:
        """End requests over users' own plans that were turned off meanwhile, or that they may not use any more."""
        for exchange in list(self.running):
            if exchange.over_plan and exchange.caller is not None and snapshot.has_lost_plan(exchange.caller):
                self.dismiss(exchange, Interrupt.PLAN_OFF)

    def end_revoked(self, digest: str, user_id: int) -> None:
        """End requests of a token, by its digest, or of a user whose token or account serves no more. 0: no user."""
        for exchange in self.running:
            caller = exchange.caller
            if caller is not None and (caller.digest == digest or (user_id and caller.user_id == user_id)):
                self.spawn(self._end_if_revoked(exchange, caller.digest))

    async def _end_if_revoked(self, exchange: Exchange, digest: str) -> None:
        caller = await snapshot_cache.caller(digest)
        state = caller.state(exchange.wall) if caller is not None else CallerState.TOKEN_DISABLED
        if state is CallerState.USER_DISABLED:
            self.dismiss(exchange, Interrupt.USER_DISABLED)
        elif state is CallerState.TOKEN_DISABLED:
            held = exchange.caller
            own = held is not None and await snapshot_cache.in_thread(changed_by_owner, held.token_id, held.user_id)
            self.dismiss(exchange, Interrupt.WITHDRAWN if own else Interrupt.REVOKED)

    def end(self, request_id: str, actor: int | None) -> None:
        """End a running request for a member of staff, whose user id is `actor`. None: it is not known."""
        for exchange in [one for one in self.running if one.request_id == request_id]:
            if exchange.caller is not None and exchange.caller.user_id == actor:  # staff who end their own
                self.dismiss(exchange, Interrupt.CANCELLED)
            else:
                exchange.end(Interrupt.KILLED)

    def cancel(self, request_id: str) -> None:
        """End a running request because its user has cancelled it."""
        for exchange in [one for one in self.running if one.request_id == request_id]:
            self.dismiss(exchange, Interrupt.CANCELLED)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside the requests, and keep a reference to its task until it is done."""
        task = asyncio.ensure_future(work)
        self._keep(task, self._tasks)
        return task

    def work(self, work: Coroutine[Any, Any, None]) -> None:
        """As `spawn`, for what has the time of requests when the process stops, such as background responses."""
        self.keep(asyncio.ensure_future(work))

    def keep(self, task: asyncio.Task[None]) -> None:
        """The same of a task, such as that which reads an answer on whose client's connection is gone."""
        self._keep(task, self.working)

    def _keep(self, task: asyncio.Task[Any], tasks: set[asyncio.Task[Any]]) -> None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def end_tasks(self) -> None:
        """At the end of the process: cancel the tasks beside the requests."""
        tasks = [task for task in (*self._tasks, *self.working) if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)

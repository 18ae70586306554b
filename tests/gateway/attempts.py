"""Requests and tries at channels without a network and without a database, for the tests of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from portal.lib.days import Days
from relay.billing.ledger.lines import SpendScope
from relay.billing.ledger.pending import COLUMNS
from relay.billing.prices import ONE, Price, PriceList
from relay.errors import RelayError
from relay.gateway import pipeline
from relay.gateway.access.admission import Admission
from relay.gateway.attempt import Attempt
from relay.gateway.charging.reservations import Grant, Reservations
from relay.gateway.charging.unseen import UnseenTokens
from relay.gateway.exchange.exchange import Exchange, Message
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.limits.windows import Check
from relay.gateway.record import Record
from relay.gateway.routing.continuity import Continuity
from relay.gateway.routing.health import Health
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Candidate
from relay.gateway.snapshot.views import ModelView, Route
from relay.gateway.watchdog import Watchdog
from tests.gateway.routing.routes import NOW, channel

CALLER = Caller("digest", 2, 1, False, frozenset(), True, True, float("inf"), None, ())


class Books:
    """In the place of the reservations and the writer: money for everybody, and the rows that were submitted."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.refuses: RelayError | None = None  # who asks for money
        self.down: RelayError | None = None  # who waits for a record
        self.asked: Callable[[Exchange], None] = lambda exchange: None
        self.withdraws: list[bool] = []  # whether a record can still be withdrawn, each time
        self.withdrawn: list[dict[str, Any]] = []  # the rows in their place
        self.kept: Sequence[Any] = ()  # the rows that are written with the record

    async def reserve(self, exchange: Exchange, caller: Caller, need: int, minimum: int) -> Grant:
        self.asked(exchange)
        if self.refuses is not None:
            raise self.refuses
        scope = SpendScope(caller.user_id, caller.token_id, Days("UTC").of(exchange.wall))
        return Grant(cast(Reservations, self), scope, True)

    def submit(
        self, row: Sequence[Any], grant: Grant, cost: int, exchange: Exchange, wait: bool, rows: Sequence[Any] = ()
    ) -> asyncio.Future[None] | None:
        self.rows.append(dict(zip(COLUMNS, row, strict=True)))
        self.kept = rows
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.down is not None:
            future.set_exception(self.down)
        else:
            future.set_result(None)
        return future if wait else None

    def withdraw(self, row: Sequence[Any]) -> bool:
        self.withdrawn.append(dict(zip(COLUMNS, row, strict=True)))
        return self.withdraws.pop(0)

    @property
    def row(self) -> dict[str, Any]:
        (row,) = self.rows
        return row


class Run(SimpleNamespace):
    """What a worker owns, as far as a request needs it."""

    def __init__(self) -> None:
        self.health, self.reservations, self.admission = Health("w"), Books(), Admission("")
        self.config = SimpleNamespace(max_attempts=5, retry_seconds=30.0, routing_strategy="weighted")
        self.unseen, self.own_limits = UnseenTokens(), SimpleNamespace(tell=lambda exchange, caller: None)
        self.catalogue_tags = self.own_limits
        self.fallback_price, self.telling, self.stopping = None, False, False
        self.continuity = Continuity()

    def shows_relay_headers(self, exchange: Exchange) -> bool:
        return bool(self.telling)

    def is_cutting_off(self) -> bool:
        return bool(self.stopping)

    @property
    def in_flight(self) -> dict[int, int]:
        found: dict[int, int] = self.health.live.in_flight
        return found


def new_exchange(sent: list[bytes] | None = None) -> Exchange:
    """`sent`: gets what is sent to the client."""

    async def send(message: Message) -> None:
        if sent is not None:
            sent.append(message.get("body", b""))

    return Exchange({"headers": []}, None, send, "127.0.0.1")  # type: ignore[arg-type]  # it receives nothing


def end(exchange: Exchange) -> None:
    """The exchange is over, as the handler says it."""
    Watchdog().remove(exchange)


def request(**more: Any) -> GatewayRequest:
    usual = {"endpoint": "chat.completions", "model": "m", "check_channel": lambda view: None, "output_limit": None}
    return GatewayRequest(**{**usual, **more})


def charge() -> Any:
    """A charge that costs nothing, and remembers how it was finished."""
    found = SimpleNamespace(grant=None, cost=0, upstream_cost=0, price_id=None, multiplier=ONE, reserved=0)
    found.payer, found.billing, found.clamp = "", "nothing", None
    found.sold_at = lambda candidate, tokens: Price()
    found.meter, found.model = lambda exchange: None, model()
    found.finish = lambda *arguments: setattr(found, "finished", arguments)
    return found


def record(run: Run, exchange: Exchange | None = None, **more: Any) -> Record:
    books = cast(Reservations, run.reservations)
    return Record(exchange or new_exchange(), books, request(**more), "m", charge())


def candidate(route: Route | None = None, key: int = 0) -> Candidate:
    route = route or channel(1)
    return Candidate(route, route.channel.keys[key])


def attempt(run: Run, exchange: Exchange | None = None, now: float = NOW, route: Route | None = None) -> Attempt:
    """At channel 1 with key 10 for model 7, unless a route says otherwise."""
    return Attempt(cast(Runtime, run), record(run, exchange), candidate(route), 7, now)


def model(*routes: Route, **more: Any) -> ModelView:
    """A model that is open to everybody and costs nothing."""
    free = PriceList((Price(),))
    return replace(ModelView(7, "m", "", 0, True, None, None, {}, {}, routes or (channel(1),), free), **more)


def publish(monkeypatch: pytest.MonkeyPatch, view: ModelView, checks: tuple[Check, ...] = ()) -> None:
    """A model is all that the portal has; `checks` are the caller's."""
    terms = SimpleNamespace(multiplier=ONE, checks=checks)
    models = {view.name: view}
    snapshot = SimpleNamespace(
        models=models, named=models.get, terms=lambda _: terms, plan_of=lambda _: None, lack_plans=()
    )
    monkeypatch.setattr(pipeline, "snapshot_cache", SimpleNamespace(snapshot=snapshot))

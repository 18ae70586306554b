"""Bytes in memory: of all, and of one owner."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from portal import limits
from relay.errors import RelayUnavailable
from relay.gateway.background import BackgroundRequest
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.limits.memory import MemoryBudget, bodies
from relay.gateway.watchdog import Watchdog
from tests.gateway.attempts import CALLER


def test_all_have_a_limit_and_each_a_share() -> None:
    budget = MemoryBudget(100, 60)
    assert budget.take("a", 60) and not budget.take("a", 1)
    assert budget.take("b", 40) and not budget.take("c", 1)
    budget.give_back("a", 60)
    assert budget.take("c", 60) and budget.used == 100
    budget.give_back("b", 40)
    budget.give_back("c", 60)
    assert budget.used == 0 and not budget._owners


async def test_what_runs_in_the_background_counts_as_long_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "most", 10 * limits.MIB)
    monkeypatch.setattr(bodies, "share", 5 * limits.MIB)
    watchdog, body, before = Watchdog(), b"x" * limits.MIB, bodies.used
    asked = await read([body])
    asked.caller = CALLER
    background = BackgroundRequest(CALLER, body)
    background.hold_body(asked)
    assert bodies.used - before == limits.MIB and not asked.held.size, "once, and not twice"
    watchdog.remove(asked)
    assert bodies.used - before == limits.MIB
    line = BackgroundRequest(CALLER, body)
    await line.read_body(limits.MIB)
    await line.read_body(limits.MIB)
    assert bodies.used - before == 2 * limits.MIB
    small = BackgroundRequest(CALLER, b"x")
    small.hold_body(await read([b"x"]))
    assert small.held.size == limits.UNCOUNTED_BYTES, "no connection bounds their number"
    refused = BackgroundRequest(CALLER, body * 4)
    with pytest.raises(RelayUnavailable):
        await refused.read_body(4 * limits.MIB)
    for exchange in (background, line, small, refused):
        watchdog.remove(exchange)
    assert bodies.used == before


async def read(pieces: list[bytes], ip: str = "192.0.2.1") -> Exchange:
    waiting = [*pieces]

    async def receive() -> Any:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        return

    exchange = Exchange({"headers": []}, receive, send, ip)
    await exchange.read_body(1 << 30)
    return exchange


async def test_a_body_counts_until_its_exchange_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "most", 10 * limits.MIB)
    monkeypatch.setattr(bodies, "share", 5 * limits.MIB)
    watchdog = Watchdog()
    small = await read([b"x" * limits.UNCOUNTED_BYTES])
    large = await read([b"x" * limits.MIB] * 4)
    assert small.held.size == 0 and bodies.used == large.held.size == 4 * limits.MIB
    with pytest.raises(RelayUnavailable) as refused:
        await read([b"x" * limits.MIB] * 2)
    assert refused.value.public_code == "overloaded" and refused.value.retry_after
    other = await read([b"x" * limits.MIB] * 4, "192.0.2.2")
    for exchange in (large, other):
        watchdog.remove(exchange)
        watchdog.remove(exchange)
    await asyncio.sleep(0)
    assert bodies.used == limits.MIB  # of the one that was refused, whose handler has not removed it here
    bodies.give_back("192.0.2.1", limits.MIB)

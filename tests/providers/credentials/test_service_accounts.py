"""Tokens of Google Cloud's service accounts: kept, renewed ahead of their end, asked for once at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from portal.lib.net import Allowance
from relay.providers.credentials.contract import KeyRefused
from relay.providers.credentials.service_account import SERVICE_ACCOUNT, Account, Tokens
from relay.transport.pool import Upstreams
from tests.support.peers.clouds.google_tokens import AUDIENCE, TokenEndpoint, issuing_tokens

HOUR = 3599.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def running() -> Iterator[TokenEndpoint]:
    with issuing_tokens() as endpoint:
        yield endpoint


@pytest.fixture
def endpoint(running: TokenEndpoint) -> Iterator[TokenEndpoint]:
    yield running
    running.answer, running.seconds = None, int(HOUR)
    running.go.set()


@asynccontextmanager
async def way_out() -> AsyncIterator[Any]:
    upstreams = Upstreams(lambda: [Allowance.parse("127.0.0.1")], 4)
    try:
        yield upstreams.transport()
    finally:
        await upstreams.close()


def account_at(endpoint: TokenEndpoint) -> Account:
    signer = SERVICE_ACCOUNT.signer(endpoint.file(), [endpoint.url])
    return signer.account


def run(scenario: Callable[[Any, Tokens, Clock], Coroutine[Any, Any, None]]) -> None:
    async def go() -> None:
        clock = Clock()
        async with way_out() as send:
            await scenario(send, Tokens(clock), clock)

    asyncio.run(go())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # what another thread does has no event here
        await asyncio.sleep(0.01)


def test_a_token_is_kept_and_renewed_ahead_while_nobody_waits(endpoint: TokenEndpoint) -> None:
    account = account_at(endpoint)

    async def scenario(send: Any, tokens: Tokens, clock: Clock) -> None:
        first = await tokens.get("a", account, send)
        clock.now += HOUR - 601
        assert await tokens.get("a", account, send) == first and endpoint.issued[-1] == first
        clock.now += 2
        endpoint.go.clear()
        assert await tokens.get("a", account, send) == first, "while another one is asked for"
        assert await tokens.get("a", account, send) == first
        endpoint.go.set()
        await until(lambda: endpoint.issued[-1] != first)
        await until(lambda: not tokens._running)
        assert await tokens.get("a", account, send) == endpoint.issued[-1]

    run(scenario)


def test_a_renewal_that_fails_leaves_the_token_and_is_tried_again_after_a_pause(endpoint: TokenEndpoint) -> None:
    account = account_at(endpoint)

    async def scenario(send: Any, tokens: Tokens, clock: Clock) -> None:
        first = await tokens.get("a", account, send)
        endpoint.answer = (503, b"")
        clock.now += HOUR - 500
        assert await tokens.get("a", account, send) == first
        await until(lambda: not tokens._running)
        assert await tokens.get("a", account, send) == first and not tokens._running, "not again at once"
        endpoint.answer = None
        clock.now += 16
        assert await tokens.get("a", account, send) == first
        await until(lambda: not tokens._running)
        assert await tokens.get("a", account, send) == endpoint.issued[-1] != first
        endpoint.answer = (503, b"")
        clock.now += HOUR
        with pytest.raises(KeyRefused, match="HTTP 503"):
            await tokens.get("a", account, send)

    run(scenario)


def test_who_leaves_does_not_end_the_exchange_of_others(endpoint: TokenEndpoint) -> None:
    account = account_at(endpoint)

    async def scenario(send: Any, tokens: Tokens, clock: Clock) -> None:
        before = len(endpoint.issued)
        endpoint.go.clear()
        leaving, staying = (asyncio.ensure_future(tokens.get("a", account, send)) for _ in range(2))
        await until(lambda: bool(tokens._running))
        leaving.cancel()
        endpoint.go.set()
        assert await staying == endpoint.issued[-1] and len(endpoint.issued) == before + 1
        assert leaving.cancelled()

    run(scenario)


def test_a_refused_token_is_dropped_unless_it_is_new(endpoint: TokenEndpoint) -> None:
    account = account_at(endpoint)

    async def scenario(send: Any, tokens: Tokens, clock: Clock) -> None:
        first = await tokens.get("a", account, send)
        assert not tokens.drop("a", first), "it is new: another one would be refused as well"
        clock.now += 61
        assert tokens.drop("a", first)
        second = await tokens.get("a", account, send)
        assert second != first
        clock.now += 61
        assert tokens.drop("a", first) and await tokens.get("a", account, send) == second, "another request's"

    run(scenario)


def test_the_claim_is_what_google_asks_for(endpoint: TokenEndpoint) -> None:
    account = account_at(endpoint)

    async def scenario(send: Any, tokens: Tokens, clock: Clock) -> None:
        await tokens.get("a", account, send)

    run(scenario)
    claims = endpoint.claims[-1]
    assert claims["exp"] - claims["iat"] == 3600 and claims["aud"] == AUDIENCE
    assert "PRIVATE" not in repr(account)

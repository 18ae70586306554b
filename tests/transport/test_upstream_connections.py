"""How many connections to upstreams a worker holds, and what becomes of requests that find none free."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from portal import limits
from portal.lib.net import Allowance
from relay.errors import RelayUnavailable
from relay.gateway.upstream import connection_failure, most_connections
from relay.transport.body import post, request_headers
from relay.transport.pool import Upstreams
from tests.support.asserts import check, until
from tests.support.portal import Portal, ask
from tests.support.server import Server, serving
from tests.support.upstream import Call, Upstream, hello


@pytest.fixture
def crowded(tmp_path: Path, upstream: Upstream) -> Iterator[Server]:
    """A worker that may hold one connection."""
    with serving(tmp_path / "log", env={"AIRELAYS_UPSTREAM_CONNECTIONS": "1"}) as server:
        yield server


def test_a_request_that_gets_no_connection_is_told_so_and_counted(crowded: Server, live: Portal) -> None:
    go = threading.Event()

    async def held(call: Call) -> None:
        await asyncio.to_thread(go.wait, 60)
        await hello(call)

    token, model = live.token(), live.model(held)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(crowded.post, token, ask(model))
        until(lambda: live.upstream.count(model) == 1)
        refused = crowded.post(token, ask(live.model(hello)))
        check(refused, 503, "server_error", "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        go.set()
        assert first.result().status_code == 200
    assert crowded.post(token, ask(live.model(hello))).status_code == 200
    assert "none of 1 connections became free in 5 s" in crowded.log.read_text()


async def test_only_so_many_wait(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_WAITING", 1)
    upstreams = Upstreams(lambda: [Allowance.parse("127.0.0.1")], 1)
    done = asyncio.Event()
    asked = asyncio.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await done.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(held, "127.0.0.1", 0) as server:
        url = httpx.URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        send = upstreams.transport().handle_async_request
        headers = request_headers({})
        first = asyncio.ensure_future(send(post(url, headers, b"{}", 5)))
        await asked.wait()
        second = asyncio.ensure_future(send(post(url, headers, b"{}", 5)))
        while not upstreams.counts()["upstream_waiting"]:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)
        with pytest.raises(httpx.PoolTimeout) as told:
            await send(post(url, headers, b"{}", 5))
        assert upstreams.counts() == {
            "upstream_connections": 1, "upstream_most": 1, "upstream_waiting": 1, "upstream_refused": 1,
        }  # fmt: skip
        with pytest.raises(RelayUnavailable) as shown:
            connection_failure(told.value)
        assert (shown.value.http_status, shown.value.retry_after) == (503, 2)
        done.set()
        for answer in await asyncio.gather(first, second):
            assert json.loads(await answer.aread()) == {}
        assert upstreams.counts()["upstream_waiting"] == 0
        await upstreams.close()


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "most", "said"),
    [
        (256, 1024, 2000, 480, True),
        (1024, 65_536, 2000, 2000, False),
        (64, 64, 2000, 16, True),
        (65_536, 65_536, 40_000, 32_736, True),
    ],
)
def test_the_limit_follows_that_of_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, soft: int, hard: int, wanted: int, most: int,
    said: bool,
) -> None:  # fmt: skip
    now = [soft, hard]

    def raised(_: int, limit: tuple[int, int]) -> None:
        now[:] = limit

    get: Callable[[int], tuple[int, int]] = lambda _: (now[0], now[1])  # noqa: E731
    monkeypatch.setattr(resource, "getrlimit", get)
    monkeypatch.setattr(resource, "setrlimit", raised)
    with caplog.at_level(logging.WARNING, "relay.gateway.upstream"):
        assert most_connections(wanted) == most
    assert now[0] == hard and bool(caplog.records) == said
    if said:
        assert f"at most {most} connections to upstreams, not UPSTREAM_CONNECTIONS={wanted}" in caplog.text

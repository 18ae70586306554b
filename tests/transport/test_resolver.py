"""The address guard on the request path."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from portal import limits
from portal.lib import net
from relay.transport import resolver
from relay.transport.pool import Upstreams
from relay.transport.resolver import ConnectRefused
from relay.transport.transport import UpstreamTransport
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server, serving
from tests.support.upstream import Upstream


def test_channel_with_an_internal_address_is_never_used(server: Server, live: Portal) -> None:
    """However it got into the database."""
    for url in ("http://10.0.0.1/v1", "http://169.254.169.254/latest", "http://[::1]:80/v1", "http://0x7f000001/v1"):
        response = server.post(live.token(), ask(live.model(channels=[live.channel(url)])))
        check(response, 503, "server_error", "no_available_channel")


def test_guard_looks_at_the_address_that_a_name_stands_for_when_it_connects(live: Portal, tmp_path: Path) -> None:
    """`localhost` passes as a name; of its two ports only the permitted one is ever connected to."""
    inner = Upstream()
    try:
        with serving(tmp_path / "log", env={"AIRELAYS_UPSTREAM_ALLOW": f"127.0.0.1:{live.upstream.port}"}) as guarded:
            permitted = live.model(channels=[live.channel(f"http://localhost:{live.upstream.port}/v1")])
            refused = live.model(channels=[live.channel(f"http://localhost:{inner.port}/v1")])
            token = live.token()
            assert guarded.post(token, ask(permitted)).status_code == 200
            response = guarded.post(token, ask(refused))
            assert "not permitted" in check(response, 502, "server_error", "upstream_error")
            assert inner.calls == [] and "may not use" in live.record(response).attempt_log[0]["detail"]
    finally:
        inner.stop()


class Inside(HTTPServer):
    """A service of the internal network, which notes who comes; at /away it sends them to `elsewhere`."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.elsewhere = ""
        super().__init__(("127.0.0.1", 0), InsideHandler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class InsideHandler(BaseHTTPRequestHandler):
    server: Inside

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.send_response(302 if self.path == "/away" else 200)
        if self.path == "/away":
            self.send_header("location", self.server.elsewhere)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def inside() -> Iterator[tuple[Inside, Inside]]:
    """A permitted service, and one that is not."""
    servers = Inside(), Inside()
    threads = [threading.Thread(target=one.serve_forever, daemon=True) for one in servers]
    for thread in threads:
        thread.start()
    yield servers
    for one, thread in zip(servers, threads, strict=True):
        one.shutdown()
        one.server_close()
        thread.join()


def test_the_guard_looks_at_addresses_that_are_written_out(inside: tuple[Inside, Inside]) -> None:
    """On every transport, whoever checked the URL before: aiohttp asks its resolver for names only."""
    permitted, refused = inside
    allowed = (net.Allowance.parse(f"127.0.0.1:{permitted.server_port}"),)

    async def run() -> None:
        upstreams = Upstreams(lambda: allowed, 4)
        transport = upstreams.transport()
        async with httpx.AsyncClient(transport=transport) as client:
            assert (await client.get(f"{permitted.url}/")).status_code == 200
            for url in (refused.url, f"http://[::ffff:127.0.0.1]:{refused.server_port}", "http://169.254.169.254"):
                with pytest.raises(ConnectRefused):
                    await client.get(url)
            assert isinstance(transport, UpstreamTransport)
            with pytest.raises(aiohttp.ClientConnectorError):
                await transport.connect_socket(refused.url.replace("http", "ws"), {}, 5)
        await upstreams.close()

    asyncio.run(run())
    assert (permitted.paths, refused.paths) == (["/"], [])


def test_no_transport_follows_a_redirect(inside: tuple[Inside, Inside]) -> None:
    permitted, refused = inside
    allowed = (net.Allowance.parse("127.0.0.1"),)  # not even to an address that is permitted
    permitted.elsewhere = f"{refused.url}/internal"

    async def run() -> None:
        upstreams = Upstreams(lambda: allowed, 4)
        transport = upstreams.transport()
        assert isinstance(transport, UpstreamTransport)
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            await transport.connect_socket(f"{permitted.url}/away".replace("http", "ws"), {}, 5)
        assert raised.value.status == 302
        response = await transport.handle_async_request(httpx.Request("GET", f"{permitted.url}/away"))
        assert response.status_code == 302
        await upstreams.close()

    asyncio.run(run())
    assert permitted.paths == ["/away", "/away"] and refused.paths == []


async def test_a_name_server_that_hangs_is_an_error_in_time_and_keeps_no_thread_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        go.wait()
        return []

    monkeypatch.setattr(limits, "NAME_SECONDS", 0.05)
    monkeypatch.setattr("socket.getaddrinfo", hang)
    guarded = resolver.GuardedResolver(lambda: ())
    try:
        for _ in range(40):
            with pytest.raises(OSError, match="was not resolved within"):
                await guarded.resolve("ai.example.org", 443)
        assert await asyncio.to_thread(lambda: "free") == "free"
    finally:
        go.set()


def test_names_are_resolved_as_aiohttp_wants_them() -> None:
    (found, *_) = resolver.look_up("localhost", 443, socket.AF_INET)
    assert (found["hostname"], found["host"], found["port"], found["family"]) == (
        "localhost",
        "127.0.0.1",
        443,
        socket.AF_INET,
    )

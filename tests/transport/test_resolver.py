"""The address guard on the request path."""

from __future__ import annotations

from pathlib import Path

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

"""What is asked of every request on every path, before any other code: from where it comes; and its line in the log."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings

from portal.lib import net
from portal.lib.ids import time_ordered_hex
from portal.serving.logs.access import logged
from relay.api.error_shapes import shape_of
from relay.api.paths import is_gemini, relay_path
from relay.errors import Forbidden
from relay.gateway.exchange.exchange import AsgiScope, Receive, Send

# IANA's registries of what is not part of the Internet: this machine, private networks, networks of carriers, links.
_LOOPBACK: Final = net.parse_networks(("127.0.0.0/8", "::1"))
_PRIVATE: Final = _LOOPBACK + net.parse_networks(
    ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7", "fe80::/10")
)
_SCOPES: Final = {
    "loopback": (
        _LOOPBACK,
        "client_not_on_this_machine",
        "This relay answers programs on its own machine only (network_scope=loopback).",
    ),
    "private": (
        _PRIVATE,
        "client_not_on_private_network",
        "This relay answers clients on private networks only (network_scope=private).",
    ),
}


def entrance(app: Any) -> Any:
    """The application behind its entrance; itself where the settings ask for nothing there."""
    config = settings.CONFIG
    return Entrance(app, config.access_log) if config.access_log or config.network_scope != "any" else app


def restricted(app: Any) -> Any:
    """The application behind the setting of who may come in, without a line in the log for each request."""
    return Entrance(app, logged=False) if settings.CONFIG.network_scope != "any" else app


class Entrance:
    def __init__(self, app: Any, logged: bool) -> None:
        self._app = app
        self._scope = settings.CONFIG.network_scope
        self._logged, self._share = logged, settings.CONFIG.access_log_sample
        self._trusted = settings.TRUSTED_PROXIES

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        peer = (scope.get("client") or ("", 0))[0]
        forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        ip = net.client_ip(peer, forwarded.decode("latin-1"), self._trusted)
        if self._logged:
            await logged(self._let_in, ip, self._share, scope, receive, send)
        else:
            await self._let_in(scope, receive, send, ip)

    async def _let_in(self, scope: AsgiScope, receive: Receive, send: Send, ip: str) -> None:
        refusal = refused(self._scope, ip)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer(refusal, scope, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: servers answer with 403


def refused(scope: str, ip: str) -> Forbidden | None:
    """Why a client may not come in from its address; an address that cannot be read is nobody's. None if it may."""
    if scope == "any":
        return None
    networks, code, message = _SCOPES[scope]
    address = net.parse_address(ip)
    if address is not None and net.inside(address, networks):
        return None
    return Forbidden(message, code=code)


async def _answer(refusal: Forbidden, scope: AsgiScope, send: Send) -> None:
    path, request_id = scope["path"], "req_" + time_ordered_hex()
    shape = shape_of(relay_path(path) or path, dict(scope["headers"]), is_gemini(path))
    body = shape.body(refusal, request_id)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": refusal.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

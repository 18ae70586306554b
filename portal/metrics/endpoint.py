"""`GET /metrics`, on the portal's own port or on one of its own, for who has the token."""

from __future__ import annotations

import asyncio
import hmac
from typing import Final

from django.conf import settings

from portal.metrics.exposition import OPENMETRICS, PLAIN, Exposition
from portal.metrics.installed import PATH, installed
from portal.metrics.samples import all_samples
from portal.metrics.upstreams import UpstreamReader
from relay.gateway.exchange.exchange import AsgiScope, Receive, Send

_CHALLENGE: Final = (b"www-authenticate", b'Bearer realm="metrics"')
_TEXT: Final = "text/plain; charset=utf-8"


class Scrapes:
    """Answers scrapes. However many come at once, the text is made once for all of them."""

    def __init__(self) -> None:
        self._exposition = Exposition()
        self._upstreams = UpstreamReader()
        self._making: dict[bool, asyncio.Task[bytes]] = {}

    async def text(self, openmetrics: bool) -> bytes:
        making = self._making.get(openmetrics)
        if making is None or making.done():
            making = self._making[openmetrics] = asyncio.ensure_future(self._make(openmetrics))
        return await asyncio.shield(making)

    async def _make(self, openmetrics: bool) -> bytes:
        upstreams = await self._upstreams.upstreams()
        memory = installed.memory
        if memory is None:
            return b""
        # Beside the requests: it takes some milliseconds.
        return await asyncio.to_thread(
            lambda: self._exposition.text(all_samples(memory, upstreams, settings.VERSION), openmetrics)
        )


_scrapes: Final[dict[asyncio.AbstractEventLoop, Scrapes]] = {}


def _of_this_loop() -> Scrapes:
    loop = asyncio.get_running_loop()
    if loop not in _scrapes:
        _scrapes.clear()
        _scrapes[loop] = Scrapes()
    return _scrapes[loop]


async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
    """Answer a scrape, or say why not."""
    if scope["type"] != "http":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    if scope["path"] != PATH:
        await _say(scope, send, 404, f"There is only {PATH} here.")
    elif scope["method"] not in ("GET", "HEAD"):
        await _say(scope, send, 405, "Use GET.", (b"allow", b"GET, HEAD"))
    elif (fault := _fault_of(dict(scope["headers"]).get(b"authorization", b""))) is not None:
        await _say(scope, send, 401, *fault)
    elif installed.memory is None:
        await _say(scope, send, 503, "The portal is starting, or cannot read its database.", (b"retry-after", b"5"))
    else:
        accepted = dict(scope["headers"]).get(b"accept", b"")
        openmetrics = b"application/openmetrics-text" in accepted
        body = await _of_this_loop().text(openmetrics)
        await _send(scope, send, 200, OPENMETRICS if openmetrics else PLAIN, body)


def _fault_of(authorization: bytes) -> tuple[str, tuple[bytes, bytes]] | None:
    """What is wrong with the token that a request has: a sentence and a header; None if it may read the metrics."""
    token = settings.CONFIG.metrics_token.encode()
    if not token:
        return None  # on a port that only this machine reaches
    scheme, _, given = authorization.partition(b" ")
    if scheme.lower() != b"bearer" or not given.strip():
        return "Send the token of the metrics (METRICS_TOKEN) as: Authorization: Bearer …", _CHALLENGE
    if hmac.compare_digest(given.strip(), token):
        return None
    return "This is not the token of the metrics (METRICS_TOKEN).", (
        _CHALLENGE[0], _CHALLENGE[1] + b', error="invalid_token"',
    )  # fmt: skip


async def _say(scope: AsgiScope, send: Send, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
    await _send(scope, send, status, _TEXT, f"{text}\n".encode(), *headers)


async def _send(scope: AsgiScope, send: Send, status: int, kind: str, body: bytes, *more: tuple[bytes, bytes]) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

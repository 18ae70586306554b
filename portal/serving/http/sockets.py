"""Websockets on the paths of the relay."""

from __future__ import annotations

from typing import Any, Final

from relay.api.consumers import RealtimeConsumer
from relay.gateway.exchange.exchange import AsgiScope, Receive, Send

# The websockets of apps, by their path.
relay_sockets: Final[dict[str, Any]] = {
    "/v1/realtime": RealtimeConsumer.as_asgi(),  # type: ignore[no-untyped-call]
}
_NOT_HERE: Final = (
    b'{"error":{"message":"This portal does not serve websockets here. Use HTTP.",'
    b'"type":"invalid_request_error","param":null,"code":"upgrade_required"}}'
)


async def relay_socket(path: str, scope: AsgiScope, receive: Receive, send: Send) -> None:
    """Serve a websocket on a path of the relay, or refuse it."""
    if path in relay_sockets:
        await relay_sockets[path](scope, receive, send)
        return
    await receive()
    # Clients that try a websocket first fall back to HTTP at once on 426; on 404 or 501 they wait for seconds.
    if "websocket.http.response" in scope.get("extensions", {}):
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(_NOT_HERE)),
            (b"upgrade", b"HTTP/1.1"),
        ]
        await send({"type": "websocket.http.response.start", "status": 426, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": _NOT_HERE})
    else:
        await send({"type": "websocket.close", "code": 1008})

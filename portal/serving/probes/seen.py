"""Answers the check of a deployment: what the portal sees of a request, a stream, an upload, a websocket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from django.conf import settings

from portal.doctor.deployment import question
from relay.gateway.exchange.exchange import AsgiScope, Receive, Send

_JSON = b"application/json"


async def answer(purpose: str, scope: AsgiScope, receive: Receive, send: Send) -> None:
    """Answer a question whose signature was verified, over HTTP. A body is counted, and not kept."""
    if purpose == "stream":
        await _begin(send, 200, b"text/event-stream", [(b"cache-control", b"no-cache")])
        for number in range(question.PARTS):
            await asyncio.sleep(question.PAUSE_SECONDS if number else 0)
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    received, most = 0, settings.CONFIG.max_body_bytes
    while purpose == "upload":
        message: Any = await receive()
        received += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body") or received > most:
            break
    body = json.dumps({**question.seen(scope), "received": received}).encode()
    headers = [(b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await _begin(send, 200, _JSON, headers)
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def answer_socket(receive: Receive, send: Send) -> None:
    """Accept a websocket, send one message, and close it."""
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "open"})
    await send({"type": "websocket.close", "code": 1000})


async def _begin(send: Send, status: int, kind: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *headers]})

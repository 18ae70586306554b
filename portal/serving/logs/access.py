"""The access log: a line for each request, without anything that the client keeps secret."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from portal.lib.redaction.paths import shown_path
from relay.gateway.access.authentication import callers_seen
from relay.gateway.exchange.exchange import AsgiScope, Receive, Send
from relay.gateway.replies import RESPONSE

LOGGER: Final = "airelays.access"
_log: Final = logging.getLogger(LOGGER)
_LEFT: Final = 499  # as nginx writes it: the client went before an answer had begun
_UPGRADED: Final = 101


async def logged(app: Any, ip: str, scope: AsgiScope, receive: Receive, send: Send) -> None:
    """Serve a request, and write its line when it has ended, however it does."""
    began = time.monotonic()
    status = size = 0

    async def counted(message: Any) -> None:
        nonlocal status, size
        kind = message["type"]
        if kind in {"http.response.start", "websocket.http.response.start", RESPONSE}:
            status = message["status"]
        elif kind == "websocket.accept":
            status = _UPGRADED
        elif kind == "websocket.close" and not status:
            status = 403
        size += len(message.get("body") or message.get("bytes") or message.get("text") or "")
        await send(message)

    seen: list[str] = []
    known = callers_seen.set(seen)
    try:
        await app(scope, receive, counted, ip)
    finally:
        callers_seen.reset(known)
        entry: dict[str, str | int] = {
            "client": ip,
            "token": seen[-1] if seen else "",
            "method": scope.get("method", "GET"),
            "path": shown_path(scope["path"]),
            "status": status or _LEFT,
            "ms": round((time.monotonic() - began) * 1000),
            "bytes": size,
        }
        token = f'"{_printable(str(entry["token"]))}"' if entry["token"] else "-"
        _log.info(
            "%s %s %s %s %d %dms %dB", ip or "-", token, entry["method"], entry["path"], entry["status"], entry["ms"],
            size, extra={"access": entry},
        )  # fmt: skip


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() and character != '"' else "?" for character in text)

"""The access log: a line for each request, without anything that the client keeps secret.

What it says of requests to /v1 comes from their exchange, of which it hears in `exchanges_seen`.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any, Final

from portal.lib.redaction.paths import shown_path
from portal.lib.redaction.redact import redact
from relay.errors import RelayUnavailable
from relay.gateway.access.authentication import callers_seen, exchanges_seen
from relay.gateway.exchange.exchange import AsgiScope, Exchange, Receive, Send
from relay.gateway.replies import RESPONSE
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller

LOGGER: Final = "airelays.access"
_log: Final = logging.getLogger(LOGGER)
_LEFT: Final = 499  # as nginx writes it: the client went before an answer had begun
_UPGRADED: Final = 101
_FAILED: Final = 500  # as servers answer when the application raises
_ID: Final = b"x-request-id"


async def logged(app: Any, ip: str, share: float, scope: AsgiScope, receive: Receive, send: Send) -> None:
    """Serve a request, and write its line when it has ended, however it does.

    `share`: of requests that succeed, which have a line.
    """
    began = time.monotonic()
    status = size = 0
    request_id = ""

    async def counted(message: Any) -> None:
        nonlocal status, size, request_id
        kind = message["type"]
        if kind in {"http.response.start", "websocket.http.response.start", RESPONSE}:
            status = message["status"]
            request_id = next((value.decode() for name, value in message["headers"] if name == _ID), "")
        elif kind == "websocket.accept":
            status = _UPGRADED
        elif kind == "websocket.close" and not status:
            status = 403
        size += len(message.get("body") or message.get("bytes") or message.get("text") or "")
        await send(message)

    seen: list[Caller] = []
    exchanges: list[tuple[Exchange, dict[str, Any]]] = []
    known, of_exchanges = callers_seen.set(seen), exchanges_seen.set(exchanges)
    try:
        await app(scope, receive, counted, ip)
    except Exception:
        status = status or _FAILED
        raise
    finally:
        callers_seen.reset(known)
        exchanges_seen.reset(of_exchanges)
        status = status or _LEFT
        if status >= 400 or share >= 1 or random.random() < share:  # noqa: S311  # a sample
            entry: dict[str, str | int] = {
                "client": ip,
                "token": seen[-1].token_name if seen else "",
                "method": scope.get("method", "GET"),
                "path": shown_path(scope["path"]),
                "status": status,
                "ms": round((time.monotonic() - began) * 1000),
                "bytes": size,
                **_about(request_id, seen[-1] if seen else None, *(exchanges[-1] if exchanges else (None, {}))),
            }
            token = f'"{_printable(str(entry["token"]))}"' if entry["token"] else "-"
            _log.info(
                "%s %s %s %s %d %dms %dB %s", ip or "-", token, entry["method"], entry["path"], status, entry["ms"],
                size, entry.get("request_id", "-"), extra={"access": entry},
            )  # fmt: skip


def _about(
    request_id: str, caller: Caller | None, exchange: Exchange | None, progress: dict[str, Any]
) -> dict[str, str | int]:
    """What else is known of a request. Ids of users and tokens say nothing without the database."""
    found: dict[str, str | int] = {}
    if request_id or exchange is not None:
        found["request_id"] = request_id or (exchange.request_id if exchange is not None else "")
    if caller is not None:
        found["user_id"], found["token_id"] = caller.user_id, caller.token_id
    if exchange is not None:
        # Of models that there are not, clients may write anything.
        model = str(progress.get("model") or _known(exchange.model_asked or exchange.model_in_path))
        if model:
            found["model"] = redact(_printable(model))
        if exchange.trace is not None:
            found["trace_id"] = exchange.trace.trace_id
        if progress.get("channel"):
            found["channel"] = str(progress["channel"])
            found["attempts"] = int(progress["attempts"])
    return found


def _known(model: str) -> str:
    """The name of a model in the catalogue; empty if it is none."""
    try:
        return model if model in snapshot_cache.snapshot.models else ""
    except RelayUnavailable:
        return ""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() and character != '"' else "?" for character in text)

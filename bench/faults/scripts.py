"""What faulty upstreams do: a script for each fault, for the real server of `tests.support.upstream`."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any, Final

from tests.support.upstream import USAGE, Call, Script, chunk, completion, hello

WAIT: Final = 40  # seconds that the upstream asks to wait, in every form


def answer_with(
    status: int, body: object = None, headers: dict[str, str] | Callable[[], dict[str, str]] | None = None
) -> Script:
    async def script(call: Call) -> None:
        sent = headers() if callable(headers) else headers
        await call.reply(
            status,
            {"error": {"message": "mock fault", "type": "mock_error", "param": None, "code": "mock"}}
            if body is None
            else body,
            sent,
        )

    return script


def answer_error(
    status: int,
    code: str,
    message: str = "mock fault",
    headers: dict[str, str] | Callable[[], dict[str, str]] | None = None,
    **more: Any,
) -> Script:
    return answer_with(
        status, {"error": {"message": message, "type": "mock_error", "param": None, "code": code, **more}}, headers
    )


async def reset(call: Call) -> None:
    call.cut()


async def silent(call: Call) -> None:
    await call.closed_event()


async def stall(call: Call) -> None:
    await call.open_stream()
    await call.event(chunk("Hello"))
    await call.closed_event()


async def cut_mid_stream(call: Call) -> None:
    await call.open_stream()
    await call.event(chunk("Hello"))
    await asyncio.sleep(0.05)
    call.cut()


async def end_without_terminal(call: Call) -> None:
    await call.open_stream()
    await call.event(chunk("Hello"))
    await call.end()


async def cut_after_terminal(call: Call) -> None:
    await call.open_stream()
    for word in ("Hello", " there", "."):
        await call.event(chunk(word))
    await call.event(chunk(None, "stop"))
    await call.event("[DONE]")
    await asyncio.sleep(0.05)
    call.cut()


async def error_mid_stream(call: Call) -> None:
    await call.open_stream()
    await call.event(chunk("Hello"))
    await call.event({"error": {"message": "mock fault in the stream", "type": "server_error", "code": "mock"}})
    await call.end()


async def error_as_first_event(call: Call) -> None:
    await call.open_stream()
    await call.event({"error": {"message": "mock fault in the stream", "type": "server_error", "code": "mock"}})
    await call.end()


async def malformed_event(call: Call) -> None:
    await call.open_stream()
    await call.event(chunk("Hello"))
    await call.event('{"id": "chatcmpl-x", "choices": [{')
    for word in (" there", "."):
        await call.event(chunk(word))
    await call.event(chunk(None, "stop"))
    await call.event("[DONE]")
    await call.end()


async def split_utf8(call: Call) -> None:
    await call.open_stream()
    data = b"data: " + json.dumps(chunk("Grüße, 世界 🌍"), ensure_ascii=False).encode() + b"\n\ndata: [DONE]\n\n"
    for position in range(0, len(data), 3):
        await call.send(data[position : position + 3])
        await asyncio.sleep(0.001)
    await call.end()


async def huge_event(call: Call) -> None:
    await call.open_stream()
    data = b"data: " + json.dumps(chunk("x" * 20_000_000)).encode() + b"\n\n"
    for position in range(0, len(data), 1 << 20):
        await call.send(data[position : position + (1 << 20)])
    await call.event("[DONE]")
    await call.end()


async def gzip_cut(call: Call) -> None:
    data = gzip.compress(json.dumps(completion()).encode())
    await call.raw(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: "
        f"{len(data)}\r\n\r\n".encode()
        + data[: len(data) // 2]
    )
    call.cut()


async def plain_cut(call: Call) -> None:
    data = json.dumps(completion()).encode()
    await call.raw(
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode()
        + data[: len(data) // 2]
    )
    await asyncio.sleep(0.05)
    call.cut()


async def endless(call: Call) -> None:
    await call.open_stream()
    while True:
        await call.event(chunk("word " * 200))
        await asyncio.sleep(0)


async def slow_stream(call: Call) -> None:
    await call.open_stream()
    while True:
        await call.event(chunk("word "))
        await asyncio.sleep(0.05)


async def half_a_plain_answer(call: Call) -> None:
    data = json.dumps(completion()).encode()
    await call.raw(
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode()
        + data[:100]
    )
    await call.closed_event()


async def healthy(call: Call) -> None:
    if call.json.get("stream"):
        await call.open_stream()
        for word in ("Hello", " there", "."):
            await call.event(chunk(word))
        await call.event(chunk(None, "stop"))
        await call.event({**chunk(), "choices": [], "usage": USAGE})
        await call.event("[DONE]")
        await call.end()
    else:
        await hello(call)


def _date() -> dict[str, str]:
    return {"retry-after": formatdate(time.time() + WAIT, usegmt=True)}


def _rfc3339() -> dict[str, str]:
    at = datetime.fromtimestamp(time.time() + WAIT, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": at}


RESETS: Final[dict[str, Script]] = {
    "retry-after": answer_error(429, "rate_limit_exceeded", headers={"retry-after": str(WAIT)}),
    "retry-after-ms": answer_error(429, "rate_limit_exceeded", headers={"retry-after-ms": str(WAIT * 1000)}),
    "HTTP date": answer_error(429, "rate_limit_exceeded", headers=_date),
    "Go duration": answer_error(
        429,
        "rate_limit_exceeded",
        headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": f"0m{WAIT}s"},
    ),
    "RFC 3339": answer_error(429, "rate_limit_error", headers=_rfc3339),
    "epoch": answer_error(
        429, "rate_limit_exceeded", headers=lambda: {"x-ratelimit-reset": str(int((time.time() + WAIT) * 1000))}
    ),
    "words": answer_error(429, "rate_limit_exceeded", f"Rate limit reached. Please try again in {WAIT}.0s."),
    "RetryInfo": answer_with(
        429,
        {
            "error": {
                "code": 429,
                "message": "mock fault",
                "status": "RESOURCE_EXHAUSTED",
                "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{WAIT}s"}],
            }
        },
    ),
}

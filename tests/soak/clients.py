"""Clients of the long test as a process of their own: `python -m tests.soak.clients URL TOKEN MODEL --connections 500
--seconds 60`. Prints one JSON object.

Each sends one stream after the other; one of five leaves in the middle. A stream that ends is either whole, or says in
an error event why not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from urllib.parse import urlsplit

import uvloop


async def one(host: str, port: int, request: bytes) -> str:
    """How one stream ended, in a word."""
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
    leaves = random.uniform(0.05, 5) if random.random() < 0.2 else 60.0
    data = b""
    try:
        writer.write(request)
        async with asyncio.timeout(leaves):
            while piece := await reader.read(65536):
                data += piece
    except TimeoutError:
        return "left" if leaves < 60 else "hung"
    finally:
        writer.transport.abort()
    status = data.split(b" ", 2)[1].decode() if data.startswith(b"HTTP/1.1 ") else "no answer"
    if status != "200":
        return f"status {status}" if b'"error"' in data else f"status {status} without a reason"
    if not data.endswith(b"0\r\n\r\n"):
        return "cut off"
    if b"data: [DONE]" in data:
        return "whole" if b'"error":' not in data else "an error and [DONE]"
    return "error event" if b'"error":' in data else "ended without a word"


async def run(options: argparse.Namespace) -> dict[str, object]:
    parts = urlsplit(options.url)
    body = json.dumps(
        {"model": options.model, "stream": True, "messages": [{"role": "user", "content": "Say something. " * 10}]}
    ).encode()
    request = (
        f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\nauthorization: Bearer "
        f"{options.token}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    until = time.monotonic() + options.seconds
    ended: Counter[str] = Counter()

    async def client() -> None:
        await asyncio.sleep(random.uniform(0, 3))
        while time.monotonic() < until:
            try:
                ended[await one(parts.hostname or "", parts.port or 80, request)] += 1
            except OSError as error:
                ended[f"{type(error).__name__}"] += 1
            if options.once:
                return

    await asyncio.gather(*(client() for _ in range(options.connections)))
    return dict(ended.most_common())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("token")
    parser.add_argument("model")
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--once", action="store_true", help="one stream each")
    print(json.dumps(uvloop.run(run(parser.parse_args()))))

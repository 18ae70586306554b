"""A load generator in a separate process: `python -m tests.support.load.generator URL CASE --connections N --requests
M`. Prints one JSON object.

Every answer is checked completely: the status, the body, every event of a stream in order and its end marker. An answer
that differs counts as an error, and the run exits with 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import uvloop

from tests.support.load.upstream import CHUNKS, PACE

EXPECTED_WORDS = [f"word{i} " for i in range(CHUNKS - 1)]


class Connection:
    """One keep-alive connection that sends requests one after another."""

    def __init__(self, host: str, port: int, request: bytes, case: str) -> None:
        self.host, self.port, self.request, self.case = host, port, request, case

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)

    async def one(self) -> tuple[float, float, list[float]]:
        """Send one request; returns the total seconds, those to the first byte of the body, and the gaps between
        chunks.

        Raises ValueError.
        """
        began = time.perf_counter()
        self.writer.write(self.request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status = head.split(b" ", 2)[1]
        lower = head.lower()
        if status != b"200":
            raise ValueError(f"status {status.decode()}")
        gaps: list[float] = []
        if b"content-length:" in lower:
            length = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            body = await self.reader.readexactly(length)
            first = last = time.perf_counter()
        else:
            pieces: list[bytes] = []
            first = last = 0.0
            while True:
                size = int((await self.reader.readline()).split(b";")[0], 16)
                piece = (await self.reader.readexactly(size + 2))[:-2]
                if size == 0:
                    break
                now = time.perf_counter()
                if first:
                    gaps.append(now - last)
                first, last = first or now, now
                pieces.append(piece)
            body = b"".join(pieces)
        ended = time.perf_counter()
        check(self.case, body)
        if b"connection: close" in lower:
            self.writer.close()
            await self.open()
        return ended - began, first - began, gaps


def check(case: str, body: bytes) -> None:
    """Raises ValueError unless the answer is complete and correct."""
    if case == "plain":
        answer = json.loads(body)
        if (
            answer["choices"][0]["message"]["content"] != "lorem ipsum " * 30
            or answer["usage"]["completion_tokens"] != CHUNKS
        ):
            raise ValueError("the plain answer is not the upstream's")
        return
    events = [event for event in body.split(b"\n\n") if event.startswith(b"data:")]
    if not events or events[-1].strip() != b"data: [DONE]":
        raise ValueError("the stream has no end marker")
    words = []
    for event in events[:-1]:
        chunk: dict[str, Any] = json.loads(event[5:])
        for choice in chunk["choices"]:
            content = choice["delta"].get("content")
            if content:
                words.append(content)
    if words != EXPECTED_WORDS:
        raise ValueError(f"the stream carries {len(words)} of {len(EXPECTED_WORDS)} words")


def quantile(values: list[float], share: float) -> float:
    """A quantile of seconds, in milliseconds."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000


async def run(options: argparse.Namespace) -> dict[str, Any]:
    parts = urlsplit(options.url)
    body = json.dumps(
        {
            "model": options.model or options.case,
            "stream": options.case != "plain",
            "messages": [{"role": "user", "content": "Say something. " * 10}],
        }
    ).encode()
    more = "".join(f"{header}\r\n" for header in options.header)
    request = (
        f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer "
        f"{options.token}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"{more}\r\n"
    ).encode() + body
    left = options.requests
    totals: list[float] = []
    firsts: list[float] = []
    gaps: list[float] = []
    errors: list[str] = []

    async def worker() -> None:
        nonlocal left
        connection = Connection(parts.hostname or "", parts.port or 80, request, options.case)
        await connection.open()
        while left > 0:
            left -= 1
            try:
                total, first, between = await asyncio.wait_for(connection.one(), 60)
                totals.append(total)
                firsts.append(first)
                gaps.extend(between)
            except (ValueError, OSError, EOFError, TimeoutError, KeyError, asyncio.IncompleteReadError) as error:
                errors.append(f"{type(error).__name__}: {error}"[:200])
                if len(errors) > 20:
                    return
                await connection.open()
        connection.writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(options.connections)))
    seconds = time.perf_counter() - began
    late = [abs(gap - PACE) for gap in gaps] if options.case == "paced" else []
    return {
        "requests": len(totals),
        "errors": len(errors),
        "first_errors": errors[:3],
        "seconds": round(seconds, 3),
        "rps": round(len(totals) / seconds, 1),
        "p50_ms": round(quantile(totals, 0.5), 3),
        "p99_ms": round(quantile(totals, 0.99), 3),
        "ttft_p50_ms": round(quantile(firsts, 0.5), 3),
        "ttft_p99_ms": round(quantile(firsts, 0.99), 3),
        "gap_p50_ms": round(quantile(late, 0.5), 3),
        "gap_p99_ms": round(quantile(late, 0.99), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("case", choices=["plain", "burst", "paced"])
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--token", default="sk-bench")
    parser.add_argument("--model", default="")
    parser.add_argument("--header", action="append", default=[], help="one more of every request, as `name: value`")
    found = uvloop.run(run(parser.parse_args()))
    print(json.dumps(found))
    sys.exit(1 if found["errors"] else 0)


if __name__ == "__main__":
    main()

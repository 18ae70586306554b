"""Floods of strangers without a token, and a good request beside each: how long it takes, and what memory remains.

python -m bench.faults.floods URL KIND SECONDS    # a flood alone
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from tests.support.load.targets import rss_mib
from tests.support.server import ROOT

MOST_DELAY: Final = 0.2  # seconds by which a flood may delay a good request
_MOST_GROWTH: Final = 64.0  # MiB of memory that remain after all floods: allocators keep some
_SECONDS: Final = 4.0
_REQUESTS: Final = 40

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Flood = Callable[[Stream], Awaitable[None]]


async def _headers(stream: Stream) -> None:
    stream[1].write(b"GET /healthz HTTP/1.1\r\nhost: a\r\n")
    for number in range(100_000):
        stream[1].write(b"x-%d: y\r\n" % number * 100)
        await stream[1].drain()


async def _one_header(stream: Stream) -> None:
    stream[1].write(b"GET /healthz HTTP/1.1\r\nx: ")
    for _ in range(10_000):
        stream[1].write(b"y" * 65_536)
        await stream[1].drain()


async def _url(stream: Stream) -> None:
    stream[1].write(b"GET /")
    for _ in range(10_000):
        stream[1].write(b"y" * 65_536)
        await stream[1].drain()


def _body(path: bytes) -> Flood:
    async def send(stream: Stream) -> None:
        stream[1].write(b"POST %b HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n" % path)
        for _ in range(10_000):
            stream[1].write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            await stream[1].drain()

    return send


async def _tiny_chunks(stream: Stream) -> None:
    stream[1].write(b"POST /accounts/login/ HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(1000):
        stream[1].write(b"1\r\n \r\n" * 10_000)
        await stream[1].drain()


async def _frames(stream: Stream) -> None:
    stream[1].write(
        b"GET /v1/realtime HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    for _ in range(1000):
        stream[1].write(b"\x89\x80\0\0\0\0" * 10_000)
        await stream[1].drain()


async def _pipelined(stream: Stream) -> None:
    while True:
        stream[1].write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 1000)
        await stream[1].drain()


async def _idle(stream: Stream) -> None:
    stream[1].write(b"POST /v1/chat/completions HT")
    await asyncio.sleep(3600)


def _asks(request: bytes) -> Flood:
    async def ask(stream: Stream) -> None:
        while True:
            stream[1].write(request)
            await stream[1].drain()
            head = await stream[0].readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            await stream[0].readexactly(int(length.partition(b":")[2]))

    return ask


_BAD_TOKEN: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-%b\r\n"
    b"content-length: 2\r\n\r\n{}" % (b"x" * 40)
)
# What each does, with how many connections at once.
FLOODS: Final[dict[str, tuple[Flood, int]]] = {
    "headers without end": (_headers, 20),
    "one header without end": (_one_header, 20),
    "a URL without end": (_url, 20),
    "a body to a probe": (_body(b"/healthz"), 20),
    "a body to a page": (_body(b"/accounts/login/"), 20),
    "a body to /v1": (_body(b"/v1/chat/completions"), 20),
    "a body in tiny chunks": (_tiny_chunks, 20),
    "frames of a websocket": (_frames, 20),
    "requests behind each other": (_pipelined, 20),
    "half a request": (_idle, 400),
    "bad tokens": (_asks(_BAD_TOKEN), 50),
    "pages": (_asks(b"GET /accounts/login/ HTTP/1.1\r\nhost: localhost\r\n\r\n"), 50),
}


async def flood(url: str, kind: str, seconds: float) -> None:
    """Keep this many connections busy; one that is closed is opened again."""
    parts = urlsplit(url)
    send, connections = FLOODS[kind]

    async def keep() -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                stream = await asyncio.open_connection(parts.hostname, parts.port)
                try:
                    await send(stream)
                finally:
                    stream[1].transport.abort()
            await asyncio.sleep(0.02)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(keep() for _ in range(connections)))


def beside_floods(url: str, pid: int, ask: Callable[[], str]) -> str:
    """Send good requests beside each flood; returns what is wrong. `ask` makes one, and says what is wrong with it."""
    calm, wrong = _measure(ask)
    if wrong:
        return f"without a flood: {wrong}"
    before = rss_mib(pid)
    problems = []
    for kind in FLOODS:
        command = [sys.executable, "-m", "bench.faults.floods", url, kind, str(_SECONDS)]
        with subprocess.Popen(command, cwd=ROOT) as process:
            try:
                time.sleep(0.7)  # until it has begun
                slow, wrong = _measure(ask)
            finally:
                process.terminate()
        if wrong:
            problems.append(f"{kind}: {wrong}")
        elif slow - calm > MOST_DELAY:
            problems.append(f"{kind}: {1000 * (slow - calm):.0f} ms later")
    grown = rss_mib(pid) - before
    if grown > _MOST_GROWTH:
        problems.append(f"{grown:.0f} MiB of memory remain")
    return "; ".join(problems)


def _measure(ask: Callable[[], str]) -> tuple[float, str]:
    """The time of the slowest good request but two, in seconds, and what was wrong with the last that failed.

    Two in forty may be slow because the flood itself takes the processor from the portal.
    """
    times, wrong = [], ""
    began = time.monotonic()
    for _ in range(_REQUESTS):
        at = time.monotonic()
        wrong = ask() or wrong
        times.append(time.monotonic() - at)
        if at - began > _SECONDS - 1:
            break
    return sorted(times)[-3:][0], wrong


if __name__ == "__main__":
    os.nice(5)
    asyncio.run(flood(sys.argv[1], sys.argv[2], float(sys.argv[3])))

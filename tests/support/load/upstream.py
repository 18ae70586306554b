"""A scripted upstream in a separate process: `python -m tests.support.load.upstream PORT`. It answers at once, to
measure the gateway only.

The model's name selects the answer: `plain` (about 700 bytes of JSON), `burst` (50 chunks in one write), `paced` (50
chunks, 20 ms apart), `endless` (chunks without end, as fast as the reader takes them), `chaos` (a slow stream, or one
of many faults), `calm` (a slow stream). `--fail SHARE` turns this share of answers into a 500.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from typing import cast

import uvloop

CHUNKS = 50
PACE = 0.020


def chunk(content: str | None, finish: str | None = None) -> bytes:
    delta = {} if content is None else {"content": content}
    event = {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "bench",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "usage": None,
    }
    return b"data: " + json.dumps(event).encode() + b"\n\n"


USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": CHUNKS,
    "total_tokens": 12 + CHUNKS,
    "prompt_tokens_details": {"cached_tokens": 0},
}
STREAM_EVENTS = [chunk(f"word{i} ") for i in range(CHUNKS - 1)] + [chunk(None, "stop")]
USAGE_EVENT = (
    b"data: "
    + json.dumps(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "bench",
            "choices": [],
            "usage": USAGE,
        }
    ).encode()
    + b"\n\n"
)
DONE = b"data: [DONE]\n\n"
PLAIN = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "bench",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "lorem ipsum " * 30, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
).encode()
PLAIN_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(PLAIN) + PLAIN
FAILED_BODY = b'{"error":{"message":"mock fault","type":"server_error","param":null,"code":"mock"}}'
FAILED = (
    b"HTTP/1.1 500 X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(FAILED_BODY) + FAILED_BODY
)
LIMITED = FAILED.replace(b"500 X", b"429 X\r\nretry-after: 1")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


BURST = {
    asked: STREAM_HEAD
    + b"".join(framed(event) for event in [*STREAM_EVENTS, *([USAGE_EVENT] if asked else []), DONE])
    + b"0\r\n\r\n"
    for asked in (True, False)
}


class UpstreamServer(asyncio.Protocol):
    fail = 0.0

    def __init__(self) -> None:
        self.buffer = b""
        self.task: asyncio.Task[None] | None = None
        self.room = asyncio.Event()
        self.room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self.room.clear()

    def resume_writing(self) -> None:
        self.room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            self.answer(body)

    def answer(self, body: bytes) -> None:
        if self.fail and random.random() < self.fail:  # nothing secret
            self.transport.write(FAILED)
        elif b'"chaos"' in body or b'"calm"' in body:
            self.task = asyncio.ensure_future(self.chaos(b'"calm"' in body))
        elif b'"paced"' in body or b'"endless"' in body:
            self.task = asyncio.ensure_future(
                self.endless() if b'"endless"' in body else self.paced(b"include_usage" in body)
            )
        elif b'"burst"' in body:
            self.transport.write(BURST[b"include_usage" in body])
        else:
            self.transport.write(PLAIN_ANSWER)

    async def paced(self, usage: bool) -> None:
        self.transport.write(STREAM_HEAD)
        loop = asyncio.get_running_loop()
        due = loop.time()
        for event in STREAM_EVENTS:
            self.transport.write(framed(event))
            due += PACE
            await asyncio.sleep(max(0, due - loop.time()))
        self.transport.write((framed(USAGE_EVENT) if usage else b"") + framed(DONE) + b"0\r\n\r\n")

    async def chaos(self, calm: bool) -> None:
        """A slow stream; about a quarter of them have a fault, unless `calm`."""
        fate = random.uniform(0.2, 0.89) if calm else random.random()  # nothing secret
        if fate < 0.06:
            self.transport.write(FAILED)
            return
        if fate < 0.09:
            self.transport.write(LIMITED)
            return
        if fate < 0.13:
            self.transport.abort()
            return
        if fate < 0.18:
            await asyncio.sleep(random.uniform(0.5, 4))
        self.transport.write(STREAM_HEAD)
        for number in range(random.randint(10, 50)):
            self.transport.write(framed(STREAM_EVENTS[number % (CHUNKS - 1)]))
            await asyncio.sleep(0.1)
            if number == 8 and fate > 0.94:
                self.transport.abort()
                return
            if number == 8 and fate > 0.90:
                await asyncio.sleep(60)  # the relay times out earlier
        self.transport.write(
            framed(STREAM_EVENTS[-1]) + (framed(USAGE_EVENT) if fate > 0.3 else b"") + framed(DONE) + b"0\r\n\r\n"
        )

    async def endless(self) -> None:
        self.transport.write(STREAM_HEAD)
        piece = framed(chunk("x" * 4000)) * 4
        while True:
            await self.room.wait()
            self.transport.write(piece)
            await asyncio.sleep(0)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(UpstreamServer, "127.0.0.1", port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--fail", type=float, default=0.0)
    options = parser.parse_args()
    UpstreamServer.fail = options.fail
    uvloop.run(main(options.port))

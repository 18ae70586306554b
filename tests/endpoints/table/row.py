"""What a row of the table of endpoints holds, the price that all are charged at, and upstreams that fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from relay.protocols.usage import Usage
from tests.support.upstream import Call, chunk

# A price for every class, no two alike.
PRICE = {
    "input": 1,
    "cached_input": "0.5",
    "cached_audio_input": "0.25",
    "cache_write": "1.25",
    "cache_write_1h": "2.5",
    "output": 8,
    "reasoning": 16,
    "audio_input": 4,
    "audio_output": 32,
    "image_input": 2,
    "per_call": "0.000064",
    "per_image": "0.000128",
    "per_second": "0.000256",
    "per_character": "0.000000512",
    "per_search": "0.000001024",
}
# A key of no vendor's form: only what was sent tells what it is.
SECRET, HOST, ORGANISATION = "Qm7vXn2kLr9s.Tb4wYc6dHj5p", "10.1.2.3", "org-AbCdEf123456"
DIRT = (
    f"The server at http://{HOST}:8000/internal had an error with key {SECRET} "
    f"({SECRET[:4]}***{SECRET[-4:]}) in organization {ORGANISATION}."
)
TEXT = "word " * 40  # 51 tokens
REPORT = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 20, "image_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 8, "audio_tokens": 4},
}
USED = Usage(100, cached_input=10, output=50, reasoning=8, audio_input=20, audio_output=4, image_input=5)
ASK = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 1000}
SAID = "said " * 20
CHUNKS = [chunk(SAID), chunk(None, "stop"), {**chunk(), "choices": [], "usage": REPORT}]
ENDLESS = chunk("word " * 40)


@dataclass(frozen=True)
class Row:
    """One endpoint, or one way to be answered by it."""

    name: str
    path: str  # below /v1
    body: dict[str, Any]
    used: Usage  # of the answer below
    answer: Any = b""  # of the upstream, plain: JSON or bytes
    events: Sequence[Any] = ()  # in place of it, a stream's, the last of which completes it
    file: str = ""  # the name of the form's file
    kind: str = "application/json"  # of the answer
    limit: str = ""  # the member by which the upstream is told the longest answer; empty: none can be told
    channel: dict[str, Any] = field(default_factory=dict)
    other_purpose: str = "images"  # of tokens that may not use it
    named: Any = None  # adds another model to a body
    background: bool = False
    batch: bool = False  # it is a line of a batch
    of_messages: bool = False  # that is a message batch
    socket: Sequence[dict[str, Any]] = ()  # what the client says on a websocket
    endless: Any = None  # an event that an upstream can repeat for ever
    call: bool = False  # it is a call over WebRTC, which its client joins with a websocket
    asked: str = ""  # the path that the upstream is asked at, where it is another
    query: str = ""  # of both addresses
    api: str = ""  # its name among the APIs of upstreams, where its path does not say it

    def at(self, model: str, path: str = "") -> str:
        """The address of its endpoint, or of another one, which may name the model."""
        query = f"?{self.query}" if self.query and (":stream" in (path or self.path)) else ""
        return f"{(path or self.path).replace('{model}', model)}{query}"

    @property
    def stream(self) -> bool:
        return bool(self.events)

    async def begin(self, call: Call) -> None:
        """The head of the answer, and its first part."""
        if self.events:
            await call.open_stream()
            for event in self.events[:-1]:
                await call.event(event)
        else:
            data = self.data()
            await call.raw(f"HTTP/1.1 200 OK\r\ncontent-type: {self.kind}\r\n".encode())
            await call.raw(b"content-length: %d\r\n\r\n%s" % (len(data), data[: len(data) // 2]))

    async def finish(self, call: Call) -> None:
        if self.events:
            await call.event(self.events[-1])
            if "choices" in self.events[0]:
                await call.event("[DONE]")
            await call.end()
        else:
            data = self.data()
            await call.raw(data[len(data) // 2 :])

    def data(self) -> bytes:
        return self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()

    async def good(self, call: Call) -> None:
        assert call.path == f"/v1/{self.at(call.model, self.asked)}", call.path
        await self.begin(call)
        await self.finish(call)


def held(row: Row, go: asyncio.Event) -> Any:
    """An upstream that ends its answer when it is told to."""

    async def script(call: Call) -> None:
        await row.begin(call)
        await go.wait()
        await row.finish(call)

    return script


async def dirty(call: Call) -> None:
    """A refusal that tells what nobody may know."""
    await call.error(400, DIRT, "bad_request")


async def dirty_in_200(call: Call) -> None:
    await call.reply(200, {"error": {"message": DIRT, "type": "server_error", "param": None, "code": None}})


async def broken(call: Call) -> None:
    await call.error(500, DIRT)

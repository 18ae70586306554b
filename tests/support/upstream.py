"""A scripted upstream: a real HTTP server on a real port, in a thread of its own.

The name of the model chooses what it does.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import threading
import wave
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from relay.protocols.framing.multipart import MultipartForm, parse_form
from tests.support.asserts import until

Script = Callable[["Call"], Awaitable[None]]

_IN_PATH = re.compile(r"/models/([^/:?]+):|/model/([^/]+)/(?:invoke|converse|count-tokens)")
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 2},
}


@dataclass
class Call:
    """One request as it arrived, and the means to answer it byte by byte."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter
    closed: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def json(self) -> dict[str, Any]:
        """The body, or, of a form, its fields that are no files.

        Read once: every look for a model goes through all calls.
        """
        if self.headers.get("content-type", "").startswith("multipart/"):
            return dict(parse_form(self.body, self.headers["content-type"]).texts())
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def model(self) -> str:
        """That the body names, or the path, as Google's and Amazon's do."""
        named = _IN_PATH.search(self.path)
        if named is not None:
            return unquote(named[1] or named[2])
        return str(self.json.get("model", "")) if self.body else ""

    @property
    def form(self) -> MultipartForm:
        return parse_form(self.body, self.headers["content-type"])

    @property
    def wants_usage(self) -> bool:
        return bool((self.json.get("stream_options") or {}).get("include_usage"))

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
        head = f"HTTP/1.1 {status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        await self.raw(head.encode() + data)

    async def error(
        self,
        status: int,
        message: str = "mock error",
        code: object = "mock_code",
        headers: dict[str, str] | None = None,
    ) -> None:
        await self.reply(
            status, {"error": {"message": message, "type": "mock_error", "param": None, "code": code}}, headers
        )

    async def open_stream(self, headers: str = "") -> None:
        await self.raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
            + f"{headers}\r\n".encode()
        )

    async def send(self, data: bytes) -> None:
        """One HTTP chunk of a stream."""
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, data: object) -> None:
        await self.send(b"data: " + (data.encode() if isinstance(data, str) else json.dumps(data).encode()) + b"\n\n")

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    def cut(self) -> None:
        self.writer.transport.abort()

    async def closed_event(self) -> None:
        """Wait until the relay hangs up, and say nothing."""
        await asyncio.Event().wait()  # cancelled by the server when the connection ends


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {
        "id": "chatcmpl-x",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "mock",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


def completion(content: str = "Hello there.", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "refusal": None}
    return {
        "id": "chatcmpl-x",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "mock",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": USAGE,
        **more,
    }


async def hello(call: Call) -> None:
    """What an upstream does on a good day."""
    if call.path.partition("?")[0].endswith("/models"):
        if "x-goog-api-key" in call.headers:
            await call.reply(200, {"models": GOOGLES_MODELS})
            return
        await call.reply(
            200, {"object": "list", "data": [{"id": name, "object": "model"} for name in ("mock-large", "mock-small")]}
        )
        return
    if not call.json.get("stream"):
        await call.reply(200, completion())
        return
    await call.open_stream()
    for word in ("Hello", " there", "."):
        await call.event(chunk(word))
    await call.event(chunk(None, "stop"))
    if call.wants_usage:
        await call.event({**chunk(), "choices": [], "usage": USAGE})
    await call.event("[DONE]")
    await call.end()


GOOGLES_MODELS = [
    {
        "name": "models/gemini-mock",
        "inputTokenLimit": 1048576,
        "outputTokenLimit": 65536,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
        "thinking": True,
    },
    {
        "name": "models/gemini-embedding-001",
        "inputTokenLimit": 2048,
        "outputTokenLimit": 1,
        "supportedGenerationMethods": ["embedContent"],
    },
]


class Upstream:
    """`script(model, function)` says what happens to requests for a model; the others get `hello`."""

    def __init__(self, port: int = 0) -> None:
        self.port = port  # 0: any that is free
        self.calls: list[Call] = []
        self.scripts: dict[str, Script] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, model: str, function: Script) -> None:
        self.scripts[model] = function

    def last(self, model: str) -> Call:
        """The newest request for a model."""
        return [call for call in self.calls if call.body and call.model == model][-1]

    def wait_closed(self, model: str) -> None:
        """Until the relay has closed the newest request for a model. Waits for that request first."""
        until(lambda: self.count(model))
        self.last(model).closed.wait()

    def set(self, event: asyncio.Event) -> None:
        """Let scripts go on that wait for it."""
        self._loop.call_soon_threadsafe(event.set)

    def count(self, model: str) -> int:
        return sum(1 for call in self.calls if call.body and call.model == model)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _run(self) -> None:
        self._loop = asyncio.new_event_loop()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 24))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call: Call | None = None
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                call = Call(method, path, headers, body, writer)
                self.calls.append(call)
                work = asyncio.ensure_future(self._script(call, call.model)(call))
                watch = asyncio.ensure_future(self._gone(reader, writer, call))
                await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    work.cancel()
                    return
                watch.cancel()
                if work.exception() is not None:  # the relay has gone away while it was answered
                    return
                if writer.transport.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            if call is not None:
                call.closed.set()
            writer.transport.abort()

    def _script(self, call: Call, model: str) -> Script:
        """By the model; what is deleted names none, and goes to whoever made the newest response."""
        if call.method == "DELETE":
            asked = [
                earlier.json.get("model", "")
                for earlier in self.calls
                if earlier.body and earlier.path.endswith("/responses")
            ]
            model = asked[-1] if asked else ""
        return self.scripts.get(model, hello)

    async def _gone(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, call: Call) -> None:
        """Ends when the relay closes the connection."""
        while not reader.at_eof() and reader.exception() is None and not writer.transport.is_closing():  # noqa: ASYNC110  # a reader has no event for its end
            await asyncio.sleep(0.02)
        call.closed.set()


def sound(seconds: float) -> bytes:
    """A WAV of this length."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * int(8000 * seconds))
    return out.getvalue()


async def endless(call: Call) -> None:
    await call.open_stream()
    while True:
        await call.event(chunk("word "))
        await asyncio.sleep(0.05)


def failing(status: int, code: object = "mock_code", headers: dict[str, str] | None = None) -> Script:
    async def script(call: Call) -> None:
        await call.error(status, "mock error", code, headers)

    return script


def keys_used(upstream: Upstream, model: str) -> list[str]:
    return [call.headers["authorization"][-10:] for call in upstream.calls if call.body and call.model == model]


async def two_words(call: Call) -> None:
    await call.open_stream()
    await call.event(chunk("Hello"))
    await call.event(chunk(" there"))

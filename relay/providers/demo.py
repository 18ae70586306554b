"""The demo provider: an upstream inside the portal. It needs no network and no key, and answers the same to the same
question.

It speaks OpenAI's chat protocol through the same transport interface as a real upstream, so that what a newcomer sees
is the real path. A token, for its usage figures, is a word or a run of punctuation.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import msgspec

from portal.lib.json import encode

_WORDS: Final = re.compile(r"\s*(?:\w+|[^\w\s]+)")
_PAUSE: Final = 0.012  # seconds between words of a stream, so that one can watch it
MODEL: Final = "demo"  # the one that it offers; it answers for any
_JSON: Final = [("content-type", "application/json")]


class _Request(msgspec.Struct):
    messages: list[Any]
    model: str = MODEL
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None


_decoder: Final = msgspec.json.Decoder(_Request)


class DemoStream(httpx.AsyncByteStream):
    """The pieces of an answer. The same interface as `relay.transport.body.UpstreamStream`."""

    def __init__(self, pieces: list[bytes], pause: float) -> None:
        self._pieces = pieces
        self._pause = pause
        self._next = 0

    async def read(self) -> bytes:
        if self._next >= len(self._pieces):
            return b""
        if self._next and self._pause:
            await asyncio.sleep(self._pause)
        self._next += 1
        return self._pieces[self._next - 1]

    def at_end(self) -> bool:
        return self._next >= len(self._pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    def close(self) -> None:
        self._next = len(self._pieces)

    async def aclose(self) -> None:
        self.close()


class DemoTransport(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            body = encode(
                {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}]}
            )
            return httpx.Response(200, headers=_JSON, stream=DemoStream([body], 0))
        try:
            asked = _decoder.decode(await request.aread())
        except (msgspec.DecodeError, ValueError) as error:
            body = encode(
                {
                    "error": {
                        "message": f"The demo cannot read this request: {error}",
                        "type": "invalid_request_error",
                        "param": None,
                        "code": "invalid_value",
                    }
                }
            )
            return httpx.Response(400, headers=_JSON, stream=DemoStream([body], 0))
        return answer(asked)


def answer(asked: _Request) -> httpx.Response:
    """A chat completion, plain or streamed."""
    question = _last_text(asked.messages)
    words = _WORDS.findall(_reply(question))
    limit = asked.max_completion_tokens or asked.max_tokens
    finish = "length" if limit is not None and limit < len(words) else "stop"
    words = words[:limit] if limit else words
    prompt = sum(len(_WORDS.findall(_text(message))) + 3 for message in asked.messages)
    choices = asked.n or 1
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": len(words) * choices,
        "total_tokens": prompt + len(words) * choices,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    head: dict[str, Any] = {
        "id": "chatcmpl-demo-" + hashlib.sha256(question.encode("utf-8", "replace")).hexdigest()[:24],
        "created": int(time.time()),
        "model": asked.model,
        "system_fingerprint": "fp_demo",
    }
    if not asked.stream:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words), "refusal": None, "annotations": []}
        listed = [{"index": i, "message": message, "logprobs": None, "finish_reason": finish} for i in range(choices)]
        body = encode({**head, "object": "chat.completion", "choices": listed, "usage": usage})
        return httpx.Response(200, headers=_JSON, stream=DemoStream([body], 0))
    wants_usage = bool((asked.stream_options or {}).get("include_usage"))
    pieces = []

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        event = {
            **head,
            "object": "chat.completion.chunk",
            "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}],
        }
        if wants_usage:
            event["usage"] = None
        return b"data: " + encode(event) + b"\n\n"

    for i in range(choices):
        pieces.append(chunk(i, {"role": "assistant", "content": "", "refusal": None}))
        pieces.extend(chunk(i, {"content": word}) for word in words)
        pieces.append(chunk(i, {}, finish))
    if wants_usage:
        pieces.append(
            b"data: " + encode({**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}) + b"\n\n"
        )
    pieces.append(b"data: [DONE]\n\n")
    return httpx.Response(200, headers=[("content-type", "text/event-stream")], stream=DemoStream(pieces, _PAUSE))


def _reply(question: str) -> str:
    said = " ".join(question.split())
    said = said if len(said) <= 200 else said[:199] + "…"
    heard = f"You wrote: “{said}”" if said else "You wrote nothing that I can read."
    return (
        f"This is the demo model of AIRelays Portal: no language model, only a text that streams. {heard} "
        "Everything around it is real: your token was checked, the request was routed and its usage is recorded. "
        "Add a channel with an API key in the admin to talk to a real model."
    )


def _last_text(messages: list[Any]) -> str:
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return _text(message)
    return _text(messages[-1]) if messages else ""


def _text(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return " ".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))

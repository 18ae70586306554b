"""Requests over HTTP as the run's upstreams answer them, with the faults that they have."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from aiohttp import web

from bench.everything.tariff import add, tokens_of
from bench.everything.upstreams.counting import SLOW, STALL, UPSTREAMS, WORD, Attempt

_REFUSALS: Final = {
    "500": (500, "The server had an error while processing your request.", "server_error", {}),
    "503": (503, "The engine is currently overloaded.", "service_unavailable", {}),
    "429": (429, "Rate limit reached. Please try again in 1s.", "rate_limit_exceeded", {"retry-after": "1"}),
    "dead key": (401, "Incorrect API key provided.", "invalid_api_key", {}),
}


class Gone(Exception):
    """The other side has closed the connection."""


class Answer:
    """The bytes of one answer, with the faults that an attempt has."""

    def __init__(self, request: web.Request, attempt: Attempt) -> None:
        self.request, self.attempt = request, attempt
        self.response = web.StreamResponse()

    async def open(self, kind: str, length: int | None = None) -> None:
        self.response.content_type = kind
        if length is not None:
            self.response.content_length = length
        try:
            await self.response.prepare(self.request)
        except (ConnectionError, RuntimeError) as error:
            raise Gone from error

    async def write(self, data: bytes) -> None:
        if self.request.transport is None or self.request.transport.is_closing():
            raise Gone
        try:
            await self.response.write(data)
        except (ConnectionError, RuntimeError) as error:
            raise Gone from error

    async def event(self, data: Mapping[str, Any]) -> None:
        name = f"event: {data['type']}\n" if "type" in data else ""
        await self.write(f"{name}data: {json.dumps(data)}\n\n".encode())

    def cut(self) -> None:
        self.attempt.end = "cut"
        if self.request.transport is not None:
            self.request.transport.abort()


async def _text_of(request: web.Request) -> tuple[dict[str, Any], str]:
    """The members of a request, JSON or a form, and all of its text."""
    if request.content_type.startswith("multipart/"):
        form = await request.post()
        body: dict[str, Any] = {}
        for name, value in form.items():
            body[name] = value if isinstance(value, str) else value.file.read()  # type: ignore[union-attr]
        return body, str(body.get("prompt", ""))
    raw = await request.text()
    return json.loads(raw), raw


async def answer(request: web.Request) -> web.StreamResponse:
    """Any request but realtime."""
    upstreams, kind = request.app[UPSTREAMS], request.match_info["path"]
    body, text = await _text_of(request)
    attempt = upstreams.begin(request, kind, text)
    said = Answer(request, attempt)
    try:
        if attempt.fault in _REFUSALS:
            status, message, code, headers = _REFUSALS[attempt.fault]
            attempt.end = "failed"
            error = {"message": message, "type": code, "param": None, "code": code}
            return web.json_response({"error": error}, status=status, headers=headers)
        if attempt.fault == "error in 200":
            attempt.end = "failed"
            return web.json_response({"error": {"message": "Overloaded.", "type": "server_error", "code": "503"}})
        if attempt.fault == "reset":
            said.cut()
            attempt.end = "failed"
            return said.response
        if attempt.fault == "slow":
            await asyncio.sleep(SLOW)
        make = _MAKERS.get(kind)
        if make is None or "model" not in body:
            return web.json_response({"error": {"message": "Unknown.", "type": "invalid_request_error"}}, status=400)
        attempt.model = str(body["model"])
        try:
            await make(said, body)
        except Gone:
            attempt.end = "left"
        return said.response
    finally:
        upstreams.write(attempt)


# -- texts -------------------------------------------------------------------------------------------------------------


def _words(attempt: Attempt) -> int:
    return 20 + zlib.crc32(attempt.tag.encode()) % 20


def _prompt(attempt: Attempt, text: str) -> None:
    """Count the prompt, of which a third of the requests find half in the cache."""
    tokens = 8 + tokens_of(text)
    cached = tokens // 2 if zlib.crc32(attempt.tag.encode()) % 3 == 0 else 0
    add(attempt.counted, {"input": tokens, "cached": cached})


async def _pieces(said: Answer) -> AsyncIterator[str]:
    """Five words every 80 ms, counted as they are made. A cut or a stall comes in the middle."""
    attempt = said.attempt
    words = _words(attempt)
    for start in range(0, words, 5):
        await asyncio.sleep(0.08)
        if start >= words // 2 and attempt.fault == "cut":
            said.cut()
            return
        if start >= words // 2 and attempt.fault == "stall":
            await asyncio.sleep(STALL)
        text = WORD * min(5, words - start)
        attempt.sent += len(text)
        add(attempt.counted, {"output": tokens_of(text)})
        yield text


async def _plain(said: Answer, body: Mapping[str, Any]) -> None:
    """Send a whole answer, or the half of one whose fault is a cut."""
    data = json.dumps(body).encode()
    await said.open("application/json", len(data))
    if said.attempt.fault == "cut":
        await said.write(data[: len(data) // 2])
        await asyncio.sleep(0.05)
        said.cut()
        return
    await said.write(data)
    said.attempt.reported = True
    said.attempt.end = "whole"


async def _chat(said: Answer, body: dict[str, Any]) -> None:
    attempt, tag = said.attempt, said.attempt.tag
    _prompt(attempt, json.dumps(body["messages"]))
    head = {"id": f"chatcmpl-{tag}", "created": int(attempt.at), "model": body["model"]}
    if not body.get("stream"):
        text = await _thought(said)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        usage = _chat_usage(attempt.counted)
        await _plain(said, {**head, "object": "chat.completion", "choices": [choice], "usage": usage})
        return
    head["object"] = "chat.completion.chunk"
    await said.open("text/event-stream")

    async def chunk(delta: Mapping[str, Any], reason: str | None = None) -> None:
        await said.event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    await chunk({"role": "assistant", "content": ""})
    async for text in _pieces(said):
        await chunk({"content": text})
    if attempt.end == "cut":
        return
    await chunk({}, "stop")
    if (body.get("stream_options") or {}).get("include_usage"):
        await said.event({**head, "choices": [], "usage": _chat_usage(attempt.counted)})
        attempt.reported = True
    await said.write(b"data: [DONE]\n\n")
    attempt.end = "whole"


def _chat_usage(counted: Mapping[str, int]) -> dict[str, Any]:
    total = counted["input"] + counted["output"]
    details = {"cached_tokens": counted["cached"]}
    return {
        "prompt_tokens": counted["input"],
        "completion_tokens": counted["output"],
        "total_tokens": total,
        "prompt_tokens_details": details,
    }


async def _thought(said: Answer) -> str:
    """The text of an answer that is sent whole, after the time that a stream of it takes."""
    words = _words(said.attempt)
    await asyncio.sleep(0.016 * words)
    if said.attempt.fault == "stall":
        await asyncio.sleep(STALL)
    text = WORD * words
    said.attempt.sent = len(text)
    # In pieces, as a stream counts it.
    for start in range(0, words, 5):
        add(said.attempt.counted, {"output": tokens_of(WORD * min(5, words - start))})
    return text


async def _responses(said: Answer, body: dict[str, Any]) -> None:
    attempt, tag = said.attempt, said.attempt.tag
    _prompt(attempt, json.dumps(body["input"]))
    base = {"id": f"resp_{tag}", "object": "response", "created_at": int(attempt.at), "model": body["model"]}

    def response(status: str, output: list[Any]) -> dict[str, Any]:
        usage = _responses_usage(attempt.counted) if status == "completed" else None
        return {**base, "status": status, "error": None, "output": output, "usage": usage, "metadata": {}}

    def message(text: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        return {"id": f"msg_{tag}", "type": "message", "role": "assistant", "status": "completed", "content": [part]}

    if not body.get("stream"):
        text = await _thought(said)
        await _plain(said, response("completed", [message(text)]))
        return
    await said.open("text/event-stream")
    at = {"item_id": f"msg_{tag}", "output_index": 0, "content_index": 0}
    item = {**message(""), "status": "in_progress", "content": []}
    number, whole = 2, ""
    begun = response("in_progress", [])
    await said.event({"type": "response.created", "sequence_number": 0, "response": begun})
    added = {"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item}
    await said.event(added)
    async for text in _pieces(said):
        await said.event(
            {"type": "response.output_text.delta", "sequence_number": number, "delta": text, "logprobs": [], **at}
        )
        number, whole = number + 1, whole + text
    if attempt.end == "cut":
        return
    done = {"type": "response.output_item.done", "sequence_number": number, "output_index": 0, "item": message(whole)}
    await said.event(done)
    ended = response("completed", [message(whole)])
    await said.event({"type": "response.completed", "sequence_number": number + 1, "response": ended})
    attempt.reported, attempt.end = True, "whole"


def _responses_usage(counted: Mapping[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": counted["input"],
        "input_tokens_details": {"cached_tokens": counted["cached"]},
        "output_tokens": counted["output"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counted["input"] + counted["output"],
    }


# -- the others --------------------------------------------------------------------------------------------------------


async def _embeddings(said: Answer, body: dict[str, Any]) -> None:
    tokens = tokens_of(str(body["input"]))
    add(said.attempt.counted, {"input": tokens})
    await asyncio.sleep(0.1)
    vector = {"object": "embedding", "index": 0, "embedding": [0.25] * 256}
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    await _plain(said, {"object": "list", "model": body["model"], "data": [vector], "usage": usage})


async def _images(said: Answer, body: dict[str, Any]) -> None:
    count = int(body.get("n") or 1)
    await asyncio.sleep(0.6)
    add(said.attempt.counted, {"images": count})
    picture = {"b64_json": "iVBORw0KGgo" + "A" * 20_000}
    await _plain(said, {"created": int(said.attempt.at), "data": [picture] * count})


async def _speech(said: Answer, body: dict[str, Any]) -> None:
    add(said.attempt.counted, {"characters": len(body["input"])})
    await asyncio.sleep(0.1)
    await said.open("audio/mpeg")
    for number in range(8):
        await asyncio.sleep(0.05)
        if number == 4 and said.attempt.fault == "cut":
            said.cut()
            return
        if number == 4 and said.attempt.fault == "stall":
            await asyncio.sleep(STALL)
        await said.write(b"\xff\xfb\x90\x00" + bytes(4092))
        said.attempt.sent += 4096
    said.attempt.reported, said.attempt.end = True, "whole"


async def _transcriptions(said: Answer, body: dict[str, Any]) -> None:
    seconds = (len(body["file"]) - 44) // 16_000  # a WAV of 8,000 samples a second, 16 bits each
    add(said.attempt.counted, {"milliseconds": 1000 * seconds})
    await asyncio.sleep(0.3)
    await _plain(said, {"text": WORD * seconds, "usage": {"type": "duration", "seconds": seconds}})


_MAKERS: Final = {
    "chat/completions": _chat,
    "responses": _responses,
    "embeddings": _embeddings,
    "images/generations": _images,
    "audio/speech": _speech,
    "audio/transcriptions": _transcriptions,
}

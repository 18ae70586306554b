"""The endpoints that ask an upstream: how each is called, how an upstream answers it, and what that costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from relay.protocols.usage import Usage
from relay.storage.batch_input import ENDPOINTS
from tests.endpoints.text.responses_upstream import response
from tests.support.peers.gemini import pieces
from tests.support.peers.gemini import response as gemini_response
from tests.support.peers.messages import events, message
from tests.support.upstream import Call, chunk, completion, sound

# A price for every class, no two alike.
PRICE = {
    "input": 1,
    "cached_input": "0.5",
    "cached_audio_input": "0.25",
    "output": 8,
    "reasoning": 16,
    "audio_input": 4,
    "audio_output": 32,
    "image_input": 2,
    "per_call": "0.000064",
    "per_image": "0.000128",
    "per_second": "0.000256",
    "per_character": "0.000000512",
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
OF_RESPONSES = {
    "input_tokens": 100,
    "output_tokens": 50,
    "total_tokens": 150,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens_details": {"reasoning_tokens": 8},
}
OF_IMAGES = {
    "input_tokens": 10,
    "output_tokens": 100,
    "total_tokens": 110,
    "input_tokens_details": {"text_tokens": 4, "image_tokens": 6},
}
OF_TRANSCRIPTS = {
    "type": "tokens",
    "input_tokens": 20,
    "output_tokens": 5,
    "total_tokens": 25,
    "input_token_details": {"text_tokens": 0, "audio_tokens": 20},
}
USED = Usage(100, cached_input=10, output=50, reasoning=8, audio_input=20, audio_output=4, image_input=5)
USED_OF_RESPONSES = Usage(100, cached_input=10, output=50, reasoning=8)
USED_OF_MESSAGES = Usage(100, cached_input=10, cache_write=30, output=50, reasoning=8)
USED_OF_IMAGES = Usage(10, image_input=6, output=100, images=1)
USED_OF_TRANSCRIPTS = Usage(20, audio_input=20, output=5, milliseconds=2000)


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


def _tool(body: dict[str, Any], model: str) -> dict[str, Any]:
    return {**body, "tools": [{"type": "image_generation", "model": model}]}


def _text(text: str) -> dict[str, Any]:
    return {"id": "c", "object": "text_completion", "choices": [{"text": text, "index": 0, "finish_reason": None}]}


_ASK = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 1000}
_INPUT = {"input": TEXT, "max_output_tokens": 1000}
_TALK = {"input": [{"role": "user", "content": "I like tea."}, {"role": "assistant", "content": "Noted."}]}
_SAID = "said " * 20
_WHOLE = response(1, _SAID, usage=OF_RESPONSES)
_DELTAS = [
    {"type": "response.created", "sequence_number": 0, "response": {**_WHOLE, "status": "in_progress", "output": []}},
    {
        "type": "response.output_item.added",
        "sequence_number": 1,
        "output_index": 0,
        "item": {"type": "message", "id": "msg_1", "role": "assistant", "status": "in_progress", "content": []},
    },
    {
        "type": "response.output_text.delta",
        "sequence_number": 2,
        "item_id": "msg_1",
        "output_index": 0,
        "content_index": 0,
        "delta": _SAID,
    },
]
_COMPLETED = {"type": "response.completed", "sequence_number": 3, "response": _WHOLE}
_COMPACTED = {
    "id": "resp_c",
    "object": "response.compaction",
    "created_at": 1,
    "output": [{"id": "c", "type": "compaction", "encrypted_content": "z"}],
    "usage": OF_RESPONSES,
}
_MADE = {"created": 1, "data": [{"b64_json": "AAAA" * 20}], "usage": OF_IMAGES}
_IMAGE = {"prompt": "a cat", "quality": "low"}
_SPEECH = {"input": "x" * 100, "voice": "a", "response_format": "pcm"}
_TRANSCRIPT = {"text": "one two three four five", "usage": OF_TRANSCRIPTS}
_CHUNKS = [chunk(_SAID), chunk(None, "stop"), {**chunk(), "choices": [], "usage": REPORT}]
_ENDLESS = chunk("word " * 40)
_PICTURE = {"type": "image_generation.partial_image", "b64_json": "AAAA" * 20, "partial_image_index": 0}
_EDIT = {"type": "image_edit.partial_image", "b64_json": "AAAA" * 20, "partial_image_index": 0}


def _completed(event: dict[str, Any]) -> dict[str, Any]:
    kind = event["type"].partition(".")[0]
    return {"type": f"{kind}.completed", "b64_json": "AAAA" * 20, "usage": OF_IMAGES}


_OF_MESSAGES = {
    "input_tokens": 60,
    "cache_read_input_tokens": 10,
    "cache_creation_input_tokens": 30,
    "output_tokens": 50,
    "output_tokens_details": {"thinking_tokens": 8},
}
_MESSAGE = message({"type": "text", "text": _SAID}, usage=_OF_MESSAGES)
_ANTHROPIC = {"provider": "anthropic"}

_GENERATE = "models/{model}:generateContent"
_STREAM = "models/{model}:streamGenerateContent"
_CONTENTS = {
    "contents": [{"role": "user", "parts": [{"text": TEXT}]}],
    "generationConfig": {"maxOutputTokens": 1000},
}
_OF_GEMINI = {
    "promptTokenCount": 100,
    "cachedContentTokenCount": 10,
    "candidatesTokenCount": 42,
    "thoughtsTokenCount": 8,
    "totalTokenCount": 150,
    "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 20}, {"modality": "IMAGE", "tokenCount": 5}],
    "candidatesTokensDetails": [{"modality": "AUDIO", "tokenCount": 4}],
}
_GENERATED = gemini_response({"text": _SAID}, usageMetadata=_OF_GEMINI)
_GEMINI: dict[str, Any] = {"provider": "gemini"}
_LIMIT = "generationConfig.maxOutputTokens"
_ENDLESS_PIECE = pieces(gemini_response({"text": "word " * 40}))[0] | {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "word " * 40}]}, "index": 0}]
}

ROWS = (
    Row(
        "generateContent",
        _GENERATE,
        _CONTENTS,
        USED,
        _GENERATED,
        limit=_LIMIT,
        channel=_GEMINI,
        api="generate_content",
    ),
    Row(
        "generateContent, streamed",
        _STREAM,
        _CONTENTS,
        USED,
        events=pieces(_GENERATED),
        limit=_LIMIT,
        channel=_GEMINI,
        endless=_ENDLESS_PIECE,
        query="alt=sse",
        api="generate_content.stream",
    ),
    Row(
        "generateContent over chat",
        _GENERATE,
        _CONTENTS,
        USED,
        completion(_SAID, usage=REPORT),
        limit="max_completion_tokens",
        asked="chat/completions",
        api="generate_content",
    ),
    Row(
        "generateContent over chat, streamed",
        _STREAM,
        _CONTENTS,
        USED,
        events=_CHUNKS,
        limit="max_completion_tokens",
        endless=_ENDLESS,
        asked="chat/completions",
        query="alt=sse",
        api="generate_content",
    ),
    Row(
        "chat over generateContent",
        "chat/completions",
        _ASK,
        USED,
        _GENERATED,
        limit=_LIMIT,
        channel=_GEMINI,
        asked=_GENERATE,
    ),
    Row(
        "chat over generateContent, streamed",
        "chat/completions",
        {**_ASK, "stream": True},
        USED,
        events=pieces(_GENERATED),
        limit=_LIMIT,
        channel=_GEMINI,
        endless=_ENDLESS_PIECE,
        asked=_STREAM,
        query="alt=sse",
    ),
    Row(
        "count of contents' tokens",
        "models/{model}:countTokens",
        {"contents": _CONTENTS["contents"]},
        Usage(),
        {"totalTokens": 51},
        channel=_GEMINI,
        api="generate_content.count_tokens",
    ),
    Row(
        "messages",
        "messages",
        _ASK,
        USED_OF_MESSAGES,
        _MESSAGE,
        limit="max_tokens",
        channel=_ANTHROPIC,
    ),
    Row(
        "messages, streamed",
        "messages",
        {**_ASK, "stream": True},
        USED_OF_MESSAGES,
        events=events(_MESSAGE),
        limit="max_tokens",
        channel=_ANTHROPIC,
        endless={"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 40}},
    ),
    Row(
        "messages over chat",
        "messages",
        _ASK,
        USED,
        completion(_SAID, usage=REPORT),
        limit="max_completion_tokens",
        asked="chat/completions",
    ),
    Row(
        "messages over chat, streamed",
        "messages",
        {**_ASK, "stream": True},
        USED,
        events=_CHUNKS,
        limit="max_completion_tokens",
        endless=_ENDLESS,
        asked="chat/completions",
    ),
    Row(
        "chat over messages",
        "chat/completions",
        _ASK,
        USED_OF_MESSAGES,
        _MESSAGE,
        limit="max_tokens",
        channel=_ANTHROPIC,
        asked="messages",
    ),
    Row(
        "chat over messages, streamed",
        "chat/completions",
        {**_ASK, "stream": True},
        USED_OF_MESSAGES,
        events=events(_MESSAGE),
        limit="max_tokens",
        channel=_ANTHROPIC,
        endless={"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 40}},
        asked="messages",
    ),
    Row(
        "count of a message's tokens",
        "messages/count_tokens",
        {"messages": _ASK["messages"]},
        Usage(),
        {"input_tokens": 51},
        channel=_ANTHROPIC,
    ),
    Row("chat", "chat/completions", _ASK, USED, completion(_SAID, usage=REPORT), limit="max_tokens"),
    Row(
        "chat, streamed",
        "chat/completions",
        {**_ASK, "stream": True},
        USED,
        events=_CHUNKS,
        limit="max_tokens",
        endless=_ENDLESS,
    ),
    Row(
        "chat over responses",
        "chat/completions",
        _ASK,
        USED_OF_RESPONSES,
        _WHOLE,
        limit="max_output_tokens",
        channel={"text_api": "responses"},
        asked="responses",
    ),
    Row("responses", "responses", _INPUT, USED_OF_RESPONSES, _WHOLE, limit="max_output_tokens", named=_tool),
    Row(
        "responses, streamed",
        "responses",
        {**_INPUT, "stream": True},
        USED_OF_RESPONSES,
        events=[*_DELTAS, _COMPLETED],
        limit="max_output_tokens",
        endless={**_DELTAS[2], "delta": "word " * 40},
    ),
    Row(
        "responses over chat",
        "responses",
        _INPUT,
        USED,
        completion(_SAID, usage=REPORT),
        limit="max_completion_tokens",
        channel={"text_api": "chat"},
        asked="chat/completions",
    ),
    Row(
        "responses over chat, streamed",
        "responses",
        {**_INPUT, "stream": True},
        USED,
        events=_CHUNKS,
        limit="max_completion_tokens",
        channel={"text_api": "chat"},
        endless=_ENDLESS,
        asked="chat/completions",
    ),
    Row(
        "responses, in the background",
        "responses",
        {**_INPUT, "background": True},
        USED_OF_RESPONSES,
        _WHOLE,
        limit="max_output_tokens",
        background=True,
    ),
    Row("compaction", "responses/compact", _TALK, USED_OF_RESPONSES, _COMPACTED),
    Row(
        "compaction by a summary",
        "responses/compact",
        _TALK,
        USED,
        completion("They like tea.", usage=REPORT),
        channel={"text_api": "chat"},
        asked="chat/completions",
    ),
    Row(
        "count of input tokens",
        "responses/input_tokens",
        {"input": TEXT},
        Usage(),
        {"object": "response.input_tokens", "input_tokens": 51},
    ),
    Row(
        "completions",
        "completions",
        {"prompt": TEXT, "max_tokens": 1000},
        USED,
        {**_text(_SAID), "usage": REPORT},
        limit="max_tokens",
    ),
    Row(
        "completions, streamed",
        "completions",
        {"prompt": TEXT, "max_tokens": 1000, "stream": True},
        USED,
        events=[
            _text(_SAID),
            {**_text(""), "choices": [{"text": "", "index": 0, "finish_reason": "stop"}]},
            {"choices": [], "usage": REPORT},
        ],
        limit="max_tokens",
        endless=_text("word " * 40),
    ),
    Row(
        "embeddings",
        "embeddings",
        {"input": TEXT},
        Usage(45),
        {"object": "list", "data": [{"object": "embedding", "embedding": [0.5]}], "usage": {"prompt_tokens": 45}},
    ),
    Row("moderations", "moderations", {"input": TEXT}, Usage(51), {"id": "m", "results": [{"flagged": False}]}),
    Row("images", "images/generations", _IMAGE, USED_OF_IMAGES, _MADE, other_purpose="audio"),
    Row(
        "images, streamed",
        "images/generations",
        {**_IMAGE, "stream": True},
        USED_OF_IMAGES,
        events=[_PICTURE, _completed(_PICTURE)],
        other_purpose="audio",
    ),
    Row("edits", "images/edits", _IMAGE, USED_OF_IMAGES, _MADE, file="image", other_purpose="audio"),
    Row(
        "edits, streamed",
        "images/edits",
        {**_IMAGE, "stream": "true"},
        USED_OF_IMAGES,
        events=[_EDIT, _completed(_EDIT)],
        file="image",
        other_purpose="audio",
    ),
    Row("variations", "images/variations", {}, USED_OF_IMAGES, _MADE, file="image", other_purpose="audio"),
    Row(
        "speech",
        "audio/speech",
        _SPEECH,
        Usage(26, output=150, audio_output=150, characters=100, milliseconds=1000),
        bytes(48_000),
        kind="audio/pcm",
    ),
    Row(
        "speech, as events",
        "audio/speech",
        {**_SPEECH, "stream_format": "sse"},
        Usage(25, output=80, audio_output=80, characters=100, milliseconds=1000),
        events=[
            {"type": "speech.audio.delta", "audio": "A" * 64_000},
            {"type": "speech.audio.done", "usage": {"input_tokens": 25, "output_tokens": 80, "total_tokens": 105}},
        ],
    ),
    Row("transcriptions", "audio/transcriptions", {}, USED_OF_TRANSCRIPTS, _TRANSCRIPT, file="file"),
    Row(
        "transcriptions, streamed",
        "audio/transcriptions",
        {"stream": "true"},
        USED_OF_TRANSCRIPTS,
        events=[
            {"type": "transcript.text.delta", "delta": "one two three four five"},
            {"type": "transcript.text.done", "text": "one two three four five", "usage": OF_TRANSCRIPTS},
        ],
        file="file",
    ),
    Row(
        "translations",
        "audio/translations",
        {},
        Usage(35, audio_input=35, output=6, milliseconds=2000),
        {"text": "one two three four five", "usage": {"type": "duration", "seconds": 2}},
        file="file",
    ),
    Row(
        "rerank",
        "rerank",
        {"query": "q", "documents": [TEXT]},
        Usage(12),
        {"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": 12}},
    ),
)
LINES = tuple(
    replace(row, name=f"line of a batch: {row.path}", batch=True, named=None)
    for row in ROWS
    if f"/v1/{row.path}" in ENDPOINTS and not (row.events or row.channel or row.background)
)
_SOUND = {"type": "input_audio_buffer.append", "audio": "A" * 64_000}  # a second
SOCKETS = (
    Row(
        "realtime",
        "realtime",
        {},
        Usage(20, cached_input=4, cached_audio_input=3, output=10, audio_input=7, audio_output=8),
        {
            "total_tokens": 30,
            "input_tokens": 20,
            "output_tokens": 10,
            "input_token_details": {
                "text_tokens": 10,
                "audio_tokens": 10,
                "cached_tokens": 4,
                "cached_tokens_details": {"text_tokens": 1, "audio_tokens": 3},
            },
            "output_token_details": {"text_tokens": 2, "audio_tokens": 8},
        },
        socket=[{"type": "response.create"}],
        endless=True,
    ),
    Row(
        "realtime: transcription",
        "realtime",
        {},
        Usage(20, audio_input=20, output=5, milliseconds=1000),
        OF_TRANSCRIPTS,
        socket=[_SOUND, {"type": "input_audio_buffer.commit"}],
    ),
)
CALLS = (replace(SOCKETS[0], name="realtime call", path="realtime/calls", call=True),)
CONTENT = {"image": b"\x89PNG\r\n\x1a\n" + bytes(40), "file": sound(2)}

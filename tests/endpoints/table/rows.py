"""The endpoints that ask an upstream: how each is called, how an upstream answers it, and what that costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from relay.protocols.usage import Usage
from relay.storage.batch_input import ENDPOINTS
from tests.endpoints.table import vendor_rows
from tests.endpoints.table.row import ASK, CHUNKS, ENDLESS, REPORT, SAID, TEXT, USED, Row
from tests.endpoints.text.responses_upstream import response
from tests.support.upstream import completion, sound

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
USED_OF_RESPONSES = Usage(100, cached_input=10, output=50, reasoning=8)
USED_OF_IMAGES = Usage(10, image_input=6, output=100, images=1)
USED_OF_TRANSCRIPTS = Usage(20, audio_input=20, output=5, milliseconds=2000)


def _tool(body: dict[str, Any], model: str) -> dict[str, Any]:
    return {**body, "tools": [{"type": "image_generation", "model": model}]}


def _text(text: str) -> dict[str, Any]:
    return {"id": "c", "object": "text_completion", "choices": [{"text": text, "index": 0, "finish_reason": None}]}


_INPUT = {"input": TEXT, "max_output_tokens": 1000}
_TALK = {"input": [{"role": "user", "content": "I like tea."}, {"role": "assistant", "content": "Noted."}]}
_WHOLE = response(1, SAID, usage=OF_RESPONSES)
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
        "delta": SAID,
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
_PICTURE = {"type": "image_generation.partial_image", "b64_json": "AAAA" * 20, "partial_image_index": 0}
_EDIT = {"type": "image_edit.partial_image", "b64_json": "AAAA" * 20, "partial_image_index": 0}


def _completed(event: dict[str, Any]) -> dict[str, Any]:
    kind = event["type"].partition(".")[0]
    return {"type": f"{kind}.completed", "b64_json": "AAAA" * 20, "usage": OF_IMAGES}


ROWS = (
    *vendor_rows.ROWS,
    Row("chat", "chat/completions", ASK, USED, completion(SAID, usage=REPORT), limit="max_tokens"),
    Row(
        "chat, streamed",
        "chat/completions",
        {**ASK, "stream": True},
        USED,
        events=CHUNKS,
        limit="max_tokens",
        endless=ENDLESS,
    ),
    Row(
        "chat over responses",
        "chat/completions",
        ASK,
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
        completion(SAID, usage=REPORT),
        limit="max_completion_tokens",
        channel={"text_api": "chat"},
        asked="chat/completions",
    ),
    Row(
        "responses over chat, streamed",
        "responses",
        {**_INPUT, "stream": True},
        USED,
        events=CHUNKS,
        limit="max_completion_tokens",
        channel={"text_api": "chat"},
        endless=ENDLESS,
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
        {**_text(SAID), "usage": REPORT},
        limit="max_tokens",
    ),
    Row(
        "completions, streamed",
        "completions",
        {"prompt": TEXT, "max_tokens": 1000, "stream": True},
        USED,
        events=[
            _text(SAID),
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
) + tuple(
    replace(row, name="request of a message batch", batch=True, of_messages=True, named=None)
    for row in ROWS
    if row.name == "messages"
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

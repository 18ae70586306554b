"""Streams and answers of generateContent for the tests of its codecs, in the forms that were recorded of Google's."""

from __future__ import annotations

import json
from typing import Any

from relay.protocols.chat_completions.client import ChatClient
from relay.protocols.codec import Conversion
from relay.protocols.contract import Dialect
from relay.protocols.gemini.request import GeminiRequest, parse_gemini_request
from relay.protocols.gemini.upstream import GeminiUpstream

GEMINI = Dialect(vendor="gemini")
NEW, OLD = "gemini-3-flash", "gemini-2.5-flash"  # models of two generations
USAGE = {
    "promptTokenCount": 9,
    "candidatesTokenCount": 4,
    "thoughtsTokenCount": 3,
    "cachedContentTokenCount": 5,
    "totalTokenCount": 16,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 9}],
}
HEAD = {"modelVersion": "gemini-3-flash", "responseId": "r1", "createTime": "2026-03-10T14:54:45.066123Z"}

TEXT: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "Say hello."}]}]}


def parsed(body: dict[str, Any], stream: bool = False) -> GeminiRequest:
    return parse_gemini_request(json.dumps(body).encode(), "m", stream, stream)


def frame(*parts: dict[str, Any], finish: str = "", index: int | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if finish:
        candidate["finishReason"] = finish
    if index is not None:
        candidate["index"] = index
    return {"candidates": [{**candidate, **more.pop("candidate", {})}], **more, **HEAD}


def sse(*frames: dict[str, Any], end: bytes = b"\r\n\r\n") -> bytes:
    return b"".join(b"data: " + json.dumps(one).encode() + end for one in frames)


def frames_of(data: bytes) -> list[dict[str, Any]]:
    """The responses in a stream of events."""
    blocks = data.replace(b"\r\n", b"\n").split(b"\n\n")
    return [json.loads(block.removeprefix(b"data: ")) for block in blocks if block.strip()]


# As recorded in March 2026: usage without counts until the end, the signature on an empty text (gemini-3.1-flash-lite).
RECORDED = (
    frame({"text": "Hello!"}, usageMetadata={"trafficType": "ON_DEMAND"}),
    frame({"text": " How can I help you today"}, usageMetadata={"trafficType": "ON_DEMAND"}),
    frame({"text": "?"}, usageMetadata={"trafficType": "ON_DEMAND"}),
    frame({"text": "", "thoughtSignature": "AY89a18iOcE="}, finish="STOP", usageMetadata=USAGE),
)


def chat_codec(include_usage: bool = True) -> Conversion:
    """A client of chat completions at a Gemini upstream."""
    client = ChatClient({"model": "m"}, include_usage, "chatcmpl-made")
    encoder = client.encoder()
    return Conversion(decoder=GeminiUpstream().decoder(GEMINI), encoder=encoder, ending=encoder.ending)


def completion_of(*frames: dict[str, Any]) -> dict[str, Any]:
    """The hub completion of an answer of one frame, or of a list of them."""
    body = json.dumps(frames[0] if len(frames) == 1 else list(frames)).encode()
    found = GeminiUpstream().completion(body, GEMINI)
    assert found is not None and found.completion is not None, found
    completion: dict[str, Any] = found.completion
    return completion


def message_of(*frames: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = completion_of(*frames)["choices"][0]["message"]
    return message

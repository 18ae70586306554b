"""Every client's API with every upstream's, as the endpoint puts their codecs together."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final

from relay.protocols.anthropic_messages.client import MessagesClient
from relay.protocols.anthropic_messages.upstream import MessagesUpstream
from relay.protocols.chat_completions.client import ChatClient
from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.codec import Conversion
from relay.protocols.contract import Client, ConvertedRequest, Dialect, Upstream
from relay.protocols.gemini.client import GeminiClient
from relay.protocols.gemini.upstream import GeminiUpstream
from relay.protocols.responses.client import ResponsesClient
from relay.protocols.responses.request import user_item
from relay.protocols.responses.upstream import ResponsesUpstream
from tests.support.apis.answers import Answer, events_of
from tests.support.apis.upstreams import framed, stream_of, whole_answer

Json = dict[str, Any]

APIS: Final = ("chat", "responses", "messages", "gemini")
PAIRS: Final = [(client, upstream) for client in APIS for upstream in APIS if client != upstream]
UPSTREAMS: Final[dict[str, Upstream]] = {
    "chat": ChatUpstream(),
    "responses": ResponsesUpstream(),
    "messages": MessagesUpstream(),
    "gemini": GeminiUpstream(),
}
DIALECTS: Final = {
    "chat": Dialect(vendor="openai"),
    "responses": Dialect(vendor="openai"),
    "messages": Dialect(output_field="max_tokens", vendor="anthropic"),
    "gemini": Dialect(vendor="gemini"),
}
MODELS: Final = {"chat": "m", "responses": "m", "messages": "claude-sonnet-4-5", "gemini": "gemini-3-pro"}
_ASKED: Final[dict[str, Json]] = {
    "chat": {"messages": [{"role": "user", "content": "Hi."}], "stream_options": {"include_usage": True}},
    "responses": {"input": [user_item("Hi.")]},
    "messages": {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 5000},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi."}]}]},
}


def client_of(api: str, request: Json | None = None) -> Client:
    body = {"model": "m", **(request or _ASKED[api])}
    if api == "chat":
        return ChatClient(body, "stream_options" in body, "chatcmpl-1", 5)
    if api == "messages":
        return MessagesClient(body, "msg_1")
    if api == "gemini":
        return GeminiClient(body, "m", "made")
    numbers = itertools.count()
    ids: Json = {"id": "resp_1", "object": "response", "created_at": 5}
    return ResponsesClient(body, body["input"], ids, lambda: f"{next(numbers):04}", lambda: 6)


def request_for(api: str, client: Client) -> ConvertedRequest:
    """What an upstream of an API is sent for a client's request; also what both sides drop."""
    hub = client.hub_request()
    form = UPSTREAMS[api].request({**hub.body, "model": MODELS[api]}, DIALECTS[api])
    return ConvertedRequest(json.loads(json.dumps(form.body)), [*hub.dropped, *form.dropped], form.names)


def converted(client: str, upstream: str, answer: Json) -> Json:
    """A complete answer of an upstream, as a client of another API gets it."""
    found = UPSTREAMS[upstream].completion(json.dumps(answer).encode(), DIALECTS[upstream])
    assert found is not None and found.completion is not None
    return client_of(client).answer(found.completion)


def codec_of(client: str, upstream: str) -> Conversion:
    return Conversion(decoder=UPSTREAMS[upstream].decoder(DIALECTS[upstream]), encoder=client_of(client).encoder())


def wire(upstream: str, answer: Json) -> bytes:
    """The stream of a complete answer."""
    return b"".join(event_bytes(upstream, answer))


def event_bytes(upstream: str, answer: Json) -> list[bytes]:
    return [framed(upstream, event) for event in stream_of(upstream, answer)]


def fed(codec: Conversion, data: bytes, step: int = 0) -> bytes:
    """The whole stream for the client. `step`: bytes that arrive at once."""
    size = step or max(1, len(data))
    out = b"".join(codec.feed(data[at : at + size]) for at in range(0, len(data), size))
    return out + codec.finish(clean=True) + codec.terminal


def answer_of(body: Json | bytes) -> Answer:
    """What an answer says, by its body or its stream."""
    return Answer([*events_of(body)] if isinstance(body, bytes) else [body])


def spoken(api: str, thought: str, text: str, calls: list[tuple[str, str, Json]]) -> Json:
    """A complete answer of an API: a thought, a text and calls (id, name, arguments), each of which may be missing."""
    written = [(ident, name, json.dumps(given, ensure_ascii=False)) for ident, name, given in calls]
    if api == "chat":
        message: Json = {"content": text or None}
        if thought:
            message["reasoning_content"] = thought
        if written:
            message["tool_calls"] = [
                {"id": ident, "type": "function", "function": {"name": name, "arguments": given}}
                for ident, name, given in written
            ]
        return whole_answer(api, {"message": message})
    if api == "messages":
        content: list[Json] = []
        if thought:
            content.append({"type": "thinking", "thinking": thought, "signature": "c2lnbmVk"})
        content += [{"type": "text", "text": text}] if text else []
        content += [{"type": "tool_use", "id": one, "name": name, "input": given} for one, name, given in calls]
        return whole_answer(api, {"content": content, "stop_reason": "tool_use" if calls else "end_turn"})
    if api == "gemini":
        parts: list[Json] = [{"text": thought, "thought": True}] if thought else []
        parts += [{"text": text}] if text else []
        parts += [{"functionCall": {"id": one, "name": name, "args": given}} for one, name, given in calls]
        return whole_answer(api, {"parts": parts})
    output: list[Json] = []
    if thought:
        said = [{"type": "reasoning_text", "text": thought}]
        output.append({"type": "reasoning", "id": "rs_1", "summary": [], "content": said})
    if text:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        message = {"type": "message", "id": "msg_up", "role": "assistant", "status": "completed", "content": [part]}
        output.append(message)
    output += [
        {
            "type": "function_call",
            "id": f"fc_{one}",
            "call_id": one,
            "name": name,
            "arguments": given,
            "status": "completed",
        }
        for one, name, given in written
    ]
    return whole_answer(api, {"output": output})

"""Requests and answers through the codecs of the Messages API, as the endpoint puts them together."""

from __future__ import annotations

import itertools
import json
from typing import Any, NamedTuple

from relay.protocols.anthropic_messages.answer import whole_message
from relay.protocols.anthropic_messages.client import MessagesClient
from relay.protocols.anthropic_messages.upstream import MessagesUpstream
from relay.protocols.chat_completions.client import ChatClient
from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.codec import Conversion
from relay.protocols.contract import Client, Dialect, Upstream
from relay.protocols.responses.client import ResponsesClient
from relay.protocols.responses.upstream import ResponsesUpstream
from tests.support.peers.messages import wire
from tests.support.upstream import Call

CHAT, RESPONSES, MESSAGES = ChatUpstream(), ResponsesUpstream(), MessagesUpstream()
OLD, NEW = "claude-sonnet-4-5", "claude-opus-4-7"
USER: dict[str, Any] = {"role": "user", "content": "Hi."}
ANTHROPIC = Dialect(output_field="max_tokens", vendor="anthropic")


def messages_client(messages: list[Any] | None = None, **more: Any) -> MessagesClient:
    body = {"model": OLD, "max_tokens": 5000, "messages": messages or [USER], **more}
    return MessagesClient(body, "msg_1")


def chat_client(messages: list[Any] | None = None, **more: Any) -> ChatClient:
    return ChatClient({"model": OLD, "messages": messages or [USER], **more}, True, "chatcmpl-1", 5)


def responses_client(items: list[Any], **more: Any) -> ResponsesClient:
    numbers = itertools.count()
    ids = {"id": "resp_1", "created_at": 5}
    return ResponsesClient({"model": OLD, "input": items, **more}, items, ids, lambda: f"{next(numbers):04}", lambda: 6)


def sent(client: Client, upstream: Upstream = CHAT, dialect: Dialect = ANTHROPIC) -> dict[str, Any]:
    """What an upstream is sent for a client's request."""
    return converted(client, upstream, dialect).body


class Converted(NamedTuple):
    body: dict[str, Any]
    dropped: list[str]


def converted(client: Client, upstream: Upstream = CHAT, dialect: Dialect = ANTHROPIC) -> Converted:
    hub = client.hub_request()
    found = upstream.request(hub.body, dialect)
    return Converted(found.body, [*hub.dropped, *found.dropped])


def hub(client: Client) -> Converted:
    """A client's request in the hub form."""
    found = client.hub_request()
    return Converted(found.body, found.dropped)


def chunks(*choices: dict[str, Any], usage: Any = None, done: bool = True) -> bytes:
    """A stream of chat completions: a chunk for each delta or choice."""
    out = b""
    for one in choices:
        choice = one if "delta" in one or "finish_reason" in one else {"delta": one}
        whole = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": None, **choice}]}
        out += b"data: " + json.dumps(whole).encode() + b"\n\n"
    if usage is not None:
        out += b"data: " + json.dumps({"id": "c", "choices": [], "usage": usage}).encode() + b"\n\n"
    return out + (b"data: [DONE]\n\n" if done else b"")


def call(index: int, arguments: str = "", **named: Any) -> dict[str, Any]:
    """A delta of a tool call."""
    function = {"arguments": arguments, **({"name": named["name"]} if "name" in named else {})}
    ident = {"id": named["id"], "type": "function"} if "id" in named else {}
    return {"tool_calls": [{"index": index, **ident, "function": function}]}


def stream(client: Client, data: bytes, upstream: Upstream = CHAT, step: int = 0) -> tuple[bytes, Conversion]:
    """The bytes that a client gets for an upstream's stream, and the codec. `step`: bytes that arrive at once."""
    codec = Conversion(decoder=upstream.decoder(ANTHROPIC), encoder=client.encoder())
    size = step or len(data)
    out = b"".join(codec.feed(data[at : at + size]) for at in range(0, len(data), size))
    return out + codec.finish(clean=True) + codec.terminal, codec


def events(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream of messages, whose names are their types."""
    found: list[dict[str, Any]] = []
    for event in data.decode().split("\n\n")[:-1]:
        name, _, text = event.partition("\n")
        found.append(json.loads(text.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def message_of(data: bytes) -> dict[str, Any]:
    """The message of a stream, whose blocks follow one another."""
    open_at: int | None = None
    last = -1
    seen = [event["type"] for event in events(data)]
    assert seen[0] == "message_start" and seen[-2:] == ["message_delta", "message_stop"] and seen.count(seen[0]) == 1
    for event in events(data):
        if event["type"] == "content_block_start":
            assert open_at is None and event["index"] == last + 1
            open_at = last = event["index"]
        elif event["type"] == "content_block_delta":
            assert event["index"] == open_at
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_at
            open_at = None
    assert open_at is None
    text, error = whole_message(data)
    assert error is None
    found: dict[str, Any] = json.loads(text)
    return found


def streamed(client: Client, *choices: dict[str, Any], usage: Any = None) -> dict[str, Any]:
    """The message that a client of the Messages API gets of a stream of chat completions."""
    return message_of(stream(client, chunks(*choices, usage=usage))[0])


def completion(message: dict[str, Any], finish: str = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], **more}).encode()


def answered(client: Client, body: bytes, upstream: Upstream = CHAT) -> dict[str, Any]:
    """What a client gets for a complete answer of an upstream."""
    found = upstream.completion(body, ANTHROPIC)
    assert found is not None and found.completion is not None
    return client.answer(found.completion)


def of_claude(whole: dict[str, Any], found: list[dict[str, Any]]) -> tuple[bytes, bytes]:
    """A message as the body of an answer, and as a stream."""
    return json.dumps(whole).encode(), wire(found)


def as_call(body: dict[str, Any]) -> Call:
    """A request as it would arrive at the mock."""
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "k"}
    return Call("POST", "/v1/messages", headers, json.dumps(body).encode(), None)  # type: ignore[arg-type]

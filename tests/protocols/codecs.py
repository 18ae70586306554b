"""Streams, codecs and their events for the tests of protocols."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace
from typing import Any

from hypothesis import strategies as st

from relay.protocols.chat_completions.client import ChatClient
from relay.protocols.chat_completions.client_stream import ChatEncoder
from relay.protocols.chat_completions.upstream import ChatUpstream
from relay.protocols.chat_completions.upstream_stream import ChatDecoder
from relay.protocols.codec import Conversion
from relay.protocols.contract import Dialect
from relay.protocols.responses.client import hub_request
from relay.protocols.responses.client_stream import ResponsesEncoder
from relay.protocols.responses.tools import ToolNames
from relay.protocols.responses.upstream import ResponsesUpstream
from relay.protocols.responses.upstream_stream import ResponsesDecoder

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
NAME = st.sampled_from(["get_weather", "search", "run"])


def sse(*events: Any, done: bool = True) -> bytes:
    out = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return out + (b"data: [DONE]\n\n" if done else b"")


def events(data: bytes) -> list[dict[str, Any]]:
    found = []
    for block in data.decode().split("\n\n"):
        text = "\n".join(line[6:] for line in block.split("\n") if line.startswith("data: "))
        if text and text != "[DONE]":
            found.append(json.loads(text))
    return found


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


def codec(
    request: dict[str, Any] | None = None, names: ToolNames | None = None, watch_finish: bool = False
) -> Conversion:
    """A client of responses at an upstream of chat."""
    numbers = itertools.count()
    ids: dict[str, Any] = {"id": "resp_1", "created_at": 5}
    encoder = ResponsesEncoder(
        request or {"model": "m"}, ids, names or ToolNames(), lambda: f"{next(numbers):04x}", lambda: 9
    )
    return Conversion(decoder=ChatDecoder(watch_finish), encoder=encoder)


def chat_codec(include_usage: bool = False, legacy: bool = False) -> Conversion:
    """A client of chat at an upstream of responses."""
    return Conversion(decoder=ResponsesDecoder(), encoder=ChatEncoder(include_usage, legacy, "chatcmpl-fallback"))


def chat_form(request: dict[str, Any], items: list[Any], dialect: Dialect | None = None) -> Any:
    """What a chat upstream is sent for a request of responses: its body, what its functions stand for, what
    is dropped.
    """
    hub, names = hub_request(request, items)
    form = ChatUpstream().request(hub.body, dialect or Dialect())
    return SimpleNamespace(body=form.body, names=names, dropped=[*hub.dropped, *form.dropped])


def responses_form(request: dict[str, Any], least_output: int = 1) -> Any:
    """What a responses upstream is sent for a chat request."""
    hub = ChatClient(request, False, "").hub_request()
    return ResponsesUpstream().request(hub.body, Dialect(least_output=least_output))


def fresh() -> Any:
    numbers = itertools.count()
    return lambda: str(next(numbers))


def fed(stream: Any, data: bytes, cuts: list[int] | None = None) -> bytes:
    edges = [0, *sorted(cuts or []), len(data)]
    out = b"".join(stream.feed(data[start:end]) for start, end in itertools.pairwise(edges))
    return out + stream.finish() + stream.terminal  # type: ignore[no-any-return]


USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}

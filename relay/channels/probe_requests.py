"""The short request by which a channel is tested, in the API for text that its upstream speaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from portal.lib.json import Json, decode_object, text_of
from relay.models import Channel
from relay.protocols.anthropic_messages.answer import parse_messages_answer
from relay.protocols.anthropic_messages.stream import MessagesStream
from relay.protocols.chat_completions.answer import ChatAnswer, parse_chat_answer
from relay.protocols.chat_completions.client_stream import ChatEncoder
from relay.protocols.chat_completions.stream import ChatStream
from relay.protocols.codec import Codec, Conversion
from relay.protocols.cohere_chat.upstream import CohereUpstream
from relay.protocols.contract import Dialect, Upstream
from relay.protocols.converse.upstream import ConverseUpstream
from relay.protocols.gemini.answer import Framing, parse_gemini_answer
from relay.protocols.gemini.stream import GeminiStream
from relay.protocols.ollama_chat.upstream import OllamaUpstream
from relay.protocols.responses.answer import parse_responses_answer
from relay.protocols.responses.request import user_item
from relay.protocols.responses.upstream_stream import ResponsesDecoder
from relay.providers.apis import model_in_path
from relay.providers.overrides.apply import to_body
from relay.providers.overrides.rules import BadOverrides, Overrides, read_overrides

_MESSAGE_TOKENS: Final = 64  # of a test's answer, where the API demands a limit
_ASK: Final = "Reply with the word OK."
# APIs that no client speaks, so that an answer is converted to be read.
_CONVERTED: Final[Mapping[str, Upstream]] = {
    upstream.api: upstream for upstream in (OllamaUpstream(), CohereUpstream(), ConverseUpstream())
}
_STREAMED_BY_PATH: Final = frozenset(("generate_content", "converse"))
# Bodies for vendors without an API for text.
_WITHOUT_TEXT: Final[Mapping[str, Json]] = {
    "embeddings": {"input": ["OK"]},
    "rerank": {"query": "OK", "documents": ["OK"]},
}


@dataclass(frozen=True, slots=True)
class ShortRequest:
    """A request, and how its answer is read."""

    path: str  # below the base URL, with its query
    body: Json
    streamed: bool
    scanner: Codec  # of a stream
    read: Callable[[bytes], ChatAnswer | None]  # a plain answer; None when it is none


def short_request(channel: Channel, model: str, streamed: bool) -> ShortRequest:
    """The request that tests an upstream's `model`; only text is streamed."""
    api = _api_of_test(channel.vendor.served(channel.text_api, model), model)
    if api in _WITHOUT_TEXT:
        path = channel.vendor.path(api).lstrip("/")
        return ShortRequest(path, {"model": model, **_WITHOUT_TEXT[api]}, False, ChatStream(), _of_list)
    named = model_in_path(model)
    path = channel.vendor.path(api, streamed).replace("{model}", named)
    body: Json = {"model": model, "messages": [{"role": "user", "content": _ASK}]}
    scanner: Codec = ChatStream()
    if api == "responses":
        body = {"model": model, "instructions": "Be brief.", "input": [user_item(_ASK)], "store": False}
        encoder = ChatEncoder(include_usage=False, legacy=False, fallback_id="")
        scanner = Conversion(decoder=ResponsesDecoder(), encoder=encoder)
    elif api == "messages":
        body["max_tokens"] = _MESSAGE_TOKENS
        scanner = MessagesStream()
    elif api == "generate_content":
        body = {"contents": [{"role": "user", "parts": [{"text": _ASK}]}]}
        scanner = GeminiStream(Framing(sse=True))
        if streamed:
            path = channel.vendor.path("generate_content.stream").replace("{model}", named) + "?alt=sse"
    elif api in _CONVERTED:
        encoder = ChatEncoder(include_usage=False, legacy=False, fallback_id="")
        scanner = Conversion(decoder=_CONVERTED[api].decoder(Dialect()), encoder=encoder)
        asked, _ = _CONVERTED[api].address(streamed)
        path = channel.vendor.path(asked, streamed).replace("{model}", named)
        if api == "converse":
            body = {"messages": [{"role": "user", "content": [{"text": _ASK}]}]}
        else:
            body["stream"] = streamed  # its default is a stream
    overrides = overrides_of(channel)
    if overrides is not None:
        to_body(overrides.of_body(api, model, model), body)
    if streamed and api not in _STREAMED_BY_PATH:
        body["stream"] = True
    if channel.vendor.envelope is not None and api == "messages":
        body = channel.vendor.envelope.put(body)
    return ShortRequest(path.lstrip("/"), body, streamed, scanner, _READERS[api])


def overrides_of(channel: Channel) -> Overrides | None:
    """What a channel changes in requests; None where that is nothing, or cannot be used."""
    try:
        return read_overrides(channel.overrides, channel.vendor.credentials.header)
    except BadOverrides:
        return None


def _api_of_test(served: frozenset[str], model: str) -> str:
    """The API by which a model is tested: one for text, unless the vendor has none."""
    found = next((api for api in (*_READERS, "embeddings") if api in served), "responses")
    return "rerank" if found == "embeddings" and "rerank" in served and "rerank" in model.lower() else found


def _of_response(content: bytes) -> ChatAnswer | None:
    """What a test needs of an answer of /v1/responses."""
    found, whole = parse_responses_answer(content), decode_object(content) or {}
    if found is None:
        return None
    return ChatAnswer(found.usage, content if found.is_error or found.failed else None, text_of(whole, "model"))


def _of_message(content: bytes) -> ChatAnswer | None:
    """What a test needs of an answer of /v1/messages."""
    found, whole = parse_messages_answer(content), decode_object(content) or {}
    return ChatAnswer(found.usage, found.error, text_of(whole, "model")) if found is not None else None


def _of_generated(content: bytes) -> ChatAnswer | None:
    """What a test needs of an answer of generateContent."""
    found, whole = parse_gemini_answer(content), decode_object(content) or {}
    return ChatAnswer(found.usage, found.error, text_of(whole, "modelVersion")) if found is not None else None


def _of_converted(api: str, content: bytes) -> ChatAnswer | None:
    """What a test needs of an answer of an API that no client speaks."""
    found, whole = _CONVERTED[api].completion(content, Dialect()), decode_object(content) or {}
    return ChatAnswer(found.usage, found.error, text_of(whole, "model")) if found is not None else None


def _of_list(content: bytes) -> ChatAnswer | None:
    """What a test needs of an answer without text. None when it lists nothing."""
    whole = decode_object(content) or {}
    listed = whole.get("data") or whole.get("results")
    return ChatAnswer(None, None, text_of(whole, "model")) if isinstance(listed, list) else None


_READERS: Final[Mapping[str, Callable[[bytes], ChatAnswer | None]]] = {
    "chat.completions": parse_chat_answer,
    "responses": _of_response,
    "messages": _of_message,
    "generate_content": _of_generated,
    "ollama.chat": partial(_of_converted, "ollama.chat"),
    "cohere.chat": partial(_of_converted, "cohere.chat"),
    "converse": partial(_of_converted, "converse"),
}

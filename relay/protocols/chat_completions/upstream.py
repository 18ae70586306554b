"""Converts between the hub and upstreams that speak chat completions, for clients of other APIs. Pure."""

from __future__ import annotations

from typing import Final

from portal.lib.json import Json, encode, object_of, objects_of, text_of
from relay.protocols.characters import clean, read_object
from relay.protocols.chat_completions.answer import parse_chat_answer, whole_completion
from relay.protocols.chat_completions.calls import pieces_of, whole_calls
from relay.protocols.chat_completions.dialects import (
    FAILED,
    citations_of,
    cited_url,
    content_of,
    failure_of,
    finish_reason,
    images_of,
    reasoning_of,
    with_cache_marks,
)
from relay.protocols.chat_completions.hub import (
    THINKING,
    complete_parameters,
    reported_extensions,
    thinking_entry,
    without_extensions,
)
from relay.protocols.chat_completions.signatures.returned import Returned, returned_messages
from relay.protocols.chat_completions.transcript import strict_messages
from relay.protocols.chat_completions.upstream_stream import ChatDecoder
from relay.protocols.contract import Completion, ConvertedRequest, Dialect
from relay.protocols.events import Unreadable
from relay.protocols.fields import lower_limit
from relay.protocols.naming.tool_names import with_accepted_names
from relay.protocols.prompts.stops import sequences_of

_MOST_STOPS: Final = 4  # sequences that OpenAI takes; at others the answer is ended here
_LIMIT: Final = "max_completion_tokens"  # the output limit in the hub form


class ChatUpstream:
    """Upstreams that speak chat completions; the hub form is theirs but for its extension members."""

    api = "chat.completions"
    answer_name = "a chat completion"
    refuses_longer = False

    def address(self, stream: bool) -> tuple[str, str]:
        return self.api, ""

    def request(self, hub: Json, dialect: Dialect) -> ConvertedRequest:
        hub, names = with_accepted_names(hub)
        messages = returned_messages(objects_of(hub, "messages"), THINKING, dialect.vendor)
        messages, dropped = strict_messages(messages, dialect.late_system)
        if dialect.cache_marks:
            messages = [with_cache_marks(message, dialect.cache_marks) for message in messages]
        body = complete_parameters(without_extensions({**hub, "messages": messages}))
        stops = sequences_of(hub.get("stop"))
        if len(stops) > _MOST_STOPS and not hub.get("logprobs"):
            body["stop"], stops = stops[:_MOST_STOPS], stops[_MOST_STOPS:]
        else:
            stops = []
        if dialect.output_field != _LIMIT and _LIMIT in body:
            body[dialect.output_field] = body.pop(_LIMIT)
        return ConvertedRequest(body, [*reported_extensions(hub), *dropped], names, stops)

    def limit(self, body: Json, tokens: int, dialect: Dialect) -> None:
        body[dialect.output_field] = lower_limit(body.get(dialect.output_field), tokens)

    def encode(self, body: Json, stream: bool, dialect: Dialect) -> bytes:
        extra: Json = {}
        if stream:
            extra["stream"] = True
            if dialect.ask_usage:
                extra["stream_options"] = {"include_usage": True}
        return encode({**body, **extra})

    def completion(self, body: bytes, dialect: Dialect) -> Completion | None:
        body, error = whole_completion(body)
        if error is not None:
            return Completion(None, error=error)
        answer = parse_chat_answer(body)
        if answer is None:
            return None
        if answer.error is not None:
            return Completion(None, error=answer.error)
        decoded, broken = read_object(body)
        choices = decoded.get("choices") if decoded is not None else None
        if decoded is None or not isinstance(choices, list):
            return None
        try:
            decoded["choices"] = [_whole_choice(choice, decoded, dialect.vendor) for choice in choices]
        except Unreadable:
            return None
        for choice, given in zip(objects_of(decoded, "choices"), choices, strict=True):
            if choice["finish_reason"] == FAILED:
                return Completion(None, answer.usage, failure_of(given))
        if broken:
            whole = clean(decoded)
            decoded = whole if isinstance(whole, dict) else {}
        return Completion(decoded, answer.usage)

    def decoder(self, dialect: Dialect) -> ChatDecoder:
        return ChatDecoder(not dialect.sends_done, dialect.vendor)


def _whole_choice(choice: object, completion: Json, vendor: str) -> Json:
    """A choice of a complete answer in the hub form. Raises Unreadable."""
    message = choice.get("message") or choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise Unreadable
    content, refusal = content_of(message.get("content")), message.get("refusal")
    if refusal is not None and not isinstance(refusal, str):
        raise Unreadable
    calls, returned = whole_calls(message), Returned()
    returned.add(message, content)
    for position, piece in enumerate(pieces_of(message)):
        returned.add_call(piece, text_of(piece, "id"), position)
    text = content.text or text_of(object_of(message, "audio"), "transcript")
    annotations = objects_of(message, "annotations")
    urls = {cited_url(entry) for entry in annotations}
    found: Json = {
        "role": "assistant",
        "content": text or (None if calls else ""),
        "refusal": refusal or None,
        "annotations": [*annotations, *(entry for entry in citations_of(completion) if cited_url(entry) not in urls)],
    }
    if thoughts := content.thoughts or reasoning_of(message):
        found["reasoning_content"] = thoughts
    if calls:
        found["tool_calls"] = calls
    if images := [*images_of(message), *content.images]:
        found["images"] = images
    if signature := returned.packed(vendor):
        found[THINKING] = [thinking_entry("", [], [], signature)]
    return {
        "index": choice.get("index"),
        "message": found,
        "logprobs": choice.get("logprobs"),
        "finish_reason": finish_reason(choice.get("finish_reason")) or None,
    }
